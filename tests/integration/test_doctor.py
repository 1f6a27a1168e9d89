"""`python -m training.doctor` as a process: verdicts, exit codes, files, and an input it never touches."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, TrainedShapes
from training.doctor.__main__ import main


def run_doctor(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training.doctor", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"KENNEL_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def checksums(folder: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def spoilt(shapes: Path, tmp_path: Path) -> Path:
    """The drawn set with a leak, a contradiction and a truncated file."""
    data = tmp_path / "spoilt"
    shutil.copytree(shapes, data)
    circle, *_ = sorted((data / "test/circle").iterdir())
    square, *_ = sorted((data / "train/square").iterdir())
    star, *_ = sorted((data / "train/star").iterdir())
    shutil.copy(circle, data / "train/circle/leak.jpg")
    shutil.copy(square, data / "train/triangle/wrong.jpg")
    (data / "train/star/cut.jpg").write_bytes(star.read_bytes()[:600])
    return data


def test_spoilt_set_is_stopped_fixed_and_then_passes(spoilt: Path, tmp_path: Path) -> None:
    before = checksums(spoilt)

    done = run_doctor(
        *(spoilt, "--output", tmp_path / "out", "--fix", tmp_path / "clean"),
        *("--manifest", tmp_path / "keep.txt"),
        cache=tmp_path,
    )

    document = json.loads((tmp_path / "out/doctor.json").read_text())
    assert done.returncode == 1 and done.stdout.startswith("stop: ")
    assert {"leak-exact", "contradiction-exact", "truncated"} <= {f["code"] for f in document["findings"]}
    assert "Do not train on this yet." in (tmp_path / "out/doctor.html").read_text()
    assert checksums(spoilt) == before
    assert (tmp_path / "keep.txt").read_text() == (tmp_path / "clean/keep.txt").read_text()
    assert "2  same bytes under another label" in done.stdout

    again = run_doctor(tmp_path / "clean", "--output", tmp_path / "again", cache=tmp_path)

    assert again.returncode == 0, again.stdout + again.stderr


def test_artifact_is_asked_about_the_held_out_splits_and_no_cache_is_written(
    trained_shapes: TrainedShapes, tmp_path: Path
) -> None:
    done = run_doctor(
        *(trained_shapes.data, "--output", tmp_path, "--artifact", trained_shapes.artifact, "--no-cache"),
        cache=tmp_path,
    )

    document = json.loads((tmp_path / "doctor.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert document["settings"]["mislabelled looked for in"] == "test, valid"
    assert not (tmp_path / "doctor.sqlite3").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["data/nowhere"], "is not a folder", id="no data"),
        pytest.param(["data"], "holds no images", id="empty"),
        pytest.param(["data", "--artifact", "data/a.tar.gz"], "does not exist", id="no artifact"),
        pytest.param(["data", "--fix", "data/inside"], "lies inside", id="fix inside"),
        pytest.param(["data", "--output", "data/inside"], "lies inside", id="output inside"),
    ],
)
def test_impossible_request_is_refused_in_one_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)

    code = main([*arguments, "--no-cache"])

    assert code == 2 and capsys.readouterr().out == ""
    (record,) = caplog.records
    assert words in record.getMessage() and record.exc_info is None
    assert list(tmp_path.rglob("*")) == [tmp_path / "data"]


@pytest.mark.real_images
def test_woof_passes_and_its_page_is_whole(real_images: Path, tmp_path: Path) -> None:
    done = run_doctor(real_images / "woof", "--output", tmp_path, cache=tmp_path)

    assert done.returncode == 0 and done.stdout.startswith("ok: "), done.stdout + done.stderr
    assert (tmp_path / "doctor.html").read_text().rstrip().endswith("</html>")
