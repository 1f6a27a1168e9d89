"""Folders of images to arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact.cores import available_cores
from artifact.preprocess import Preprocess, read_pixels
from local.platform import REPOSITORY
from training import data
from training.data import decode_images, read_image_folder
from training.job import JobError

PREPROCESS = Preprocess(resize=36, crop=32)


def _folder(root: Path, **files: list[str]) -> Path:
    for label, names in files.items():
        (root / label).mkdir(parents=True)
        for name in names:
            (root / label / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (len(name) * 7 % 256, 20, 30)).save(root / label / name)
    return root


def test_labels_are_the_sorted_folder_names(tmp_path: Path) -> None:
    folder = read_image_folder(_folder(tmp_path, b=["1.png"], a=["2.png", "1.png"]))

    assert folder.labels == ("a", "b")
    assert folder.paths == ("a/1.png", "a/2.png", "b/1.png")
    assert folder.targets.tolist() == [0, 0, 1]


def test_nested_and_upper_case_files_are_found_and_others_left_out(tmp_path: Path) -> None:
    root = _folder(tmp_path, a=["x/1.JPG", ".hidden.png"], b=["1.png"])
    (root / "a" / "notes.txt").write_text("not an image")

    assert read_image_folder(root).paths == ("a/x/1.JPG", "b/1.png")


def test_class_of_the_training_split_may_be_absent_from_another(tmp_path: Path) -> None:
    folder = read_image_folder(_folder(tmp_path, b=["1.png"]), ("a", "b"))

    assert folder.targets.tolist() == [1]


def test_class_the_training_split_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="does not have: zebra"):
        read_image_folder(_folder(tmp_path, a=["1.png"], zebra=["1.png"]), ("a", "b"))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        pytest.param({}, "one folder of images per class", id="empty"),
        pytest.param({"a": ["1.png"]}, "at least two labels", id="one class"),
        pytest.param({"a": [], "b": []}, "holds no images", id="no images"),
    ],
)
def test_folder_that_cannot_be_learnt_from_is_refused(
    tmp_path: Path, files: dict[str, list[str]], sentence: str
) -> None:
    with pytest.raises(JobError, match=sentence):
        read_image_folder(_folder(tmp_path, **files))


def test_decoded_pixels_are_those_serving_computes(shapes: Path) -> None:
    folder = read_image_folder(shapes / "test")

    images = decode_images(folder, PREPROCESS, max_unreadable=0.0)

    expected = np.stack([read_pixels(folder.root / path, PREPROCESS) for path in folder.paths])
    assert np.array_equal(images.pixels, expected)
    assert images.folder == folder


READS = """
import sys
from pathlib import Path
from artifact.preprocess import Preprocess
from training.data import decode_images, read_image_folder

opened = []
root = Path(sys.argv[1])
def note(event, arguments):
    if event == "open" and str(arguments[0]).startswith(str(root)):
        opened.append((Path(arguments[0]).relative_to(root).as_posix(), arguments[1]))
sys.addaudithook(note)
folder = read_image_folder(root)
decode_images(folder, Preprocess(resize=36, crop=32), max_unreadable=0.0)
places = [folder.paths.index(path) for path, _ in opened]
print(len(folder.paths), len(opened), max(abs(place - turn) for turn, place in enumerate(places)))
print({mode for _, mode in opened})
"""


def test_channel_of_fast_file_mode_is_read_once_from_front_to_end(tmp_path: Path) -> None:
    """FastFile fetches from S3 what is opened, when it is: no file twice, only to read, and in S3's order."""
    names = [f"{number:03d}.png" for number in range(60)]
    root = _folder(tmp_path / "train", a=names, b=names)
    for path in (*root.rglob("*"), root):
        path.chmod(0o555 if path.is_dir() else 0o444)

    done = subprocess.run(
        [sys.executable, "-c", READS, str(root)], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )

    counts, modes = done.stdout.splitlines()
    num_files, num_opened, furthest = map(int, counts.split())
    assert num_files == num_opened == 120
    assert furthest <= 2 * available_cores()  # as far as its threads can overtake each other
    assert modes == "{'r'}"  # and never to write


def test_fingerprint_follows_content_and_path(tmp_path: Path) -> None:
    def fingerprint() -> str:
        return decode_images(read_image_folder(tmp_path), PREPROCESS, max_unreadable=0.0).fingerprint

    _folder(tmp_path, a=["1.png"], b=["1.png"])
    before = fingerprint()
    same = fingerprint()
    (tmp_path / "a/1.png").rename(tmp_path / "a/2.png")
    renamed = fingerprint()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a/2.png")

    assert before == same
    assert len({before, renamed, fingerprint()}) == 3


def test_unreadable_file_is_left_out_and_listed(tmp_path: Path) -> None:
    root = _folder(tmp_path, a=["1.png", "2.png"], b=["1.png"])
    (root / "a/1.png").write_bytes(b"not a picture")

    images = decode_images(read_image_folder(root), PREPROCESS, max_unreadable=0.5)

    assert images.folder.paths == ("a/2.png", "b/1.png")
    assert images.folder.targets.tolist() == [0, 1]
    assert images.pixels.shape == (2, 32, 32, 3)
    assert [path for path, _ in images.unreadable] == ["a/1.png"]


def test_too_many_unreadable_files_fail_the_job_and_one_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path, a=["1.png", "2.png"], b=["1.png"])
    (root / "a/1.png").write_bytes(b"not a picture")

    with pytest.raises(JobError, match=r"1 of 3 images .* cannot be read \(33\.3%.*a/1\.png"):
        decode_images(read_image_folder(root), PREPROCESS, max_unreadable=0.1)


def test_set_over_the_memory_budget_is_mapped_from_disk(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = read_image_folder(shapes / "test")
    in_memory = decode_images(folder, PREPROCESS, max_unreadable=0.0)
    monkeypatch.setattr(data, "MEMORY_SHARE", 0.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    mapped = decode_images(folder, PREPROCESS, max_unreadable=0.0)

    assert isinstance(mapped.pixels, np.memmap)
    assert np.array_equal(mapped.pixels, in_memory.pixels)
    assert list(tmp_path.iterdir()) == []
