"""Ask an endpoint by boto3, with any region and credentials; on SageMaker, yours and no endpoint_url."""

import json
from pathlib import Path

import boto3

runtime = boto3.client("sagemaker-runtime", endpoint_url="http://127.0.0.1:8080")

answer = runtime.invoke_endpoint(
    EndpointName="kennel",
    ContentType="application/x-image",
    Accept="application/json; top=5",
    Body=Path("picture.jpg").read_bytes(),
)
for prediction in json.load(answer["Body"])["predictions"]:
    print(f"{prediction['probability']:.3f} {prediction['label']}")
