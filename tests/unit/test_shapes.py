from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from examples.shapes import (
    LABELS,
    ORIENTATION_TAG,
    SAMPLES,
    draw_samples,
    draw_shape,
    draw_shapes,
    main,
    write_jpeg,
)

FEW = {"train": 10, "valid": 2, "test": 2}


def checksums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.jpg")
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("shapes") / "a", seed=3, images_per_class=FEW)


def test_folders_hold_the_asked_number_of_images_per_label(drawn: Path) -> None:
    counts = {(folder.parent.name, folder.name): len(list(folder.iterdir())) for folder in drawn.glob("*/*")}

    assert counts == {(channel, label): count for channel, count in FEW.items() for label in LABELS}


def test_same_seed_draws_identical_bytes(drawn: Path, tmp_path: Path) -> None:
    again = draw_shapes(tmp_path / "b", seed=3, images_per_class=FEW)

    assert checksums(again) == checksums(drawn)


def test_other_seed_draws_other_images(drawn: Path, tmp_path: Path) -> None:
    other = draw_shapes(tmp_path / "b", seed=4, images_per_class=FEW)

    assert not set(checksums(other).values()) & set(checksums(drawn).values())


def test_more_images_leave_the_first_ones_as_they_were(drawn: Path, tmp_path: Path) -> None:
    more = draw_shapes(tmp_path / "b", seed=3, images_per_class={"valid": 3})

    shared = checksums(more).items() & checksums(drawn).items()
    assert len(shared) == FEW["valid"] * len(LABELS)


def test_images_have_every_orientation_several_sizes_and_both_modes(drawn: Path) -> None:
    orientations, sizes, modes = set(), set(), set()
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as image:
            orientations.add(image.getexif()[ORIENTATION_TAG])
            sizes.add(image.size)
            modes.add(image.mode)

    assert orientations == set(range(1, 9))
    assert len(sizes) > 4
    assert modes == {"RGB", "L"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_jpeg_shows_the_drawing_upright(orientation: int, tmp_path: Path) -> None:
    drawing = draw_shape("triangle", (120, 80), np.random.default_rng(0))

    write_jpeg(drawing, tmp_path / "turned.jpg", orientation=orientation)

    with Image.open(tmp_path / "turned.jpg") as stored:
        assert (stored.size == drawing.size) == (orientation < 5)
        shown = np.asarray(ImageOps.exif_transpose(stored), dtype=float)
    assert np.abs(shown - np.asarray(drawing, dtype=float)).mean() < 12  # JPEG loses some of the grain


def test_folder_with_files_in_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.txt").write_text("mine")

    assert main([str(tmp_path)]) == 1

    assert f"{tmp_path} is not empty; remove it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_unknown_channel_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'validation'; use train, valid, test"):
        draw_shapes(tmp_path / "out", images_per_class={"validation": 1})


def test_command_line_draws_a_quarter_and_a_third_beside_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    assert main([str(out), "--images-per-class", "12", "--seed", "1"]) == 0

    assert capsys.readouterr().out == f"{out}\n"
    counts = {folder.name: len(list((folder / "star").iterdir())) for folder in out.iterdir()}
    assert counts == {"train": 12, "valid": 3, "test": 4}


def test_samples_are_small_and_as_listed(tmp_path: Path) -> None:
    paths = draw_samples(tmp_path)

    assert [path.name for path in paths] == [sample.file_name for sample in SAMPLES]
    assert all(path.stat().st_size < 30_000 for path in paths)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.file_name)
def test_committed_sample_opens_upright_in_its_size(sample: object) -> None:
    assert isinstance(sample, type(SAMPLES[0]))

    with Image.open(Path("examples/images") / sample.file_name) as image:
        assert ImageOps.exif_transpose(image).size == sample.size
