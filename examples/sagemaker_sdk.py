# %% [markdown]
# # Kennel under the SageMaker Python SDK
#
# Kennel has verbs of its own (`train-and-deploy.ipynb`). You can as well drive its images from the SDK that
# the rest of your code uses, version 3: **ModelTrainer** trains, **HyperparameterTuner** searches,
# **Transformer** scores a folder. Images are named by **digest**: a tag can be moved to another image, a
# digest cannot.
#
# | `ON` | what runs |
# |---|---|
# | `"local"` | the very containers, in the SDK's local mode. No account. The search is left out |
# | `"aws"` | all of it on Amazon SageMaker; **costs money**, and the last cell stops what does |
#
# To run it: `make build setup-sdk`, then open this file with the Python of `.venv-sdk` as its kernel.

# %%
ON = "local"  # or "aws"
ROLE = ""  # on AWS: the ARN of a role for training and serving; `make bootstrap` makes one
BUCKET = ""  # on AWS: s3://bucket/prefix with train, valid and test inside; `make upload` fills one

# %%
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "Makefile").is_file())
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))
os.environ.setdefault("AWS_DEFAULT_REGION", "eu-west-1")  # the SDK wants one even where nothing is sent
# Or else every call is reported to AWS, and logs a traceback where it cannot be.
os.environ["SAGEMAKER_USER_CONFIG_OVERRIDE"] = str(ROOT / "tests/integration/sdk/telemetry-off.yaml")
WORK = ROOT / "build/notebook-sdk"
shutil.rmtree(WORK, ignore_errors=True)
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]

from sagemaker.core.local import LocalSession
from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.core.training.configs import Compute, InputData
from sagemaker.core.transformer import Transformer
from sagemaker.train.model_trainer import Mode, ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

logging.disable(logging.WARNING)  # the SDK tells a lot

# %% [markdown]
# ## The images, by digest
#
# `make push` writes what it pushed to `container/images.json`. On this machine an image that was built is
# named by the digest of its configuration.


# %%
def find_image(name: str) -> str:
    """What to give to the SDK."""
    if ON == "aws":
        pushed: dict[str, dict[str, str]] = json.loads(Path("container/images.json").read_text())
        return pushed[name]["uri"]
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", f"kennel/{name}:local"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


training_image, serving_image = find_image("training"), find_image("serving-cpu")
print(training_image, serving_image, sep="\n")

# %% [markdown]
# ## Train
#
# Hyperparameters are Kennel's own, each checked before any data is read. Drawn shapes will do as pictures.
# Two epochs on 96 of them teach nothing yet: it is the way that is shown here.

# %%
subprocess.run(
    [sys.executable, "-m", "examples.shapes", WORK / "data", "--images-per-class", "24"],
    check=True,
    stdout=subprocess.DEVNULL,
)
place = BUCKET if ON == "aws" else str(WORK / "data")
channels = [
    InputData(channel_name=name, data_source=f"{place}/{name}") for name in ("train", "valid", "test")
]
hyperparameters = {"architecture": "cnn", "epochs": "2", "image_size": "32", "precision": "fp32"}
trainer = ModelTrainer(
    training_image=training_image,
    hyperparameters=hyperparameters,
    base_job_name="kennel-shapes",
    **(
        {"role": ROLE, "compute": Compute(instance_type="ml.m5.large", instance_count=1)}
        if ON == "aws"
        else {
            "training_mode": Mode.LOCAL_CONTAINER,
            "compute": Compute(instance_type="local_cpu", instance_count=1),
            "local_container_root": str(WORK / "training"),
        }
    ),
)
(WORK / "training").mkdir(parents=True)
trainer.train(input_data_config=channels)

# %%
if ON == "local":
    archive = WORK / "training/compressed_artifacts/model.tar.gz"
    (WORK / "model").mkdir(mode=0o755)  # of its own: the SDK unpacks the archive beside itself
    artifact = f"file://{shutil.copy(archive, WORK / 'model')}"
else:
    artifact = trainer._latest_training_job.model_artifacts.s3_model_artifacts
print(re.sub(r".*/build", "build", artifact))

# %% [markdown]
# ## Search
#
# The regular expressions that read the metrics back from the log are Kennel's own, from the place where the
# lines are printed.

# %%
from training.metrics import metric_definitions

if ON == "aws":
    tuner = HyperparameterTuner(
        model_trainer=trainer,
        objective_metric_name="best_validation_top1_accuracy",
        metric_definitions=metric_definitions(),
        hyperparameter_ranges={
            "learning_rate": ContinuousParameter(0.005, 0.2, scaling_type="Logarithmic"),
            "batch_size": CategoricalParameter(["16", "32", "64"]),
        },
        max_jobs=4,
        max_parallel_jobs=2,
    )
    tuner.tune(inputs=channels)
else:
    print("Not run: the SDK has no local mode for it (make tune has).")

# %% [markdown]
# ## Score a folder
#
# One picture a request. In local mode `strategy` must be said, and folders inside the input are skipped, so
# the pictures are laid flat.

# %%
if ON == "local":
    session = LocalSession()
    session.config = {
        "local": {"local_code": True, "container_root": str(WORK / "containers"), "serving_port": port}
    }
    (WORK / "containers").mkdir()
    (WORK / "pictures").mkdir()
    for path in sorted((WORK / "data/test").glob("*/*_000[01].jpg")):
        shutil.copy(path, WORK / "pictures" / path.name)
    session.sagemaker_client.create_model(
        "kennel",
        {"Image": serving_image, "ModelDataUrl": artifact, "Environment": {"KENNEL_WORKERS": "1"}},
    )
    transformer = Transformer(
        model_name="kennel",
        instance_count=1,
        instance_type="local",
        strategy="SingleRecord",
        output_path=f"file://{WORK / 'answers'}",
        accept="application/json; top=1",
        base_transform_job_name="kennel-shapes",  # or it asks AWS for the model, to name the job after it
        sagemaker_session=session,
    )
    transformer.transform(f"file://{WORK / 'pictures'}", content_type="image/jpeg")
    for path in sorted((WORK / "answers").rglob("*.out")):
        best = json.loads(path.read_text())["predictions"][0]
        print(f"{path.name:24} {best['label']:10} {best['probability']:.0%}")
else:
    from sagemaker.core.resources import Model
    from sagemaker.core.shapes import ContainerDefinition

    model = Model.create(
        model_name=f"kennel-sdk-{int(time.time())}",
        execution_role_arn=ROLE,
        primary_container=ContainerDefinition(image=serving_image, model_data_url=artifact),
    )
    transformer = Transformer(
        model_name=model.model_name,
        instance_count=1,
        instance_type="ml.m5.large",
        strategy="SingleRecord",
        output_path=f"{BUCKET}/answers",
        accept="application/json; top=1",
    )
    transformer.transform(f"{BUCKET}/test", content_type="image/jpeg")
    print(f"{BUCKET}/answers")

# %% [markdown]
# ## Clean up
#
# Jobs end by themselves; a model costs nothing, and is removed all the same. Containers that ended stay until
# they are removed.

# %%
if ON == "aws":
    model.delete()
else:
    session.sagemaker_client.delete_model("kennel")
    ended = ["docker", "ps", "-aq", "--filter", "status=exited", "--filter", "network=sagemaker-local"]
    for container in subprocess.run(ended, check=True, capture_output=True, text=True).stdout.split():
        subprocess.run(["docker", "rm", container], check=True, stdout=subprocess.DEVNULL)
    print("the containers are gone")
