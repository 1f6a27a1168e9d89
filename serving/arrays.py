"""Pictures as .npy arrays: uint8 pixels, or floats that the client normalised for the network itself.

The header is parsed by numpy and the data viewed in place: no pickle is ever read, and a header that promises
more than the body holds costs no memory.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from artifact.preprocess import Preprocess, resize_and_crop
from serving.errors import BadArray, ImageTooLarge

HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# A client may resize in floats, which overshoots 0-1 a little at sharp edges; more is another normalisation.
OVERSHOOT = 0.25


def read_array(body: bytes, preprocess: Preprocess) -> NDArray[np.uint8] | NDArray[np.floating]:
    """uint8 (H, W, 3) or (N, H, W, 3), or float (N, 3, crop, crop). Raises BadArray naming these."""
    shape, fortran_order, dtype, offset = _read_header(body, preprocess)
    if not _is_expected(shape, dtype, preprocess.crop):
        raise _bad_array(f"The array has shape {shape} and type {dtype}.", preprocess)
    if len(body) - offset != math.prod(shape) * dtype.itemsize:
        raise _bad_array(
            f"The array of shape {shape} and type {dtype} does not fill the body's {len(body)} bytes.",
            preprocess,
        )
    flat = np.frombuffer(body, dtype=dtype, offset=offset)
    return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)


def preprocess_raw(
    pixels: NDArray[np.uint8], preprocess: Preprocess, *, max_pixels: int
) -> NDArray[np.uint8]:
    """One picture's raw (H, W, 3) pixels -> (crop, crop, 3), as a decoded file's. Raises ImageTooLarge."""
    height, width = pixels.shape[:2]
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"The array has {width} x {height} = {width * height} pixels, over the limit of {max_pixels}.",
            hint="Shrink it first; the limit is KENNEL_MAX_PIXELS.",
        )
    return np.array(resize_and_crop(Image.fromarray(np.ascontiguousarray(pixels)), preprocess))


def undo_normalisation(values: NDArray[np.floating], preprocess: Preprocess) -> NDArray[np.uint8]:
    """(3, crop, crop) normalised -> (crop, crop, 3) uint8, the nearest: the graph normalises itself.

    Exact where the client normalised uint8 pixels, as torchvision's ToTensor and Normalize do.
    Raises BadArray for values that no picture has under the manifest's mean and std.
    """
    mean, std = (np.array(three, dtype=np.float64) for three in (preprocess.mean, preprocess.std))
    unit = values.astype(np.float64).transpose(1, 2, 0) * std + mean
    least, most = float(unit.min()), float(unit.max())
    if not (-OVERSHOOT <= least and most <= 1.0 + OVERSHOOT):  # NaN too
        raise BadArray(
            f"Without normalisation the values lie between {least:.3g} and {most:.3g}, not between 0 and 1.",
            hint=f"Normalise 0-1 with mean {preprocess.mean} and std {preprocess.std}, or send uint8.",
        )
    return np.clip(np.round(unit * 255.0), 0, 255).astype(np.uint8)


def _read_header(
    body: bytes, preprocess: Preprocess
) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """(shape, fortran_order, dtype, where the data begins)."""
    stream = io.BytesIO(body)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers written by Python 2
            shape, fortran_order, dtype = HEADER_READERS[npy.read_magic(stream)](stream)  # type: ignore[no-untyped-call]
    except (ValueError, LookupError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise _bad_array("The body is not an .npy file of version 1 or 2.", preprocess) from error
    except tokenize.TokenError as error:
        raise _bad_array("The header of the .npy file is broken.", preprocess) from error
    return shape, fortran_order, dtype, stream.tell()


def _is_expected(shape: tuple[int, ...], dtype: np.dtype[np.generic], crop: int) -> bool:
    if any(side < 1 for side in shape):
        return False
    if dtype.kind == "f":
        return len(shape) == 4 and shape[1:] == (3, crop, crop)
    return dtype == np.uint8 and len(shape) in (3, 4) and shape[-1] == 3


def _bad_array(message: str, preprocess: Preprocess) -> BadArray:
    crop = preprocess.crop
    return BadArray(
        message,
        hint="Send uint8 (H, W, 3) or (N, H, W, 3), RGB pixels to be resized and cropped, or float "
        f"(N, 3, {crop}, {crop}), already normalised.",
    )
