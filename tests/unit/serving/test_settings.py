"""The environment becomes typed settings, or a sentence."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from artifact.cores import available_cores
from artifact.preprocess import MAX_PIXELS
from serving.errors import SettingsError
from serving.settings import (
    SETTINGS,
    Settings,
    read_settings,
    warn_of_misspelt_settings,
)


def test_empty_environment_gives_the_defaults() -> None:
    settings = read_settings({})

    assert settings == Settings(
        port=8080,
        model_dir=Path("/opt/ml/model"),
        engine="openvino",
        precision="auto",
        queue_limit=96,
        stuck_seconds=60,
        graph_cache=Path("/tmp/kennel-cache"),
        workers=available_cores(),
        max_pixels=MAX_PIXELS,
        max_payload_mb=25,
        max_images=1000,
        url_allow=(),
        public_key=None,
        allow_code=False,
        batch_payload_mb=None,
        batch_concurrency=0,
        batch_strategy="SINGLE_RECORD",
        log_level="INFO",
        log_format="auto",
        emf=False,
        page=True,
    )


@pytest.mark.parametrize(
    ("environ", "field", "expected"),
    [
        pytest.param({"SAGEMAKER_BIND_TO_PORT": "9000"}, "port", 9000, id="port"),
        pytest.param({"KENNEL_WORKERS": "3"}, "workers", 3, id="workers"),
        pytest.param({"SAGEMAKER_MODEL_SERVER_WORKERS": "4"}, "workers", 4, id="workers_by_sagemakers_name"),
        pytest.param(
            {"KENNEL_WORKERS": "3", "SAGEMAKER_MODEL_SERVER_WORKERS": "4"}, "workers", 3, id="own_name_wins"
        ),
        pytest.param({"KENNEL_WORKERS": ""}, "workers", available_cores(), id="empty_is_unset"),
        pytest.param({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "50"}, "max_payload_mb", 50, id="batch_payload"),
        pytest.param({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, "max_payload_mb", 100, id="batch_streams"),
        pytest.param({"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "7"}, "batch_concurrency", 7, id="concurrency"),
        pytest.param({"KENNEL_LOG_LEVEL": "debug"}, "log_level", "DEBUG", id="level_in_lower_case"),
    ],
)
def test_variable_set_becomes_the_typed_field(environ: dict[str, str], field: str, expected: object) -> None:
    assert getattr(read_settings(environ), field) == expected


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        pytest.param("SAGEMAKER_BIND_TO_PORT", "0", "from 1 to 65535", id="port_zero"),
        pytest.param("KENNEL_WORKERS", "-1", "auto or a whole number from 1 to 256", id="workers_negative"),
        pytest.param("KENNEL_WORKERS", "2.5", "auto or a whole number", id="workers_fraction"),
        pytest.param("KENNEL_MAX_PIXELS", "lots", f"from 1 to {MAX_PIXELS}", id="pixels_word"),
        pytest.param("KENNEL_MAX_PAYLOAD_MB", "101", "from 0 to 100", id="payload_over_the_limit"),
        pytest.param("KENNEL_LOG_LEVEL", "LOUD", "DEBUG or INFO", id="level_unknown"),
    ],
)
def test_bad_value_is_refused_naming_variable_value_and_choice(
    variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings({variable: value})

    assert f"{variable}={value!r}" in str(raised.value)
    assert allowed in str(raised.value)


def test_settings_table_has_a_meaning_and_a_valid_default_for_every_field() -> None:
    assert list(SETTINGS) == [field.name for field in dataclasses.fields(Settings)]
    for setting in SETTINGS.values():
        setting.parse(setting.default)
        assert setting.meaning.endswith(".")


@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        pytest.param("KENNEL_PRECISON", 1, id="misspelt"),
        pytest.param("KENNEL_SHARED", 0, id="another_tools"),
        pytest.param("KENNEL_PRECISION", 0, id="known"),
        pytest.param("PRECISON", 0, id="without_prefix"),
    ],
)
def test_misspelt_setting_is_warned_of_and_others_are_not(
    name: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_misspelt_settings({name: "fp32"}, logging.getLogger("test"))

    assert len(caplog.messages) == warnings
    assert all("did you mean KENNEL_PRECISION?" in message for message in caplog.messages)
