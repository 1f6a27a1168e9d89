"""container/compose.yaml keeps what the image and the server promise."""

from __future__ import annotations

import re
from typing import Any

import yaml

from local.platform import REPOSITORY
from serving import gunicorn_conf
from serving.settings import SETTINGS

COMPOSE = REPOSITORY / "container/compose.yaml"
SERVER: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]["server"]


def test_container_can_gain_nothing() -> None:
    assert SERVER["user"] == "10001"
    assert SERVER["read_only"] is True
    assert SERVER["cap_drop"] == ["ALL"]
    assert SERVER["security_opt"] == ["no-new-privileges:true"]


def test_port_is_open_to_this_machine_only() -> None:
    assert SERVER["ports"] == [f"127.0.0.1:${{PORT:-8080}}:{SETTINGS['port'].default}"]


def test_model_is_mounted_read_only_where_the_server_looks() -> None:
    (mount,) = SERVER["volumes"]

    assert mount["target"] == SETTINGS["model_dir"].default
    assert mount["read_only"] is True
    assert mount["bind"] == {"create_host_path": False}


def test_every_setting_is_passed_on() -> None:
    settings = {
        name for setting in SETTINGS.values() for name in setting.variables if name.startswith("KENNEL_")
    }

    assert set(SERVER["environment"]) == settings - {"KENNEL_MODEL_DIR"}
    assert not any(SERVER["environment"].values())


def test_grace_covers_the_draining() -> None:
    grace = re.fullmatch(r"(\d+)s", SERVER["stop_grace_period"])

    assert grace and int(grace[1]) > gunicorn_conf.graceful_timeout


def test_no_image_is_sought_where_anybody_may_publish_it() -> None:
    assert SERVER["image"] == "${KENNEL_IMAGE:-kennel/serving-cpu:local}"
    assert SERVER["pull_policy"] == "never"


def test_every_variable_is_explained() -> None:
    text = COMPOSE.read_text()
    head = text.split("\nname:")[0]

    assert {name for name in re.findall(r"\$\{(\w+)", text) if name not in head} == set()
