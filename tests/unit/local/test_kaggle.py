"""Data sets that only Kaggle has: its client where there is one, and what to do by hand where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.archives import DownloadError
from local.download import fetch_dataset
from tests.archives import image_zip
from training.recipe import Data, Recipe

HURRICANE = Recipe(name="hurricane", data=Data(kaggle="someone/satellite-tiles"))


def test_kaggle_set_without_the_client_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(DownloadError) as caught:
        fetch_dataset(HURRICANE, tmp_path)

    message = str(caught.value)
    assert "someone/satellite-tiles" in message
    assert f"save it as {tmp_path / 'satellite-tiles.zip'} and run this again" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_kaggle_zip_that_the_user_put_there_is_unpacked_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "satellite-tiles.zip").write_bytes(image_zip(""))

    root = fetch_dataset(HURRICANE, tmp_path)

    assert (root / "train").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["satellite-tiles", "satellite-tiles.zip"]


FAKE_KAGGLE = """#!/bin/sh
echo "$@" > "$KAGGLE_LOG"
echo talk
/bin/mkdir -p "$6/train/damage" "$6/valid/damage" "$6/test/damage"
exit $KAGGLE_STATUS
"""


@pytest.fixture
def fake_kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kaggle").write_text(FAKE_KAGGLE)
    (programs / "kaggle").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("KAGGLE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("KAGGLE_STATUS", "0")
    return tmp_path / "log"


def test_kaggle_client_on_the_path_is_used(
    fake_kaggle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = fetch_dataset(HURRICANE, tmp_path / "data")

    assert sorted(path.name for path in root.iterdir()) == ["test", "train", "valid"]
    folder = tmp_path / "data" / ".satellite-tiles.unpacking"
    assert fake_kaggle.read_text() == f"datasets download -d someone/satellite-tiles -p {folder} --unzip\n"
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "talk\n")


def test_failing_kaggle_client_is_named_with_its_status(
    fake_kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_STATUS", "3")

    with pytest.raises(DownloadError, match=r"someone/satellite-tiles` ended with status 3; .*signed in"):
        fetch_dataset(HURRICANE, tmp_path / "data")

    assert list((tmp_path / "data").iterdir()) == []
