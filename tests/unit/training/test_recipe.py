from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.recipe_texts import BATCH_SIZE, LEARNING_RATE, TUNING, fault, read_text
from training.recipe import (
    Recipe,
    Training,
    read_recipe,
)
from training.recipe_table import RecipeError
from training.recipe_tuning import CategoricalRange, ContinuousRange, IntegerRange

RECIPES = sorted(Path("recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_of_the_repository_is_readable(path: Path) -> None:
    recipe = read_recipe(path)

    assert recipe.description
    assert path.stem.startswith(recipe.name.removesuffix("-2x"))


def test_recipes_of_the_repository_are_all_there() -> None:
    assert {path.stem for path in RECIPES} >= {
        "dogs-resnet50",
        "dogs-densenet121",
        "dogs-resnet18",
        "dogs-resnet50-multi-instance",
        "hurricane-cnn",
        "shapes",
    }
    assert len({read_recipe(path).name for path in RECIPES}) == len(RECIPES)


def test_two_instance_recipe_searches_what_the_single_one_searches() -> None:
    single = read_recipe(Path("recipes/dogs-resnet50.toml"))
    double = read_recipe(Path("recipes/dogs-resnet50-multi-instance.toml"))

    assert single.tuning and double.tuning
    assert double.tuning.ranges == single.tuning.ranges
    rules = double.hyperparameters.debug_rules  # the single one's have their thresholds spelled out
    assert double.hyperparameters == dataclasses.replace(single.hyperparameters, debug_rules=rules)
    assert double.data == single.data
    assert (double.tuning.instance_count, double.training.instance_count) == (2, 2)


def test_name_alone_gives_defaults(tmp_path: Path) -> None:
    recipe = read_text(tmp_path, "")

    assert recipe == Recipe(name="x")
    assert (recipe.tuning, recipe.endpoint, recipe.transform, recipe.ec2) == (None, None, None, None)


def test_every_section_is_read_into_its_type(tmp_path: Path) -> None:
    recipe = read_text(
        tmp_path,
        f"""
        [hyperparameters]
        lr = 1
        batch-size = 16
        {TUNING}
        [tuning.ranges.lr]
        type = "continuous"
        low = 0.001
        high = 1
        scale = "logarithmic"
        [tuning.ranges.epochs]
        type = "integer"
        low = 1
        high = 4
        {BATCH_SIZE}
        [training]
        spot = true
        max_run_seconds = 60
        max_wait_seconds = 90
        [debugger]
        rules = ["Overfit"]
        [debugger.parameters.Overfit]
        patience = 2
        tensor_regex = ".*"
        [endpoint.scaling]
        max_instances = 3
        target = 600
        [endpoint.lambda]
        memory_mb = 512
        """,
    )

    assert (recipe.hyperparameters.learning_rate, recipe.hyperparameters.batch_size) == (1.0, 16)
    assert recipe.tuning and recipe.tuning.ranges == {
        "learning_rate": ContinuousRange(type="continuous", low=0.001, high=1.0, scale="logarithmic"),
        "epochs": IntegerRange(type="integer", low=1, high=4),
        "batch_size": CategoricalRange(type="categorical", values=(32, 64)),
    }
    assert recipe.training == Training(spot=True, max_run_seconds=60, max_wait_seconds=90)
    assert recipe.debugger.parameters == {"Overfit": {"patience": 2, "tensor_regex": ".*"}}
    assert recipe.endpoint and recipe.endpoint.scaling and recipe.endpoint.lambda_function
    assert isinstance(recipe.endpoint.scaling.target, float)
    assert recipe.endpoint.lambda_function.memory_mb == 512


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "[training]\ninstnace_type = 'ml.m5.large'",
            "unknown key 'instnace_type' in [training]. Did you mean 'instance_type'?",
            id="key",
        ),
        pytest.param("descripton = 'a'", "unknown key 'descripton' at the top of the file.", id="top-key"),
        pytest.param("[tunning]", "unknown table [tunning]. Did you mean 'tuning'?", id="table"),
        pytest.param(
            "[endpoint.scalling]",
            "unknown table [endpoint.scalling]. Did you mean 'endpoint.scaling'?",
            id="inner-table",
        ),
        pytest.param(
            "[hyperparameters]\nepoch = 3",
            "in [hyperparameters]: Unknown hyperparameter 'epoch'. Did you mean 'epochs'?",
            id="hyperparameter",
        ),
        pytest.param(
            TUNING + LEARNING_RATE.replace("learning_rate", "learning_rat"),
            "in [tuning.ranges]: Unknown hyperparameter 'learning_rat'.",
            id="range",
        ),
        pytest.param(
            "[debugger]\nrules = ['Overfitt']",
            "rules='Overfitt' in [debugger] is not one of VanishingGradient,",
            id="rule",
        ),
        pytest.param(
            "[debugger]\nrules = ['Overfit']\n[debugger.parameters.Overtraining]\ndelta = 1",
            "[debugger.parameters.Overtraining] adjusts a rule that is in neither",
            id="parameters-of-unchosen-rule",
        ),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(text: str, message: str, tmp_path: Path) -> None:
    assert message in fault(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "[training]\nvolume_gb = '50'",
            "volume_gb='50' in [training] is not a whole number.",
            id="str-int",
        ),
        pytest.param("[training]\nvolume_gb = true", "volume_gb=True in [training] is not a", id="bool-int"),
        pytest.param("[training]\nspot = 1", "spot=1 in [training] is not true or false.", id="int-bool"),
        pytest.param("training = 3", "training=3 is not a table; write [training]", id="table"),
        pytest.param(
            "[debugger]\nrules = 'Overfit'", "rules='Overfit' in [debugger] is not a list.", id="list"
        ),
        pytest.param("description = 3", "description=3 at the top of the file is not text.", id="text"),
        pytest.param(
            "[hyperparameters]\nepochs = '3'", "epochs='3' in [hyperparameters] is not a whole", id="epochs"
        ),
        pytest.param(
            "[hyperparameters]\narchitecture = ['cnn']", "architecture=['cnn'] in [hyperp", id="architecture"
        ),
        pytest.param(
            "[debugger]\nrules = ['Overfit']\n[debugger.parameters.Overfit]\npatience = [1]",
            "patience=[1] in [debugger.parameters.Overfit] is not text or a whole number",
            id="rule-parameter",
        ),
    ],
)
def test_wrong_type_is_refused_naming_key_value_and_expected(text: str, message: str, tmp_path: Path) -> None:
    assert fault(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[hyperparameters]\nepochs = 0", "epochs=0 is outside 1 to", id="epochs"),
        pytest.param(
            "[hyperparameters]\nlr = nan",
            "lr=nan in [hyperparameters] is not a finite",
            id="nan-hyperparameter",
        ),
        pytest.param("[hyperparameters]\nimage_size = 64\nresize = 32", "resize=32 is smaller", id="resize"),
        pytest.param("[hyperparameters]\nlr = 0.1\nlearning_rate = 0.1", "given twice", id="alias-twice"),
        pytest.param("[training]\ninstance_type = 'm5.large'", "'ml.m5.large'", id="ec2-on-sagemaker"),
        pytest.param("[ec2]\ninstance_type = 'ml.m5.large'", "no 'ml.' in front", id="sagemaker-on-ec2"),
        pytest.param("[ec2]", "'instance_type' is missing in [ec2]", id="ec2-empty"),
        pytest.param("[training]\nspot = true", "needs max_wait_seconds", id="spot-without-wait"),
        pytest.param("[training]\nmax_wait_seconds = 5", "with spot = true only", id="wait-without-spot"),
        pytest.param(
            "[transform]\nmax_concurrent_transforms = 11\nmax_payload_mb = 10", "is 110 MB", id="transform"
        ),
        pytest.param(
            "[training]\nspot = true\nmax_wait_seconds = 9999\nkeep_alive_seconds = 60",
            "warm pool",
            id="warm-spot",
        ),
        pytest.param(
            "[endpoint.serverless]\nmemory_mb = 1500", "not a multiple of 1024", id="serverless-memory"
        ),
        pytest.param(
            "[endpoint]\ncapture_percent = 5\n[endpoint.serverless]",
            "does not exist on serverless",
            id="serverless-capture",
        ),
        pytest.param("[endpoint.serverless]\n[endpoint.async]", "exclude each other", id="serverless-async"),
        pytest.param("[endpoint]\nupdate_percent = 60", "outside 1 to 50", id="canary"),
        pytest.param("[endpoint.lambda]\nallow_urls = ['http://a/']", "not an https address", id="http-url"),
        pytest.param("[endpoint.lambda]\nprovisioned_concurrency = 20", "raise the latter", id="provisioned"),
        pytest.param("[aws]\nsubnets = ['subnet-1']", "go together", id="half-a-vpc"),
        pytest.param("[aws.tags]\n'kennel:x' = 'y'", "which are taken", id="own-tag"),
        pytest.param("[aws.tags]\nteam = 'a;b'", "not a tag's value", id="tag-value"),
        pytest.param("[endpoint.scaling]\nmax_instances = 2\ntarget = inf", "not a finite", id="inf"),
        pytest.param(
            "[endpoint.scaling]\nmin_instances = 3\nmax_instances = 2\ntarget = 1", "lower one", id="min-max"
        ),
        pytest.param(
            "[endpoint]\ninitial_instance_count = 9\n[endpoint.scaling]\nmax_instances = 2\ntarget = 1",
            "initial_instance_count=9 is outside",
            id="initial-count",
        ),
        pytest.param("[endpoint.lambda]\nmemory_mb = 64", "memory_mb=64 in [endpoint.lambda]", id="lambda"),
        pytest.param("[data]\nurl = 'file:///etc/passwd'", "not an http or https address", id="file-url"),
        pytest.param("[data]\narchive_root = '../up'", "a folder inside the archive", id="archive-root-up"),
        pytest.param(
            "[data]\narchive_root = '/etc'", "a folder inside the archive", id="archive-root-absolute"
        ),
        pytest.param("[data]\nsha256 = 'abc'", "64 lower-case hexadecimal digits", id="sha256"),
        pytest.param("[data]\nkaggle = '--help'", "owner/dataset", id="kaggle"),
        pytest.param("[data]\nkaggle = '-p/x'", "owner/dataset", id="kaggle-option"),
        pytest.param("[data]\nkaggle = 'a/b'\nurl = 'http://a/b'", "keep one", id="url-and-kaggle"),
        pytest.param("[debugger]\nrules = ['Overfit', 'Overfit']", "lists 'Overfit' twice", id="rule-twice"),
        pytest.param("x = [", "not valid TOML", id="toml"),
    ],
)
def test_unusable_value_is_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in fault(tmp_path, text)


