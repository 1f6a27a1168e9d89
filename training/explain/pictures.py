"""Heat maps over pictures, as JPEG data URIs: a page with many of them stays small."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE_PIXELS = 160
QUALITY = 80
COLORS = matplotlib.colormaps["inferno"]  # as bright as it is strong: readable in gray and without seeing red
LARGEST_SHARE = 0.8  # of the colour over the picture, which is to be seen through it


def draw_picture(pixels: NDArray[np.uint8]) -> str:
    """(H, W, 3) as it is."""
    return _encode(Image.fromarray(pixels))


def draw_map(pixels: NDArray[np.uint8], scaled: NDArray[np.float64]) -> str:
    """The picture in dim gray, coloured where `scaled` (H, W), 0 to 1, is strong."""
    gray = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)[..., None].repeat(3, axis=2)
    share = LARGEST_SHARE * np.sqrt(scaled)[..., None]
    colors = 255 * np.asarray(COLORS(scaled))[..., :3]
    return _encode(Image.fromarray(((1 - share) * 0.7 * gray + share * colors).round().astype(np.uint8)))


def lift(summed: NDArray[np.float64]) -> NDArray[np.float64]:
    """A sum of maps with its strongest place at 1."""
    strongest = float(summed.max())
    return summed / strongest if strongest > 0 else summed


def _encode(image: Image.Image) -> str:
    scale = SIDE_PIXELS / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
