"""Batch-transform a folder of images on this machine: one NAME.out for each.

python transform.py IMAGE ARTIFACT IMAGES OUTPUT --port PORT

ARTIFACT is a model.tar.gz in a folder of its own: the SDK unpacks it there. IMAGES is flat: the SDK skips
folders in it. OUTPUT gets answers/NAME.out, and what DescribeTransformJob says.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sagemaker.core.local import LocalSession


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()

    container_root = arguments.output / "containers"
    container_root.mkdir(parents=True)
    session = LocalSession()
    session.config = {
        "local": {
            "local_code": True,
            "container_root": str(container_root),
            "serving_port": arguments.port,
        }
    }
    client = session.sagemaker_client

    client.create_model(
        "kennel",
        {
            "Image": arguments.image,
            "ModelDataUrl": f"file://{arguments.artifact}",
            "Environment": {"KENNEL_WORKERS": "1"},
        },
    )
    client.create_transform_job(
        "kennel-shapes",
        "kennel",
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"file://{arguments.images}"}},
            "ContentType": "application/x-image",
            "SplitType": "None",
        },
        TransformOutput={
            "S3OutputPath": f"file://{arguments.output / 'answers'}",
            "Accept": "application/json",
        },
        TransformResources={"InstanceType": "local", "InstanceCount": 1},
        BatchStrategy="SingleRecord",
    )

    description = client.describe_transform_job("kennel-shapes")
    (arguments.output / "description.json").write_text(json.dumps(description, default=str))


if __name__ == "__main__":
    main()
