"""One look at every file: which files, what they are, how they look."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from training.doctor import files
from training.doctor.cache import Cache
from training.doctor.files import FileFacts, examine, examine_bytes, list_files, perceptual_hash


def draw_picture(seed: int = 0, side: int = 96) -> Image.Image:
    """Smooth coloured noise: like no other seed's."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format_: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def write(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encode(draw_picture(number, 40)))
    return root


@pytest.mark.parametrize(
    ("paths", "listed"),
    [
        pytest.param(
            ["train/b/1.jpg", "train/a/x/2.JPG", "test/a/3.png", "val/a/4.jpg"],
            [
                ("test/a/3.png", "test", "a"),
                ("train/a/x/2.JPG", "train", "a"),
                ("train/b/1.jpg", "train", "b"),
                ("val/a/4.jpg", "valid", "a"),
            ],
            id="splits under any of their names",
        ),
        pytest.param(
            ["b/1.jpg", "a/deep/er/2.jpg"],
            [("a/deep/er/2.jpg", "", "a"), ("b/1.jpg", "", "b")],
            id="no splits",
        ),
        pytest.param(
            [
                "train/a/.hidden.jpg",
                "train/a/notes.txt",
                "train/.cache/1.jpg",
                "train/loose.jpg",
                "other/a/1.jpg",
            ],
            [("train/a/notes.txt", "train", "a")],
            id="any suffix, nothing hidden, loose or outside the splits",
        ),
    ],
)
def test_files_are_listed_with_split_and_label(
    tmp_path: Path, paths: list[str], listed: list[tuple[str, str, str]]
) -> None:
    assert list_files(write(tmp_path, *paths)) == listed


def test_pipe_is_not_listed(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")  # reading it would wait for ever

    assert [path for path, _, _ in list_files(tmp_path)] == ["a/1.jpg"]


def test_facts_of_a_photo_as_stored_and_upright(tmp_path: Path) -> None:
    picture = draw_picture().crop((0, 0, 96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: a viewer turns it by 90 degrees
    write(tmp_path, "train/a/1.jpg")
    (tmp_path / "train/a/2.jpg").write_bytes(encode(picture, exif=exif))

    facts = examine(tmp_path)[1]

    upright = examine_bytes(encode(picture.transpose(Image.Transpose.ROTATE_270)))
    assert (facts.path, facts.split, facts.label) == ("train/a/2.jpg", "train", "a")
    assert (facts.reason, facts.format, facts.mode, facts.frames) == ("", "JPEG", "RGB", 1)
    assert (facts.width, facts.height, facts.orientation) == (96, 64, 6)
    assert facts.size_bytes == (tmp_path / "train/a/2.jpg").stat().st_size
    assert (facts.hash ^ upright.hash).bit_count() <= 2


@pytest.mark.parametrize(
    ("body", "truncated"),
    [
        pytest.param(encode(draw_picture())[:900], True, id="half a JPEG"),
        pytest.param(encode(draw_picture(), "PNG")[:900], True, id="half a PNG"),
        pytest.param(b"", True, id="empty"),
        pytest.param(b"<html>404</html>", False, id="a web page"),
        pytest.param(np.random.default_rng(0).bytes(5000), False, id="garbage"),
    ],
)
def test_broken_file_has_a_reason(body: bytes, truncated: bool) -> None:
    facts = examine_bytes(body)

    assert facts.reason
    assert facts.truncated == truncated
    assert (facts.format, facts.width, facts.height, facts.signature) == ("", 0, 0, b"")


@pytest.mark.parametrize(
    ("image", "format_", "options", "mode", "frames"),
    [
        pytest.param(draw_picture().convert("L"), "PNG", {}, "L", 1, id="gray"),
        pytest.param(draw_picture().convert("CMYK"), "JPEG", {}, "CMYK", 1, id="cmyk"),
        pytest.param(draw_picture().convert("P"), "PNG", {}, "P", 1, id="palette"),
        pytest.param(
            draw_picture(1),
            "WEBP",
            {"save_all": True, "append_images": [draw_picture(2), draw_picture(3)]},
            "RGB",
            3,
            id="animation",
        ),
        pytest.param(
            draw_picture(1),
            "MPO",
            {"save_all": True, "append_images": [draw_picture(2)]},
            "RGB",
            1,
            id="phone photo",
        ),
    ],
)
def test_mode_and_frames_are_those_stored(
    image: Image.Image, format_: str, options: dict[str, object], mode: str, frames: int
) -> None:
    facts = examine_bytes(encode(image, format_, **options))

    assert (facts.reason, facts.format, facts.mode, facts.frames) == ("", format_, mode, frames)


def test_flat_gray_has_its_brightness_and_no_contrast() -> None:
    facts = examine_bytes(encode(Image.new("RGB", (50, 70), (90, 90, 90)), "PNG"))

    assert facts.brightness == pytest.approx(90.0)
    assert (facts.contrast, facts.blur) == (0.0, 0.0)


def test_blurred_picture_has_less_blur_variance() -> None:
    sharp = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8))

    blurred = examine_bytes(encode(sharp.filter(ImageFilter.GaussianBlur(4))))

    assert blurred.blur < examine_bytes(encode(sharp)).blur / 10


def test_mirrored_hash_is_the_mirror_images_hash() -> None:
    picture = draw_picture(5)

    facts, mirror = (
        examine_bytes(encode(picture, "PNG")),
        examine_bytes(encode(ImageOps.mirror(picture), "PNG")),
    )

    assert facts.mirrored_hash == mirror.hash
    assert facts.hash == mirror.mirrored_hash
    assert facts.hash != facts.mirrored_hash


def test_hash_ignores_brightness_and_contrast() -> None:
    small = np.random.default_rng(0).random((32, 32), dtype=np.float32)

    assert perceptual_hash(small * 50 + 100) == perceptual_hash(small)


def test_odd_files_stop_nothing_and_warn_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "a/1.jpg")
    (tmp_path / "a/palette.png").write_bytes(
        encode(draw_picture().convert("P"), "PNG", transparency=b"\x80" * 256)
    )
    tiff = encode(draw_picture(), "TIFF", compression="tiff_lzw")
    (tmp_path / "a/broken.tif").write_bytes(tiff[:20] + b"\xff" * 40 + tiff[60:])
    (tmp_path / "a/unreadable.jpg").symlink_to(tmp_path / "a")  # a folder: not listed
    caplog.set_level(logging.DEBUG)

    with warnings.catch_warnings(record=True) as caught:
        facts = examine(tmp_path)

    assert [file.path for file in facts] == ["a/1.jpg", "a/broken.tif", "a/palette.png"]
    assert [bool(file.reason) for file in facts] == [False, True, False]
    assert (caught, capfd.readouterr().err) == ([], "")
    assert [record for record in caplog.records if record.name.startswith("PIL")] == []


