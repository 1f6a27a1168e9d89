"""Train on this machine through ModelTrainer, the SDK's class for people, with an image and no source code.

python model_trainer.py IMAGE DATA OUTPUT [--instances N] [NAME=VALUE ...]

DATA holds train, valid and test. The model becomes OUTPUT/compressed_artifacts/model.tar.gz.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sagemaker.core.training.configs import Compute, InputData
from sagemaker.train.model_trainer import Mode, ModelTrainer

CHANNELS = ("train", "valid", "test")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("hyperparameters", nargs="*")
    parser.add_argument("--instances", type=int, default=1)
    arguments = parser.parse_intermixed_args()

    arguments.output.mkdir(parents=True)
    trainer = ModelTrainer(
        training_mode=Mode.LOCAL_CONTAINER,
        training_image=arguments.image,
        compute=Compute(instance_type="local_cpu", instance_count=arguments.instances),
        hyperparameters=dict(text.split("=", 1) for text in arguments.hyperparameters),
        base_job_name="kennel-shapes",
        local_container_root=str(arguments.output),
    )
    trainer.train(
        input_data_config=[
            InputData(channel_name=name, data_source=str(arguments.data / name)) for name in CHANNELS
        ]
    )


if __name__ == "__main__":
    main()
