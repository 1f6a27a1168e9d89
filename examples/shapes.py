"""Draws a small data set that a small network learns in a minute: circles, squares, triangles, stars.

    python -m examples.shapes OUT [--seed N] [--images-per-class N]     # OUT/{train,valid,test}/<label>/*.jpg
    python -m examples.shapes examples/images --samples                 # the six sample images of this folder

The pictures are easy and the files are not: several sizes, some gray, and all eight camera orientations
(the pixels are stored turned, with the EXIF tag that turns them upright), as photos arrive in practice.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float64]

LABELS = ("circle", "square", "star", "triangle")
CHANNELS = ("train", "valid", "test")
IMAGES_PER_CLASS = {"train": 120, "valid": 30, "test": 40}
SIZES = (
    (96, 72),
    (72, 96),
    (128, 128),
    (160, 120),
    (120, 160),
    (256, 192),
    (320, 240),
    (240, 320),
    (640, 480),
)
SIZE_SHARES = (0.2, 0.15, 0.15, 0.15, 0.1, 0.1, 0.07, 0.05, 0.03)  # mostly small: drawing stays quick
ORIENTATION_TAG = 0x0112
OVERSAMPLING = 3  # shapes are drawn this much larger and averaged, for smooth edges
MIN_CONTRAST = 70.0  # in luma, so that the gray pictures can be told as well

# How to store upright pixels under each EXIF orientation: the inverse of what a viewer does to show them.
STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One of the committed sample images."""

    file_name: str
    label: str
    size: tuple[int, int]
    orientation: int = 1
    gray: bool = False


SAMPLES = (
    Sample(file_name="circle.jpg", label="circle", size=(320, 240)),
    Sample(file_name="square.jpg", label="square", size=(240, 320)),
    Sample(file_name="triangle.jpg", label="triangle", size=(256, 256)),
    Sample(file_name="star.jpg", label="star", size=(320, 240)),
    Sample(file_name="star-rotated.jpg", label="star", size=(320, 240), orientation=6),
    Sample(file_name="triangle-gray.jpg", label="triangle", size=(160, 120), gray=True),
)


def draw_shapes(
    destination: Path, *, seed: int = 0, images_per_class: Mapping[str, int] = IMAGES_PER_CLASS
) -> Path:
    """An ImageFolder in a new or empty folder; the same seed draws the same bytes (with the same Pillow)."""
    if destination.exists() and any(destination.iterdir()):
        raise FileExistsError(f"{destination} is not empty; remove it or choose another folder.")
    unknown = [channel for channel in images_per_class if channel not in CHANNELS]
    if unknown:
        raise ValueError(f"images_per_class names {unknown[0]!r}; use {', '.join(CHANNELS)}.")
    for channel, count in images_per_class.items():
        for label in LABELS:
            folder = destination / channel / label
            folder.mkdir(parents=True)
            for index in range(count):
                # A generator for each image: none depends on how many were drawn before it.
                key = [seed, CHANNELS.index(channel), LABELS.index(label), index]
                _write_one(folder / f"{label}_{index:04d}.jpg", label, index, np.random.default_rng(key))
    return destination


def draw_samples(destination: Path) -> list[Path]:
    """The sample images; their seed is not one of a data set's, so no network has trained on them."""
    destination.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, sample in enumerate(SAMPLES):
        image = draw_shape(sample.label, sample.size, np.random.default_rng([2**31, number]))
        paths.append(destination / sample.file_name)
        write_jpeg(image, paths[-1], orientation=sample.orientation, gray=sample.gray)
    return paths


def draw_shape(label: str, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """One shape, upright RGB, inside the central square so that a centre crop keeps it."""
    background, colour = _contrasting_colours(random)
    pixels = _noisy_background(background, size, random)  # (H, W, 3) float64, 0-255
    coverage = _shape_coverage(label, size, random)[:, :, None]  # (H, W, 1), 0-1
    shape_pixels = colour + random.normal(0.0, 6.0, pixels.shape)
    blended = pixels * (1 - coverage) + shape_pixels * coverage
    return Image.fromarray(blended.clip(0, 255).astype(np.uint8))


def write_jpeg(image: Image.Image, path: Path, *, orientation: int = 1, gray: bool = False) -> None:
    """Stores the pixels turned, with the EXIF tag that turns them back."""
    stored = image.convert("L") if gray else image
    if orientation in STORED_AS:
        stored = stored.transpose(STORED_AS[orientation])
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored.save(path, quality=85, exif=exif)


def _write_one(path: Path, label: str, index: int, random: np.random.Generator) -> None:
    size = SIZES[int(random.choice(len(SIZES), p=SIZE_SHARES))]
    image = draw_shape(label, size, random)
    write_jpeg(image, path, orientation=1 + index % 8, gray=index % 10 == 9)


def _contrasting_colours(random: np.random.Generator) -> tuple[Floats, Floats]:
    """Background and shape, each (3,) 0-255; the shape is the lighter one, which a network learns sooner."""
    luma = np.array([0.299, 0.587, 0.114])
    while True:
        background, colour = random.uniform(20, 235, (2, 3))
        if float(luma @ (colour - background)) >= MIN_CONTRAST:
            return background, colour


def _noisy_background(colour: Floats, size: tuple[int, int], random: np.random.Generator) -> Floats:
    """The colour with a slope across the picture and grain of its own in each band."""
    width, height = size
    across, down = random.uniform(-25, 25, 2)
    slope = np.linspace(-across, across, width)[None, :] + np.linspace(-down, down, height)[:, None]
    grain: Floats = random.normal(0.0, random.uniform(4, 16), (height, width, 3))
    pixels: Floats = colour + slope[:, :, None] + grain
    return pixels


def _shape_coverage(label: str, size: tuple[int, int], random: np.random.Generator) -> Floats:
    """Share of each pixel that the shape covers, (H, W) 0-1."""
    width, height = size
    side = min(size)
    radius = side * random.uniform(0.2, 0.36)
    reach = side * 0.42 - radius  # stays clear of the central square's edge
    centre = np.array([width, height]) / 2 + random.uniform(-reach, reach, 2)
    turn = random.uniform(0, 2 * math.pi)

    mask = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
    corners = (centre + radius * _outline(label, turn)) * OVERSAMPLING
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    return np.asarray(mask.reduce(OVERSAMPLING), dtype=np.float64) / 255


def _outline(label: str, turn: float) -> Floats:
    """Corners on (and, for a star, inside) the unit circle, (corners, 2)."""
    corners = {"circle": 64, "square": 4, "star": 10, "triangle": 3}[label]
    angles = turn + np.arange(corners) * (2 * math.pi / corners)
    radii = np.where(np.arange(corners) % 2, 0.42, 1.0) if label == "star" else np.ones(corners)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.shapes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("out", type=Path, help="folder to draw into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--images-per-class",
        type=int,
        default=IMAGES_PER_CLASS["train"],
        metavar="N",
        help="training images per class; valid gets a quarter of it, test a third (default: %(default)s)",
    )
    parser.add_argument("--samples", action="store_true", help="draw the six sample images instead")
    options = parser.parse_args(arguments)
    if options.samples:
        print(*draw_samples(options.out), sep="\n")
        return 0
    if options.images_per_class < 1 or options.seed < 0:
        parser.error("--images-per-class starts at 1 and --seed at 0")
    train = options.images_per_class
    counts = {"train": train, "valid": max(1, train // 4), "test": max(1, train // 3)}
    try:
        print(draw_shapes(options.out, seed=options.seed, images_per_class=counts))
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
