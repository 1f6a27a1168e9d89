"""The user data of an EC2 machine, run for real with stand-ins for aws, docker and shutdown on PATH."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from aws.planning import Asked, plan
from tests.unit.aws.sites import make_recipe, make_site

AWS = """#!/usr/bin/env bash
echo "aws $*" >>"$CALLS"
case "$1 $2" in
"ecr get-login-password") echo token-of-the-test ;;
"s3 sync")
  for last; do :; done
  previous=${*: -2:1}
  [[ $previous = s3://*data* ]] && mkdir -p "$last" && echo picture >"$last/a.jpg" || true ;;
"s3 cp")
  source=${*: -2:1}
  cp "$source" "$UPLOADED/$(basename "$source")" ;;
esac
"""
DOCKER = """#!/usr/bin/env bash
echo "docker $*" >>"$CALLS"
case $1 in
login) cat >/dev/null ;;
run)
  ls "$PREFIX/input/data" >"$PREFIX/seen"
  [[ -z ${FAIL:-} ]] || { echo "bad data" >"$PREFIX/output/failure"; exit 1; }
  echo weights >"$PREFIX/model/weights" ;;
esac
"""


def run_user_data(folder: Path, **environment: str) -> tuple[list[str], Path, int]:
    """Calls in order, the folder of what was uploaded, and the exit code."""
    recipe = make_recipe(folder, "[ec2]\ninstance_type = 'g5.xlarge'\nmax_hours = 1")
    (*_, machine) = plan("ec2", recipe, make_site(), Asked())
    commands, uploaded, calls = folder / "bin", folder / "uploaded", folder / "calls"
    for made in (commands, uploaded):
        made.mkdir()
    logged = '#!/usr/bin/env bash\necho "{0} $*" >>"$CALLS"\n'
    scripts = {"aws": AWS, "docker": DOCKER, "shutdown": logged.format("shutdown")}
    scripts["systemctl"] = logged.format("systemctl")
    for name, text in scripts.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    script = folder / "user-data"
    script.write_bytes(base64.b64decode(machine.request["UserData"]))
    variables = {"PREFIX": str(folder / "ml"), "CALLS": str(calls), "UPLOADED": str(uploaded), **environment}
    done = subprocess.run(
        ["bash", str(script)],
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", **variables},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return calls.read_text().splitlines(), uploaded, done.returncode


def test_machine_trains_uploads_and_ends_itself(tmp_path: Path) -> None:
    calls, uploaded, code = run_user_data(tmp_path)

    assert code == 0
    assert calls[0] == "shutdown -h +75" and calls[-1] == "shutdown -h now"
    (ran,) = [call for call in calls if call.startswith("docker run")]
    assert ran.endswith(f"{make_site().image('training')} train") and "--gpus=all" in ran
    assert (tmp_path / "ml/seen").read_text().split() == ["test", "train", "valid"]
    assert json.loads((tmp_path / "ml/input/config/hyperparameters.json").read_text())["epochs"] == "3"
    with tarfile.open(uploaded / "model.tar.gz") as archive:
        assert "./weights" in archive.getnames()
    assert "exit_code=0" in (uploaded / "training.log").read_text()
    assert "token-of-the-test" not in (uploaded / "training.log").read_text()


def test_failed_training_still_uploads_its_reason_and_ends_the_machine(tmp_path: Path) -> None:
    calls, uploaded, code = run_user_data(tmp_path, FAIL="1")

    assert code == 1
    assert (uploaded / "failure").read_text() == "bad data\n"
    assert not (uploaded / "model.tar.gz").exists()
    assert calls[-1] == "shutdown -h now"


def test_user_data_fits_and_holds_no_credentials(tmp_path: Path) -> None:
    (*_, machine) = plan(
        "ec2", make_recipe(tmp_path, "[ec2]\ninstance_type = 'm5.xlarge'"), make_site(), Asked()
    )

    script = base64.b64decode(machine.request["UserData"])

    assert len(script) <= 16 * 1024
    assert b"AWS_SECRET" not in script
    assert machine.request["InstanceInitiatedShutdownBehavior"] == "terminate"


@pytest.mark.parametrize("key", ["HttpTokens", "HttpPutResponseHopLimit"])
def test_container_cannot_reach_the_machines_credentials(key: str, tmp_path: Path) -> None:
    (*_, machine) = plan(
        "ec2", make_recipe(tmp_path, "[ec2]\ninstance_type = 'm5.xlarge'"), make_site(), Asked()
    )

    assert machine.request["MetadataOptions"][key] in ("required", 1)
