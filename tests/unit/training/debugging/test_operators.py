"""What torch's operators cost, of a real training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.watched_training import debugging_folder, small_network, train_watched


def test_operators_are_totalled_by_what_they_are_for(tmp_path: Path) -> None:
    series, _ = train_watched(tmp_path, small_network(), {"profile_steps": "2"})

    content = json.loads((debugging_folder(tmp_path) / "operators.json").read_text())
    groups, operators = content["groups"], content["operators"]
    assert content["steps"] == [4, 5]
    assert ("profiled_steps", [4, 5]) in [(fact.name, fact.value) for fact in series.facts]
    assert {
        "convolution", "batch norm", "linear", "pooling", "activation", "optimizer", "data", "augmentation",
    } <= set(groups)  # fmt: skip
    assert list(groups.values()) == sorted(groups.values(), reverse=True)
    assert [o["seconds"] for o in operators] == sorted((o["seconds"] for o in operators), reverse=True)
    convolutions = [o for o in operators if o["group"] == "convolution"]
    assert convolutions[0]["calls"] == 2  # one layer, two steps: the costliest is its forward or backward
    assert sum(o["seconds"] for o in operators) == pytest.approx(sum(groups.values()), rel=0.2)


def test_training_that_ends_before_the_warm_up_does_still_closes(tmp_path: Path) -> None:
    train_watched(tmp_path, small_network(), {"epochs": "1", "profile_steps": "100"})

    assert not (debugging_folder(tmp_path) / "operators.json").exists()
