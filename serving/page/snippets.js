// The programs of examples/clients, with this server's address; a test keeps them the same.
export const snippets = {
  curl: (origin) => `curl --fail-with-body --data-binary @picture.jpg \\
  --header "Content-Type: application/x-image" \\
  --header "Accept: application/json; top=5" \\
  ${origin}/invocations
`,

  boto3: (origin) => `"""Ask an endpoint by boto3, with any region and credentials; on SageMaker, yours and no endpoint_url."""

import json
from pathlib import Path

import boto3

runtime = boto3.client("sagemaker-runtime", endpoint_url="${origin}")

answer = runtime.invoke_endpoint(
    EndpointName="kennel",
    ContentType="application/x-image",
    Accept="application/json; top=5",
    Body=Path("picture.jpg").read_bytes(),
)
for prediction in json.load(answer["Body"])["predictions"]:
    print(f"{prediction['probability']:.3f} {prediction['label']}")
`,

  Python: (origin) => `"""Ask the server by requests."""

from pathlib import Path

import requests

answer = requests.post(
    "${origin}/invocations",
    data=Path("picture.jpg").read_bytes(),
    headers={"Content-Type": "application/x-image", "Accept": "application/json; top=5"},
    timeout=60,
)
if not answer.ok:
    raise SystemExit(answer.json()["error"]["message"])
for prediction in answer.json()["predictions"]:
    print(f"{prediction['probability']:.3f} {prediction['label']}")
`,

  JavaScript: (origin) => `// Ask the server from Node 18 or later; in a browser the body is the File itself.
import { readFile } from "node:fs/promises";

const answer = await fetch("${origin}/invocations", {
  method: "POST",
  headers: { "Content-Type": "application/x-image", Accept: "application/json; top=5" },
  body: await readFile("picture.jpg"),
});
const told = await answer.json();
if (!answer.ok) throw new Error(told.error.message);
for (const { label, probability } of told.predictions) {
  console.log(probability.toFixed(3), label);
}
`,
};
