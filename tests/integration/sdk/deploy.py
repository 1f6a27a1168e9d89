"""Make an endpoint on this machine, ask it about every image, delete it.

python deploy.py IMAGE ARTIFACT IMAGES OUTPUT --port PORT

ARTIFACT is a model.tar.gz in a folder of its own: the SDK unpacks it there. IMAGES holds <label>/<file>;
OUTPUT/answers.json gets the likeliest label and its probability for each.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
from pathlib import Path
from typing import Any

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
    client.create_endpoint_config(
        "kennel",
        [
            {
                "VariantName": "kennel",
                "ModelName": "kennel",
                "InstanceType": "local",
                "InitialInstanceCount": 1,
            }
        ],
    )
    client.create_endpoint("kennel", "kennel")
    try:
        answers = {
            path.relative_to(arguments.images).as_posix(): invoke(session, path)
            for path in sorted(arguments.images.glob("*/*"))
        }
    finally:
        client.delete_endpoint("kennel")

    (arguments.output / "answers.json").write_text(json.dumps(answers))


def invoke(session: LocalSession, path: Path) -> dict[str, Any]:
    """The likeliest label; anything but 200 raises, because the local client itself does not look."""
    response = session.sagemaker_runtime_client.invoke_endpoint(
        EndpointName="kennel",
        ContentType=mimetypes.guess_type(path.name)[0],
        Accept="application/json; top=1",
        Body=path.read_bytes(),
    )
    status, body = response["ResponseMetadata"]["HTTPStatusCode"], response["Body"].read()
    if status != 200:
        raise RuntimeError(f"{path}: {status} {body}")
    (prediction,) = json.loads(body)["predictions"]
    return dict(prediction)


if __name__ == "__main__":
    main()
