"""A class-activation map over the picture it explains, as the network saw that: resized and cropped."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEAST_SIDE = 224  # pixels of the overlay: a small network's crop would be too small to look at
OPACITY = 0.55  # of the map where it is strongest; where it is weakest the picture stays as it is
# Dark blue, violet, orange, yellow: steps of matplotlib's plasma, readable without telling red from green.
COLOURS = np.array(
    [[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]], dtype=np.float32
)


def normalise(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(height, width) of one class -> 0 where least speaks for it, 1 where most; all 0 where all alike."""
    least, most = float(logits.min()), float(logits.max())
    if not most - least > 1e-6 * max(1.0, abs(most)):
        return np.zeros_like(logits, dtype=np.float32)
    return np.asarray((logits - least) / (most - least), dtype=np.float32)


def enlarge(heat: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(height, width) -> (side, side), between the places' centres bilinear."""
    image = Image.fromarray(heat, mode="F").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)


def draw_overlay(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> bytes:
    """(crop, crop, 3) RGB under (height, width) from 0 to 1 -> PNG."""
    side = max(len(pixels), LEAST_SIDE)
    picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    strength = np.clip(enlarge(heat, side), 0.0, 1.0)[..., np.newaxis]
    steps = np.linspace(0.0, 1.0, len(COLOURS))
    colour = np.concatenate([np.interp(strength, steps, channel) for channel in COLOURS.T], axis=2)
    blended = (1 - OPACITY * strength) * np.asarray(picture) + OPACITY * strength * colour
    buffer = io.BytesIO()
    Image.fromarray(blended.round().astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