def test_warning_filters_and_log_level_are_restored(tmp_path: Path) -> None:
    before, level = list(warnings.filters), logging.getLogger("PIL").level

    examine(write(tmp_path, "a/1.jpg"))

    assert (list(warnings.filters), logging.getLogger("PIL").level) == (before, level)


def test_file_over_the_limit_is_hashed_but_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a/1.jpg")
    sha256 = examine(tmp_path)[0].sha256
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 100)

    facts = examine(tmp_path)[0]

    assert facts.sha256 == sha256
    assert "not decoded" in facts.reason


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache" / "doctor.sqlite3", settle_seconds=0.0)


def test_cached_facts_equal_fresh_ones(tmp_path: Path, shapes: Path, cache: Cache) -> None:
    fresh = examine(shapes)

    first, second = examine(shapes, cache=cache), examine(shapes, cache=cache)

    assert first == fresh
    assert second == fresh


def test_second_run_opens_no_file(tmp_path: Path, cache: Cache) -> None:
    data = write(tmp_path / "data", "a/1.jpg", "b/2.jpg")
    examine(data, cache=cache)
    cache.close()
    code = (
        "import sys; from pathlib import Path; from training.doctor.cache import Cache\n"
        "from training.doctor.files import examine\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "facts = examine(Path(sys.argv[1]), cache=Cache(Path(sys.argv[2])))\n"
        "print(len(facts), sum(path.endswith('.jpg') for path in opened))"
    )

    command = [sys.executable, "-c", code, str(data), str(cache.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "2 0\n"


def test_changed_file_of_equal_size_and_time_is_read_again(tmp_path: Path, cache: Cache) -> None:
    data = write(tmp_path / "data", "a/1.png")
    path = data / "a/1.png"
    path.write_bytes(encode(Image.new("RGB", (9, 9), (10, 10, 10)), "BMP"))
    before, status = examine(data, cache=cache), path.stat()

    path.write_bytes(encode(Image.new("RGB", (9, 9), (200, 200, 200)), "BMP"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert path.stat().st_size == status.st_size
    after = examine(data, cache=cache)
    assert (before[0].brightness, after[0].brightness) == pytest.approx((10.0, 200.0))


def test_moved_file_keeps_its_facts_under_its_new_place(tmp_path: Path, cache: Cache) -> None:
    data = write(tmp_path / "data", "train/a/1.jpg", "train/b/2.jpg")
    before = examine(data, cache=cache)[0]
    (data / "train/a/1.jpg").rename(data / "train/b/1.jpg")

    after = examine(data, cache=cache)[0]

    assert (after.path, after.label) == ("train/b/1.jpg", "b")
    assert after.signature == before.signature


@pytest.mark.parametrize(
    "stored",
    [pytest.param("{", id="cut off"), pytest.param("[]", id="a list"), pytest.param("{}", id="no fields")],
)
def test_cached_facts_that_cannot_be_parsed_are_measured_again(
    tmp_path: Path, cache: Cache, stored: str
) -> None:
    data = write(tmp_path / "data", "a/1.jpg")
    fresh = examine(data, cache=cache)
    cache.keep_facts(fresh[0].sha256, files.facts_version(), stored)

    assert examine(data, cache=cache) == fresh


@pytest.mark.real_images
def test_no_odd_file_stops_the_run(real_images: Path) -> None:
    facts = {file.path: file for file in examine(real_images / "odd")}

    assert len(facts) == 541
    assert all(_is_whole(file) for file in facts.values())
    assert sum(bool(file.reason) for file in facts.values()) > 200
    assert all(file.reason for file in facts.values() if file.truncated)


def _is_whole(file: FileFacts) -> bool:
    if file.reason:
        return (file.format, file.width, file.signature) == ("", 0, b"")
    return bool(file.format and file.width and file.height and len(file.signature) == 32 * 32)
