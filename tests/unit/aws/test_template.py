"""The CloudFormation template: what cfn-lint says of it, and that its roles are bootstrap's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from aws.policies import serving_policy, training_policy
from aws.template import build_template
from tests.unit.aws.sites import ACCOUNT, REGION, make_site


def test_cfn_lint_has_nothing_to_say(tmp_path: Path) -> None:
    path = tmp_path / "kennel.json"
    path.write_text(json.dumps(build_template()))

    done = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), str(path), "--regions", REGION],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_roles_are_those_of_bootstrap() -> None:
    text = json.dumps(build_template()["Resources"])
    for name, value in (("Partition", "aws"), ("AccountId", ACCOUNT), ("Region", REGION)):
        text = text.replace(f"${{AWS::{name}}}", value)
    resources = json.loads(text, object_hook=lambda found: found.get("Fn::Sub", found))

    for name, expected in (
        ("Training", training_policy(make_site())),
        ("Serving", serving_policy(make_site())),
    ):
        (inline,) = resources[f"{name}Role"]["Properties"]["Policies"]
        assert inline["PolicyDocument"] == expected
        assert resources[f"{name}Role"]["Properties"]["RoleName"] == make_site().role_name(name.lower())
    assert resources["Bucket"]["Properties"]["BucketName"] == make_site().bucket_name
