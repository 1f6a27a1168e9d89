"""Confident learning: planted wrong labels come first, and a right set has none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.bundle import BundleError, pack_artifact
from tests.bundles import draw_picture, make_tiny_bundle
from tests.conftest import REPOSITORY
from tests.doctor_facts import make_fact
from training.doctor.files import FileFacts, examine
from training.doctor.mislabelled import (
    FEWEST_SUSPECTS,
    ArtifactMismatchError,
    find_suspects,
    open_artifact,
    predict_files,
    rank_suspects,
)

LABELS = ("cat", "dog", "fox")


def classified(*, wrong: int, errors: int = 0) -> tuple[list[FileFacts], NDArray[np.float64], set[str]]:
    """300 files a good model is sure of; `wrong` filed under another label, `errors` it hesitates over."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 100)
    probabilities = np.full((300, 3), 0.03)
    probabilities[np.arange(300), truth] = 0.94
    places = random.permutation(300)
    filed = truth.copy()
    filed[places[:wrong]] = (truth[places[:wrong]] + 1) % 3
    for place in places[wrong : wrong + errors]:
        probabilities[place] = 0.1
        probabilities[place, (truth[place] + 1) % 3] = 0.5
        probabilities[place, truth[place]] = 0.4
    facts = [make_fact(f"test/{LABELS[target]}/{place:04}.jpg") for place, target in enumerate(filed)]
    return facts, probabilities, {facts[place].path for place in places[:wrong]}


def test_planted_wrong_labels_are_the_likely_suspects() -> None:
    facts, probabilities, planted = classified(wrong=12)

    suspects = rank_suspects(facts, probabilities, LABELS)

    assert {suspect.path for suspect in suspects if suspect.is_likely} == planted
    assert all(suspect.suggested != suspect.label for suspect in suspects)


def test_right_labels_of_a_sure_model_leave_no_suspect() -> None:
    facts, probabilities, _ = classified(wrong=0)

    assert rank_suspects(facts, probabilities, LABELS) == []


def test_hesitant_errors_follow_the_planted_labels() -> None:
    facts, probabilities, planted = classified(wrong=12, errors=60)

    suspects = rank_suspects(facts, probabilities, LABELS)

    assert {suspect.path for suspect in suspects[:12]} == planted
    assert len(suspects) == FEWEST_SUSPECTS and not suspects[-1].is_likely


def test_single_label_has_nothing_to_be_confused_with() -> None:
    facts, probabilities, _ = classified(wrong=0)

    assert rank_suspects(facts[:100], probabilities[:100], LABELS) == []


def test_label_without_a_file_does_not_disturb_the_others() -> None:
    facts, probabilities, planted = classified(wrong=12)
    rows = [row for row, fact in enumerate(facts) if fact.label != "fox"]

    suspects = rank_suspects([facts[row] for row in rows], probabilities[rows], LABELS)

    expected = {path for path in planted if "/fox/" not in path}
    assert expected <= {suspect.path for suspect in suspects}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "model")  # beagle, dingo, samoyed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pictures of each label in every split, all filed alike whatever the model thinks."""
    for split in ("train", "valid", "test"):
        for place, label in enumerate(("beagle", "dingo", "wolf")):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                draw_picture(seed=10 * place + number).save(folder / f"{number}.png")
    return tmp_path / "data"


def test_prediction_is_the_same_from_an_archive_and_from_its_folder(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    pack_artifact(bundle, tmp_path / "model.tar.gz")
    paths = ["test/beagle/0.png", "test/wolf/3.png"]

    with open_artifact(bundle) as folder, open_artifact(tmp_path / "model.tar.gz") as archive:
        first, second = predict_files(folder, data, paths), predict_files(archive, data, paths)

    assert first.shape == (2, 3) and np.allclose(first.sum(axis=1), 1) and np.array_equal(first, second)


def test_suspects_come_from_the_named_splits_and_known_labels_alone(bundle: Path, data: Path) -> None:
    facts = examine(data)

    held_out = find_suspects(facts, data, bundle)
    everything = find_suspects(facts, data, bundle, splits=("train", "valid", "test"))

    assert {suspect.split for suspect in held_out} == {"valid", "test"}
    assert {suspect.split for suspect in everything} == {"train", "valid", "test"}
    assert "wolf" not in {suspect.label for suspect in everything}


def test_artifact_of_another_data_set_is_refused_by_name(bundle: Path, data: Path) -> None:
    facts = [fact for fact in examine(data) if fact.label == "wolf"]

    with pytest.raises(ArtifactMismatchError, match="beagle, dingo, samoyed"):
        find_suspects(facts, data, bundle)


def test_broken_archive_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"nothing")

    with pytest.raises(BundleError, match=r"model\.tar\.gz"):
        find_suspects(examine(data), data, tmp_path / "model.tar.gz")


def test_doctor_without_artifact_imports_neither_torch_nor_cleanlab() -> None:
    code = (
        "import sys, training.doctor.__main__; "
        "print(*sorted({'torch', 'openvino', 'cleanlab', 'pandas', 'sklearn'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == []
