"""The three JPEGs that are sent, made once from real photographs of the `woof` set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps

from benchmarks.serving.places import SHARED, WORK

SMALL, TYPICAL, LARGE = "224px", "typical", "12mp"
SIZES = {SMALL: (224, 224), TYPICAL: (500, 375), LARGE: (4000, 3000)}
QUALITY = 90
TILE = (400, 300)  # of the mosaic: woof's photographs are about that large


def prepare_pictures() -> dict[str, Path]:
    """Name -> file, made where absent. Raises FileNotFoundError without the real images."""
    pictures = {name: WORK / "pictures" / f"{name}.jpg" for name in SIZES}
    for name, path in pictures.items():
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            image = draw_mosaic(SIZES[name]) if name == LARGE else fit_photo(SIZES[name])
            image.save(path, "JPEG", quality=QUALITY)
    return pictures


def fit_photo(size: tuple[int, int]) -> Image.Image:
    """The first photograph that lies as `size` does, scaled and cropped to it."""
    return ImageOps.fit(next(_landscape_photos()), size)


def draw_mosaic(size: tuple[int, int]) -> Image.Image:
    """Photographs at their own resolution side by side: the detail, and so the bytes, of a real large one.

    An enlarged photograph would be smooth and decode faster than any camera's.
    """
    width, height = size
    mosaic = Image.new("RGB", size)
    corners = itertools.product(range(0, height, TILE[1]), range(0, width, TILE[0]))
    for (top, left), photo in zip(
        corners, itertools.cycle(list(itertools.islice(_landscape_photos(), 50))), strict=False
    ):
        mosaic.paste(ImageOps.fit(photo, TILE), (left, top))
    return mosaic


def _landscape_photos() -> Iterator[Image.Image]:
    source = SHARED / "data" / "woof" / "test"
    if not source.is_dir():
        raise FileNotFoundError(f"The real images are absent: {source} (set KENNEL_SHARED).")
    for path in sorted(source.rglob("*.JPEG")):
        with Image.open(path) as image:
            if image.mode == "RGB" and image.width > image.height >= TILE[1]:
                yield image.copy()
