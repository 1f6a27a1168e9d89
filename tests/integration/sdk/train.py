"""Train on this machine through the SDK's local client, which takes the requests of boto3's.

python train.py IMAGE DATA OUTPUT [--instances N] [NAME=VALUE ...]

DATA holds train, valid and test. OUTPUT gets model.tar.gz, output.tar.gz, and what DescribeTrainingJob says.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sagemaker.core.local import LocalSession

CHANNELS = ("train", "valid", "test")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("hyperparameters", nargs="*")
    parser.add_argument("--instances", type=int, default=1)
    arguments = parser.parse_intermixed_args()

    container_root = arguments.output / "containers"
    container_root.mkdir(parents=True)
    session = LocalSession()
    session.config = {"local": {"local_code": True, "container_root": str(container_root)}}
    client = session.sagemaker_client

    client.create_training_job(
        TrainingJobName="kennel-shapes",
        AlgorithmSpecification={"TrainingImage": arguments.image, "TrainingInputMode": "File"},
        HyperParameters=dict(text.split("=", 1) for text in arguments.hyperparameters),
        InputDataConfig=[
            {
                "ChannelName": name,
                "DataSource": {
                    "FileDataSource": {
                        "FileUri": f"file://{arguments.data / name}",
                        "FileDataDistributionType": "FullyReplicated",
                    }
                },
            }
            for name in CHANNELS
        ],
        OutputDataConfig={"S3OutputPath": f"file://{arguments.output}"},
        ResourceConfig={"InstanceType": "local", "InstanceCount": arguments.instances},
    )

    description = client.describe_training_job("kennel-shapes")
    (arguments.output / "description.json").write_text(json.dumps(description, default=str))


if __name__ == "__main__":
    main()