@pytest.mark.parametrize(
    "name",
    ["", "A", "-a", "a-", "a_b", "a" * 21, "a b", "ä"],
)
def test_name_that_no_job_may_have_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'name = "{name}"', encoding="utf-8")

    with pytest.raises(RecipeError, match=r"name=.* is not 1 to 20 lower-case letters"):
        read_recipe(path)


def test_missing_file_is_refused_naming_its_neighbour() -> None:
    with pytest.raises(RecipeError, match=re.escape("Did you mean 'recipes/shapes.toml'?")):
        read_recipe(Path("recipes/shape.toml"))


def test_overrides_change_hyperparameters_only() -> None:
    recipe = read_recipe(Path("recipes/shapes.toml"))

    changed = recipe.with_overrides(["epochs=1", "lr=0.1", "pretrained=true"])

    assert changed.hyperparameters.epochs == 1
    assert changed.hyperparameters.learning_rate == 0.1
    assert changed.hyperparameters.pretrained is True
    assert changed.hyperparameters.image_size == recipe.hyperparameters.image_size
    assert changed.tuning == recipe.tuning
    assert recipe.with_overrides([]) == recipe


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param(["epochs"], "'epochs' is not of the form name=value", id="no-equals"),
        pytest.param(["=3"], "'=3' is not of the form name=value", id="no-name"),
        pytest.param(["epoch=3"], "Did you mean 'epochs'?", id="unknown"),
        pytest.param(["epochs=many"], "epochs='many' is not a whole number", id="type"),
        pytest.param(["lr=1", "learning_rate=2"], "sets learning_rate a second time", id="twice"),
    ],
)
def test_unusable_override_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        Recipe(name="x").with_overrides(overrides)


TOML_VALUES = st.sampled_from(
    ["1", "-1", "0.5", "nan", "true", "''", "'x'", "[]", "[1]", "{}", "{a = 1}", "1979-05-27"]
)
KEYS = st.sampled_from(
    "name data data.url hyperparameters hyperparameters.epochs tuning tuning.ranges tuning.ranges.lr "
    "training.spot debugger.rules debugger.parameters endpoint.lambda endpoint.scaling.target "
    "transform.max_payload_mb ec2 unknown".split()
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.dictionaries(KEYS, TOML_VALUES, max_size=3))
def test_any_toml_is_read_or_refused_with_the_file_named(lines: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in lines.items()))

    try:
        read_recipe(path)
    except RecipeError as error:
        assert str(error).startswith(f"{path}: ")
