"""Bytes to pixels: equal to torchvision, upright, and never an unexpected exception."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, _imaging
from torchvision import transforms

from artifact import preprocess
from artifact.preprocess import (
    MAX_ASPECT,
    ImageError,
    ImageTooLargeError,
    Preprocess,
    UnreadableImageError,
    decode_image,
    decode_pixels,
    read_pixels,
    resize_and_crop,
)

PREPROCESS = Preprocess(resize=256, crop=224)
ORIENTATION_TAG = 0x0112


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _picture(width: int = 90, height: int = 60) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 2, y * 4, (x + y) % 256], axis=2).astype(np.uint8))


def _torchvision(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    reference = transforms.Compose(
        [transforms.Resize(preprocess.resize), transforms.CenterCrop(preprocess.crop)]
    )
    return np.asarray(reference(image.convert("RGB")))


@pytest.mark.real_images
@pytest.mark.parametrize("split", ["woof/test", "hurricane/test"])
def test_pixels_equal_torchvisions_eval_transform(real_images: Path, split: str) -> None:
    paths = sorted((real_images / split).rglob("*.*"))

    differing = 0
    for path in paths:
        with Image.open(path) as image:
            differing += not np.array_equal(read_pixels(path, PREPROCESS), _torchvision(image, PREPROCESS))

    assert len(paths) >= 300
    assert differing == 0


@pytest.mark.parametrize(
    ("width", "height"),
    [(256, 256), (257, 256), (255, 300), (1000, 301), (31, 17), (224, 500), (1, 1), (3, 200)],
)
def test_any_size_equals_torchvisions_eval_transform(width: int, height: int) -> None:
    image = _picture(width, height)

    pixels = np.asarray(resize_and_crop(image, PREPROCESS)).astype(int)

    allowed = 0 if max(width, height) <= MAX_ASPECT * min(width, height) else 1
    assert np.abs(pixels - _torchvision(image, PREPROCESS)).max() <= allowed


def test_extreme_aspect_costs_no_more_than_a_square() -> None:
    pixels = decode_pixels(_encode(_picture(1, 10_000), "PNG"), PREPROCESS)

    assert pixels.shape == (224, 224, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = _picture()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> the Transpose that stores it so
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation

    decoded = decode_image(_encode(stored, "PNG", exif=exif))

    assert np.array_equal(np.asarray(decoded), np.asarray(upright))


@pytest.mark.parametrize(
    ("convert", "expected"),
    [
        pytest.param(lambda: Image.new("L", (8, 8), 100), (100, 100, 100), id="grayscale"),
        pytest.param(lambda: Image.new("1", (8, 8), 1), (255, 255, 255), id="bilevel"),
        pytest.param(lambda: Image.new("RGBA", (8, 8), (0, 0, 0, 0)), (255, 255, 255), id="transparent"),
        pytest.param(lambda: Image.new("RGBA", (8, 8), (200, 0, 0, 255)), (200, 0, 0), id="opaque"),
        pytest.param(lambda: Image.new("LA", (8, 8), (0, 0)), (255, 255, 255), id="grayscale transparent"),
        pytest.param(lambda: Image.new("P", (8, 8), 0), (0, 0, 0), id="palette"),
        pytest.param(
            lambda: Image.fromarray(np.full((8, 8), 257 * 40, dtype=np.uint16)), (40, 40, 40), id="16 bit"
        ),
    ],
)
def test_every_mode_becomes_rgb(convert: Callable[[], Image.Image], expected: tuple[int, int, int]) -> None:
    decoded = decode_image(_encode(convert(), "PNG"))

    assert decoded.mode == "RGB"
    assert decoded.getpixel((4, 4)) == expected


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        pytest.param([0, 257, 25700, 65535], np.uint16, [0, 1, 100, 255], id="16 bit"),
        pytest.param([0, 100, 200, 255], np.uint16, [0, 0, 1, 1], id="dark 16 bit"),
        pytest.param([0, 100, 200, 255], np.int32, [0, 100, 200, 255], id="32 bit, values of 8"),
        pytest.param([0, 257, 25700, 65535], np.int32, [0, 1, 100, 255], id="32 bit, values of 16"),
        pytest.param([0.0, 0.1, 0.5, 1.0], np.float32, [0, 26, 128, 255], id="float to 1"),
        pytest.param([0.0, 1.5, 200.0, 255.0], np.float32, [0, 2, 200, 255], id="float to 255"),
        pytest.param([-9.0, np.nan, 100.0, 200.0], np.float32, [0, 0, 100, 200], id="no light"),
        pytest.param([300.0, 257.0, 0.0, 65535.0], np.float32, [1, 1, 0, 255], id="float to 65535"),
    ],
)
def test_deep_grey_keeps_its_values(values: list[float], kind: type, expected: list[int]) -> None:
    decoded = decode_image(_encode(Image.fromarray(np.array([values], dtype=kind)), "TIFF"))

    assert np.asarray(decoded)[0].tolist() == [[value] * 3 for value in expected]


def test_picture_converted_a_few_rows_at_a_time_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    clear = Image.fromarray(random.integers(0, 256, (7, 5, 4), dtype=np.uint8))
    deep = Image.fromarray(random.integers(0, 65536, (7, 5), dtype=np.uint16))
    whole = [np.asarray(decode_image(_encode(image, "PNG"))) for image in (clear, deep)]

    for pixels in (1, 5, 10, 34):
        monkeypatch.setattr(preprocess, "BAND_PIXELS", pixels)

        in_bands = [np.asarray(decode_image(_encode(image, "PNG"))) for image in (clear, deep)]

        for one, other in zip(whole, in_bands, strict=True):
            np.testing.assert_array_equal(one, other)
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    np.testing.assert_array_equal(whole[0], np.asarray(white))


def test_cmyk_jpeg_becomes_rgb() -> None:
    decoded = decode_image(_encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))

    red, green, blue = decoded.getpixel((4, 4))  # type: ignore[misc]
    assert red > 200 and green < 60 and blue < 60


def test_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    body = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:])

    assert decode_image(body).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("width", "shorter_side", "expected"),
    [
        pytest.param(4000, 512, (1000, 750), id="quarter scale"),
        pytest.param(1023, 512, (1023, 767), id="not below the wanted side"),
        pytest.param(4000, None, (4000, 3000), id="full scale when not asked"),
    ],
)
def test_large_jpeg_is_decoded_at_reduced_scale(
    width: int, shorter_side: int | None, expected: tuple[int, int]
) -> None:
    body = _encode(Image.new("RGB", (width, width * 3 // 4), "green"), "JPEG")

    assert decode_image(body, shorter_side=shorter_side).size == expected


def test_reduced_decode_keeps_the_picture() -> None:
    big = _picture().resize((2400, 1600), Image.Resampling.BICUBIC)
    body = _encode(big, "JPEG", quality=95)

    difference = np.abs(decode_pixels(body, PREPROCESS).astype(int) - _torchvision(big, PREPROCESS))

    assert difference.mean() < 1.0


def test_image_over_the_limit_is_refused_before_it_is_decoded() -> None:
    body = _encode(Image.new("L", (1000, 1000)), "PNG")

    with pytest.raises(ImageTooLargeError, match="1000 x 1000 = 1000000 pixels, over the limit of 999999"):
        decode_image(body, max_pixels=999_999)
    assert decode_image(body, max_pixels=1_000_000).size == (1000, 1000)


def test_a_pictures_pixels_are_held_once() -> None:
    body = _encode(Image.new("RGB", (400, 300)), "PNG")
    _imaging.reset_stats()

    decode_image(body)

    assert _imaging.get_stats()["new_count"] == 1, "the largest one takes 358 MB"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb_is_refused() -> None:
    bomb = b"P5 20000 20000 255 "  # 400 million pixels in 19 bytes

    with pytest.raises(ImageTooLargeError):
        decode_image(bomb)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello", id="text"),
        pytest.param(_encode(_picture(), "JPEG")[:-400], id="truncated jpeg"),
        pytest.param(_encode(_picture(300, 300), "PNG")[:300], id="truncated png"),
        pytest.param(_encode(_picture(), "JPEG")[:12], id="header alone"),
    ],
)
def test_unreadable_bytes_are_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(UnreadableImageError) as error:
        decode_image(body)

    assert "\n" not in str(error.value) and "BytesIO" not in str(error.value)


@pytest.mark.real_images
@pytest.mark.filterwarnings("ignore")  # Pillow warns of much that is in there
def test_odd_files_give_pixels_or_an_image_error(real_images: Path) -> None:
    paths = [path for path in sorted((real_images / "odd").rglob("*")) if path.is_file()]

    outcomes = Counter(_outcome(path) for path in paths if path.name != "INDEX.tsv")

    assert sum(outcomes.values()) == 541
    assert outcomes["pixels"] == 259, outcomes  # docs/odd-images.md names each


def _outcome(path: Path) -> str:
    try:
        pixels = read_pixels(path, PREPROCESS)
    except ImageError as error:
        return type(error).__name__
    assert pixels.shape == (224, 224, 3) and pixels.dtype == np.uint8
    return "pixels"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({"resize": 10, "crop": 11}, "crop=11 must be between 1 and resize=10", id="crop"),
        pytest.param({"resize": 10, "crop": 8, "interpolation": "magic"}, "'magic'", id="interpolation"),
        pytest.param({"resize": 10, "crop": 8, "reducing_gap": 0.5}, "reducing_gap=0.5", id="gap"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Preprocess(**settings)  # type: ignore[arg-type]


def test_settings_survive_json_and_unknown_keys_are_ignored() -> None:
    before = Preprocess(resize=40, crop=32, mean=(0.5, 0.4, 0.3))

    assert Preprocess.from_json(before.to_json() | {"added_later": 1}) == before
