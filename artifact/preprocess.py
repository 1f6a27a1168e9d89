"""Bytes to pixels: the one function that training's evaluation and serving share, so that they cannot differ.

`decode_image` turns any picture Pillow reads into an upright RGB image; `resize_and_crop` is torchvision's
Resize + CenterCrop. Normalisation is the first layer of the exported graph,
so pixels stay uint8 (H, W, 3) until then: a quarter of the memory, and no constant on both sides.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from artifact.formats import FORMATS, name_foreign_format

MAX_PIXELS = 89_478_485  # Pillow's own warning limit: 256 MiB of RGB
MAX_ASPECT = 8  # longer side / shorter side
BAND_PIXELS = 1 << 20  # transparent and deep pictures become RGB this much at a time

# What Pillow's decoders raise on broken or hostile input (541 odd files and fuzzed ones), beside OSError.
DECODER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    SyntaxError,
    EOFError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class ImageError(ValueError):
    """
    ImageError
    ├── UnreadableImageError    not a picture, or a broken one
    ├── UnsupportedImageError   a kind of file that is not opened: HEIC, PDF
    └── ImageTooLargeError      more pixels than the limit; refused before they are decoded
    """


class UnreadableImageError(ImageError):
    """Not a picture Pillow can read, or a truncated or broken one."""


class UnsupportedImageError(ImageError):
    """A kind of picture or file that is known by its first bytes and not opened."""


class ImageTooLargeError(ImageError):
    """More pixels than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How a picture becomes the network's input; travels with the weights in manifest.json."""

    resize: int  # shorter side in pixels
    crop: int  # side of the centre square in pixels
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # RGB, of values 0-1 (ImageNet's)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    # JPEGs are decoded at 1/2, 1/4 or 1/8 scale while the shorter side stays >= reducing_gap x resize.
    reducing_gap: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise ValueError(f"crop={self.crop} must be between 1 and resize={self.resize}.")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation={self.interpolation!r} is not one of {', '.join(INTERPOLATIONS)}."
            )
        if self.reducing_gap < 1.0:
            raise ValueError(f"reducing_gap={self.reducing_gap} must be at least 1.")

    def to_json(self) -> dict[str, Any]:
        """As stored in the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Preprocess:
        """Keys it does not know are ignored; a missing `resize` or `crop` raises KeyError."""
        known = {field.name: stored[field.name] for field in fields(cls) if field.name in stored}
        for name in ("mean", "std"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**({"resize": stored["resize"], "crop": stored["crop"]} | known))


INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def read_pixels(path: Path, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The file's pixels, (crop, crop, 3) uint8. Raises ImageError naming the fault."""
    return decode_pixels(path.read_bytes(), preprocess)


