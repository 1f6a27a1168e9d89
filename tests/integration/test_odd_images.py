"""docs/odd-images.md, read as a table and held against what `respond` answers."""

from __future__ import annotations

import fnmatch
import functools
import io
import json
import re
import resource
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from chaos.scenarios.odd import read_table
from serving.handler import Predictor, model_fn, respond
from serving.messages import Answer, Query
from serving.options import Options
from tests.bundles import make_tiny_bundle

PAGE = (Path(__file__).parents[2] / "docs/odd-images.md").read_text()
FILE_ROWS = read_table(PAGE)
BODY_ROWS = re.findall(r"^\| ([^|`]+) \| (\d{3}[^|]*) \|$", PAGE, re.MULTILINE)
SMALL_LIMIT = 10_000


@pytest.fixture(scope="module")
def tiny_predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return model_fn(make_tiny_bundle(tmp_path_factory.mktemp("odd") / "model"))


def outcome(answer: Answer) -> str:
    """`200`, or the status and the code; whatever it is, it has the documented form."""
    stated = json.loads(answer.body)
    if answer.status == 200:
        probabilities = np.exp(np.array(stated, dtype=np.float64))
        assert probabilities.shape == (1, 3)
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)
        return "200"
    error = stated["error"]
    assert set(error) == {"code", "message", "hint"}
    assert "\n" not in error["message"] and "BytesIO" not in error["message"]
    return f"{answer.status} {error['code']}"


@pytest.mark.real_images
@pytest.mark.filterwarnings("ignore")  # Pillow warns of much that is in there
def test_every_odd_file_gets_the_documented_result(real_images: Path, tiny_predictor: Predictor) -> None:
    folder = real_images / "odd"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
    differing = []
    counts: Counter[str] = Counter()
    for name in names:
        pattern, _, documented = next(row for row in FILE_ROWS if fnmatch.fnmatchcase(name, row[0]))
        counts[pattern] += 1
        got = outcome(respond(Query((folder / name).read_bytes(), "image/jpeg"), tiny_predictor))
        if got != documented:
            differing.append(f"{name}: {got}, documented {documented}")

    assert len(names) == 541
    assert differing == []
    assert [
        f"{pattern}: {counts[pattern]}" for pattern, count, _ in FILE_ROWS if counts[pattern] != count
    ] == []


def png(width: int, height: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 7).save(buffer, "PNG", **options)
    return buffer.getvalue()


def huge_png() -> bytes:
    """A header of 50000 x 50000 RGBA: 10 GB once decoded."""
    header = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + bytes([8, 6, 0, 0, 0])
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + png(1, 1)[33:]


def text_bomb() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * 100_000_000, zip=True)
    return png(8, 8, pnginfo=text)


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a")
    return buffer.getvalue()


BODIES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"The quick brown fox jumps over the lazy dog.\n",
    "HTML": lambda: b"\n<!DOCTYPE html><html><body>Not found</body></html>",
    "SVG": lambda: b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": lambda: b"%PDF-1.7\n",
    "ZIP": zip_file,
    "1x1": functools.partial(png, 1, 1),
    "1x10000": functools.partial(png, 1, 10_000),
    "10000x1": functools.partial(png, 10_000, 1),
    "exactly the pixel limit": functools.partial(png, 100, SMALL_LIMIT // 100),
    "one row over the pixel limit": functools.partial(png, 100, SMALL_LIMIT // 100 + 1),
    "PNG of 50000x50000": huge_png,
    "PPM header of 20000x20000": lambda: b"P5 20000 20000 255 ",
    "PNG with 100 MB of compressed text": text_bomb,
}


def test_the_page_documents_every_body() -> None:
    assert [name for name, _ in BODY_ROWS] == list(BODIES)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("name", "documented"), BODY_ROWS, ids=[name for name, _ in BODY_ROWS])
def test_body_gets_the_documented_result(name: str, documented: str, tiny_predictor: Predictor) -> None:
    body = BODIES[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    answer = respond(Query(body, "image/jpeg"), tiny_predictor, Options(max_pixels=SMALL_LIMIT))

    spent_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert outcome(answer) == documented
    assert spent_mib < 32, "a bomb is refused before its memory is spent"
