"""The border where SageMaker's strings end."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.hyperparameters import (
    NAMES,
    HyperparameterError,
    Hyperparameters,
    parse_hyperparameters,
)


def test_strings_become_typed_values() -> None:
    parsed = parse_hyperparameters({"epochs": "7", "learning_rate": "1e-3", "pretrained": "True"})

    assert (parsed.epochs, parsed.learning_rate, parsed.pretrained) == (7, 0.001, True)


@pytest.mark.parametrize(
    ("sent", "name", "value"),
    [
        pytest.param({"lr": "0.5"}, "learning_rate", 0.5, id="lr"),
        pytest.param({"batch-size": "8"}, "batch_size", 8, id="dash"),
        pytest.param({"arch": "resnet50"}, "architecture", "resnet50", id="arch"),
        pytest.param({"architecture": '"resnet50"'}, "architecture", "resnet50", id="quoted by SDK v2"),
    ],
)
def test_names_users_already_send_are_accepted(sent: dict[str, str], name: str, value: object) -> None:
    assert getattr(parse_hyperparameters(sent), name) == value


def test_keys_the_service_adds_are_ignored() -> None:
    sent = {"_tuning_objective_metric": "validation_loss", "sagemaker_program": "train.py"}

    assert parse_hyperparameters(sent) == Hyperparameters()


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        pytest.param({"learning_rat": "1"}, "Did you mean 'learning_rate'?", id="nearest name"),
        pytest.param({"zzz": "1"}, "Known: architecture", id="no near name"),
        pytest.param({"epochs": "many"}, "epochs='many' is not a whole number", id="not a number"),
        pytest.param({"epochs": "2.5"}, "epochs='2.5' is not a whole number", id="fraction"),
        pytest.param({"epochs": "0"}, "epochs=0 is outside 1 to 10000", id="too low"),
        pytest.param({"learning_rate": "nan"}, "learning_rate=nan is outside", id="nan"),
        pytest.param({"optimizer": "adam"}, "optimizer='adam' is not one of sgd, adamw", id="choice"),
        pytest.param({"pretrained": "maybe"}, "pretrained='maybe' is not true or false", id="bool"),
        pytest.param({"lr": "1", "learning_rate": "2"}, "given twice", id="twice"),
        pytest.param({"resize": "100", "image_size": "128"}, "smaller than image_size", id="resize"),
        pytest.param({"architecture": ""}, "architecture is empty", id="empty"),
    ],
)
def test_bad_value_is_refused_by_name(sent: dict[str, str], sentence: str) -> None:
    with pytest.raises(HyperparameterError) as error:
        parse_hyperparameters(sent)

    assert sentence in str(error.value)


@given(
    st.integers(1, 10_000),
    st.floats(1e-8, 100.0),
    st.booleans(),
    st.sampled_from(["sgd", "adamw"]),
)
def test_strings_read_back_unchanged(epochs: int, rate: float, frozen: bool, optimizer: str) -> None:
    before = Hyperparameters(epochs=epochs, learning_rate=rate, freeze_backbone=frozen, optimizer=optimizer)

    assert parse_hyperparameters(before.to_strings()) == before


def test_every_hyperparameter_fits_sagemaker() -> None:
    strings = Hyperparameters().to_strings()

    assert set(strings) == set(NAMES) == {field.name for field in dataclasses.fields(Hyperparameters)}
    assert len(strings) <= 100
    assert all(len(name) <= 256 and len(value) <= 256 for name, value in strings.items())