def decode_pixels(body: bytes, preprocess: Preprocess, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """An encoded picture's pixels, (crop, crop, 3) uint8. Raises ImageError naming the fault."""
    return decode_opened(open_image(body, max_pixels=max_pixels), preprocess)


def decode_opened(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """What `open_image` gave -> (crop, crop, 3) uint8. Raises ImageError naming the fault."""
    shorter_side = math.ceil(preprocess.resize * preprocess.reducing_gap)
    upright = _decode_upright(image, shorter_side)
    return np.array(resize_and_crop(upright, preprocess))  # a copy: Pillow's own memory is read-only


def decode_image(
    body: bytes, *, shorter_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """An upright RGB image; of an animation the first frame; transparency over white.

    A JPEG may come back smaller than stored, its shorter side still at least `shorter_side`.
    """
    return _decode_upright(open_image(body, max_pixels=max_pixels), shorter_side)


def _decode_upright(image: Image.Image, shorter_side: int | None) -> Image.Image:
    try:
        if shorter_side is not None:
            _decode_reduced(image, shorter_side)
        image.load()
        _turn_upright(image)
        return _to_rgb(image)
    except DECODER_ERRORS as error:
        raise UnreadableImageError(f"The {image.format} image is broken ({_first_line(error)}).") from error
    except MemoryError as error:
        raise ImageTooLargeError(
            f"The {image.format} image needs more memory than there is; send a smaller one."
        ) from error


def open_image(body: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture with its header read and no pixel decoded. Raises ImageError naming the fault."""
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageTooLargeError(
            f"The image has more than {max_pixels} pixels; send a smaller one."
        ) from error
    except DECODER_ERRORS as error:
        foreign = name_foreign_format(body)
        if foreign is not None:
            raise UnsupportedImageError(
                f"This is {foreign}, which is not supported; send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
            ) from error
        raise UnreadableImageError(f"Not a readable image ({_first_line(error)}).") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"The image has {width} x {height} = {width * height} pixels, over the limit of {max_pixels}; "
            "send a smaller one."
        )
    return image


def resize_and_crop(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """torchvision's Resize(resize) + CenterCrop(crop), equal to the last bit for ordinary pictures.

    A picture longer than MAX_ASPECT is resampled inside its crop alone (within one step of 255), so that
    1 x 10000 pixels cost no more than a square.
    """
    width, height = image.size
    filter_ = INTERPOLATIONS[preprocess.interpolation]
    resized_width, resized_height = _resized_size(width, height, preprocess.resize)
    left = round((resized_width - preprocess.crop) / 2.0)
    top = round((resized_height - preprocess.crop) / 2.0)
    right, bottom = left + preprocess.crop, top + preprocess.crop
    if max(width, height) <= MAX_ASPECT * min(width, height):
        return image.resize((resized_width, resized_height), filter_).crop((left, top, right, bottom))
    scale_x, scale_y = width / resized_width, height / resized_height
    box = (left * scale_x, top * scale_y, min(right * scale_x, width), min(bottom * scale_y, height))
    return image.resize((preprocess.crop, preprocess.crop), filter_, box)  # Pillow keeps a box in float32


def _resized_size(width: int, height: int, shorter_side: int) -> tuple[int, int]:
    """torchvision.transforms.functional._compute_resized_output_size: the longer side is truncated."""
    if width <= height:
        return shorter_side, int(shorter_side * height / width)
    return int(shorter_side * width / height), shorter_side


def _decode_reduced(image: Image.Image, shorter_side: int) -> None:
    """Ask libjpeg for a smaller decode (DCT scaling); other formats ignore it."""
    width, height = image.size
    scale = shorter_side / min(width, height)
    if scale < 1.0:
        image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))


def _turn_upright(image: Image.Image) -> None:
    """By its EXIF, in place: a copy would hold all pixels twice. Where it cannot be parsed there is none."""
    with suppress(*DECODER_ERRORS):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(row, picture from that row on), a few rows at a time: wide intermediate pixels cost no memory then."""
    num_rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, num_rows):
        yield top, image.crop((0, top, image.width, min(top + num_rows, image.height)))


def _over_white(image: Image.Image) -> Image.Image:
    flat = Image.new("RGB", image.size)
    for top, band in _bands(image):
        white = Image.new("RGBA", band.size, "white")
        flat.paste(Image.alpha_composite(white, band.convert("RGBA")).convert("RGB"), (0, top))
    return flat


def _deep_to_8_bit(image: Image.Image) -> Image.Image:
    """Deep grayscale to 0-255: from 0-65535, from 0-1 for floats; values already in 0-255 stay."""
    largest = max((float(_deep_values(band).max()) for _, band in _bands(image)), default=0.0)
    flat = Image.new("L", image.size)
    for top, band in _bands(image):
        values = _deep_values(band)
        if image.mode.startswith("I;16") or largest > 255.0:
            values = values / 257.0
        elif image.mode == "F" and largest <= 1.0:
            values = values * 255.0
        flat.paste(Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8)), (0, top))
    return flat


def _deep_values(image: Image.Image) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image, dtype=np.float64))


def _first_line(error: BaseException) -> str:
    """Pillow's reason without the address of the buffer it read from."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.split(" <_io.BytesIO")[0]
