"""Faults planted in a copy of a real set, and drawn pictures to search in."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from artifact.cores import available_cores
from training.progress import progress

NUM_LEAKS = 50
NUM_CONTRADICTIONS = 30
NUM_CORRUPT = 20
QUALITY = 90  # of planted JPEGs, unless the quality is what is planted
GENERATED_SIDE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Plants:
    """What was planted: (original, planted) paths of each kind; corrupt files."""

    leaks: dict[str, list[tuple[str, str]]]
    contradictions: list[tuple[str, str]]
    corrupt: list[str]

    def paths(self) -> set[str]:
        """Every file that was planted or copied from."""
        pairs = [*self.contradictions, *(pair for pairs in self.leaks.values() for pair in pairs)]
        return {path for pair in pairs for path in pair} | set(self.corrupt)


def plant(data: Path, rng: random.Random) -> Plants:
    """Every fault gets a training file of its own."""
    originals = sorted(path for path in (data / "train").rglob("*") if path.is_file())
    labels = sorted(path.name for path in (data / "train").iterdir())
    chosen = iter(rng.sample(originals, NUM_LEAKS * len(CHANGES) + NUM_CONTRADICTIONS + NUM_CORRUPT))
    leaks: dict[str, list[tuple[str, str]]] = {}
    for place, (kind, change) in enumerate(CHANGES.items()):
        leaks[kind] = []
        for number in range(NUM_LEAKS):
            original = next(chosen)
            copy = data / "test" / original.parent.name / f"leak_{place}_{number}.jpg"
            copy.write_bytes(change(original.read_bytes()))
            leaks[kind].append(relative(data, original, copy))
    contradictions = []
    for number in range(NUM_CONTRADICTIONS):
        original = next(chosen)
        other = rng.choice([label for label in labels if label != original.parent.name])
        copy = data / "train" / other / f"contradiction_{number}.jpg"
        shutil.copyfile(original, copy)
        contradictions.append(relative(data, original, copy))
    corrupt = []
    for number, path in zip(range(NUM_CORRUPT), chosen, strict=True):
        body = path.read_bytes()
        path.write_bytes(
            rng.randbytes(len(body)) if number % 2 else body[: int(len(body) * rng.uniform(0.1, 0.9))]
        )
        corrupt.append(path.relative_to(data).as_posix())
    return Plants(leaks=leaks, contradictions=contradictions, corrupt=corrupt)


def relative(data: Path, original: Path, copy: Path) -> tuple[str, str]:
    return original.relative_to(data).as_posix(), copy.relative_to(data).as_posix()


def encode_jpeg(image: Image.Image, quality: int = QUALITY) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def open_rgb(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body)).convert("RGB")


def resize(image: Image.Image, share: float) -> Image.Image:
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.BICUBIC)


def crop(image: Image.Image, share: float) -> Image.Image:
    """`share` of each side, half of it at either edge."""
    across, down = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((across, down, image.width - across, image.height - down))


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "exact": lambda body: body,
    "quality 40": lambda body: encode_jpeg(open_rgb(body), 40),
    "resized 70 %": lambda body: encode_jpeg(resize(open_rgb(body), 0.7)),
    "cropped 4 %": lambda body: encode_jpeg(crop(open_rgb(body), 0.04)),
    "mirrored": lambda body: encode_jpeg(ImageOps.mirror(open_rgb(body))),
    # beyond what is asked for: how far it reaches
    "cropped 2 %": lambda body: encode_jpeg(crop(open_rgb(body), 0.02)),
    "cropped 8 %": lambda body: encode_jpeg(crop(open_rgb(body), 0.08)),
    "mirrored, cropped 4 %, resized 60 %, quality 60": lambda body: encode_jpeg(
        resize(crop(ImageOps.mirror(open_rgb(body)), 0.04), 0.6), 60
    ),
}


def draw_pictures(folder: Path, num_files: int) -> None:
    """Smooth noise, and every hundredth picture once more at quality 40."""
    folder.mkdir(parents=True)

    def draw(number: int) -> None:
        noise = np.random.default_rng(number - number % 100 if number % 100 == 99 else number)
        small = Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        picture = small.resize((GENERATED_SIDE, GENERATED_SIDE), Image.Resampling.BICUBIC)
        body = encode_jpeg(picture, 40 if number % 100 == 99 else QUALITY)
        (folder / f"{number:06d}.jpg").write_bytes(body)

    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in progress(pool.map(draw, range(num_files)), total=num_files, what="draw"):
            pass
