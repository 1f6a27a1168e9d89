"""Who may import whom: the diagram in docs/architecture.md, enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Files of training/ that know nothing heavy, so that local/ and aws/ may use them.
TRAINING_LEAVES = (
    "hyperparameters",
    "job",
    "metrics",
    "recipe",
    "recipe_aws",
    "recipe_fields",
    "recipe_table",
    "recipe_tuning",
    "progress",
)
LEAVES = tuple(f"training.{leaf}" for leaf in TRAINING_LEAVES)

# Besides the standard library and its own package; the nearest entry counts, the file's before its folder's.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "artifact": ("numpy", "PIL"),
    "artifact/network.py": ("torch", "torchvision"),
    "artifact/signature.py": ("cryptography",),
    "training": ("artifact", "scoring", "numpy", "torch", "torchvision", "safetensors", "PIL"),
    "training/graph.py": ("artifact", "numpy", "torch", "openvino"),
    "training/feature_map.py": ("openvino",),
    "training/calibrate.py": ("artifact", "numpy", "scipy"),
    "training/quantize.py": ("artifact", "numpy", "nncf"),
    **{f"training/{leaf}.py": () for leaf in TRAINING_LEAVES},
    "training/progress.py": ("tqdm",),
    "training/debugging/sampler.py": ("psutil", "pynvml"),
    "training/debugging/observers.py": ("numpy", "torch", "psutil"),
    "training/debugging/report/charts.py": ("scoring", "matplotlib", "numpy"),
    "training/debugging/report/page.py": ("scoring", "numpy"),
    "training/debugging/hook.py": ("numpy", "torch", "smdebug"),
    "training/debugging/tensorboard.py": ("tensorboard", "torch"),
    "training/doctor": ("artifact", "scoring", "numpy", "PIL"),
    "training/doctor/report.py": ("artifact", "scoring", "numpy", "PIL"),
    "training/doctor/mislabelled.py": ("artifact", "numpy", "cleanlab"),
    "training/explain/__main__.py": ("artifact",),
    "training/explain/network.py": ("artifact", "torch", "safetensors"),
    "training/explain/methods.py": ("numpy", "torch", "torchvision", "captum", "skimage"),
    "training/explain/faithfulness.py": ("numpy", "torch"),
    "training/explain/explaining.py": ("artifact", "numpy", "torch"),
    "training/explain/pictures.py": ("numpy", "PIL", "matplotlib"),
    "training/explain/report.py": ("scoring",),
    "scoring": ("artifact", "numpy", "scipy", "PIL"),
    "scoring/page.py": ("jinja2",),
    "scoring/charts.py": ("matplotlib", "numpy"),
    "scoring/__main__.py": ("artifact", "tqdm"),
    "serving": ("artifact", "numpy", "flask", "werkzeug"),
    **{f"serving/{name}.py": ("prometheus_client",) for name in ("metrics", "metrics_files", "emf")},
    **{f"serving/{name}.py": ("gevent",) for name in ("invocations", "pool")},
    "serving/gathering.py": ("numpy", "greenlet"),
    "serving/wsgi.py": ("gevent", "flask"),
    "serving/heatmap.py": ("numpy", "PIL"),
    "serving/front.py": ("gevent", "gunicorn"),
    "serving/arrays.py": ("artifact", "numpy", "PIL"),
    "serving/engine_torch.py": ("artifact", "numpy", "torch", "safetensors"),
    "serving/engine_openvino.py": ("artifact", "numpy", "openvino"),
    "tuning": (*LEAVES, "tomlkit"),
    "tuning/charts.py": ("scoring.charts", "numpy", "matplotlib", *LEAVES),
    "tuning/importance.py": ("optuna",),
    "tuning/leaderboard.py": ("rich",),
    "tuning/report.py": ("scoring.page",),
    "local": ("artifact", "scoring", "tuning", "tqdm", *LEAVES),
    "local/tuning_search.py": ("tuning", "optuna", *LEAVES),
    "local/tuning_trial.py": ("artifact", "psutil", *LEAVES),
    "local/data_processing.py": ("jsonpath_ng",),
    "local/transform_command.py": ("artifact", "scoring"),
    "aws": ("local.image_check", "local.registry", "tuning", *LEAVES),
    "aws/transform_results.py": ("artifact", "scoring", *LEAVES),
    "aws/commands.py": ("local.image_check", "local.registry", "scoring", "tuning", *LEAVES),
    "aws/client.py": ("boto3", "botocore"),
    "aws/validation.py": ("botocore", "regex"),
    "aws/lambda_function/handler.py": ("boto3", "botocore", "PIL"),
    "examples": ("numpy", "PIL"),
    "examples/notebooks.py": ("jupytext", "nbclient", "nbformat"),
    "examples/train_and_deploy.py": ("PIL", "matplotlib"),
    "examples/sagemaker_sdk.py": ("sagemaker", "training.metrics"),
    "examples/clients": ("requests", "boto3"),
    "chaos": ("artifact", "local", "psutil"),
    "chaos/scenarios/drift.py": ("PIL", "prometheus_client"),
    "chaos/kill_tuning.py": ("local", "psutil"),
    "chaos/plot.py": ("matplotlib",),
    "chaos/fuzz_codec.py": ("serving", "artifact", "atheris"),
    "chaos/mutations.py": ("serving", "numpy"),
}
PACKAGES = sorted({entry.split("/")[0] for entry in MAY_IMPORT})
FILES = [
    path.relative_to(REPOSITORY) for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")
]


def imported_modules(source: str) -> set[str]:
    """Every module an absolute import names, inside functions too."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
    }


def violations(path: Path, source: str) -> list[str]:
    """The imports of `source`, were it the file `path`, that the diagram forbids."""
    nearest = next(place for place in (path, *path.parents) if place.as_posix() in MAY_IMPORT)
    entry = MAY_IMPORT[nearest.as_posix()]
    allowed = (*sys.stdlib_module_names, path.parts[0], *entry)
    return sorted(
        module
        for module in imported_modules(source)
        if not any(f"{module}.".startswith(f"{name}.") for name in allowed)
    )


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_follow_the_diagram(path: Path) -> None:
    assert violations(path, (REPOSITORY / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        pytest.param("serving/app.py", "import torch", id="torch in serving"),
        pytest.param("serving/codec.py", "from training.metrics import METRICS", id="serving to training"),
        pytest.param("training/loop.py", "import serving.app", id="training to serving"),
        pytest.param("serving/handler.py", "import openvino", id="engine outside its file"),
        pytest.param("training/metrics.py", "import numpy", id="leaf"),
        pytest.param("local/endpoint.py", "from training.data import ImageSet", id="local to the trainer"),
        pytest.param("artifact/bundle.py", "def f():\n    import flask", id="inside a function"),
        pytest.param("aws/endpoint.py", "import boto3", id="boto3 outside the client"),
    ],
)
def test_planted_violation_is_found(path: str, source: str) -> None:
    assert len(violations(Path(path), source)) == 1


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaf_loads_nothing_heavy(leaf: str) -> None:
    code = (
        f"import sys, {leaf}; "
        "print(*sorted({'torch', 'numpy', 'PIL', 'openvino', 'flask', 'boto3'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == []


def test_every_package_directory_is_in_the_diagram() -> None:
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests"}

    assert packages == set(PACKAGES)
