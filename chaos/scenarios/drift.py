"""The pictures a model knows, as they are, darkened and blurred: the last two have to raise the alert."""

from __future__ import annotations

import asyncio
import io
import itertools
import urllib.request
from collections.abc import Callable, Sequence

from PIL import Image, ImageEnhance, ImageFilter
from prometheus_client.parser import text_string_to_metric_families

from chaos.connection import Connection, build_request
from chaos.lab import Lab, Result
from chaos.ledger import Entry, Fate

PICTURES = 220  # the index says nothing below 200
SHIFTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "original": lambda image: image,
    "darkened": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
}


async def replay_shifted(lab: Lab) -> Result:
    """The alert is up for the shifted sets and for them only."""
    if not lab.familiar:
        return Result(name="drift", passed=True, skipped="--artifact was given without --familiar")
    alerts = {}
    for name, shift in SHIFTS.items():
        async with lab.server() as server:
            await _send(server.port, [_shifted(body, shift) for body in lab.familiar])
            alerts[name] = await asyncio.to_thread(_read_alert, server.port)
    expected = {name: float(name != "original") for name in SHIFTS}
    return Result(name="drift", passed=alerts == expected, numbers=dict(alerts))


async def _send(port: int, bodies: Sequence[bytes]) -> None:
    connection = Connection(port)
    for number, body in enumerate(itertools.islice(itertools.cycle(bodies), PICTURES)):
        entry = Entry(number, 0.0)
        await connection.exchange(build_request("/invocations", body), entry)
        if entry.fate is not Fate.ANSWERED:
            raise RuntimeError(f"Picture {number} was not answered: {entry.fate.value} {entry.status}.")
    connection.close()


def _shifted(body: bytes, shift: Callable[[Image.Image], Image.Image]) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(body)) as image:
        shift(image.convert("RGB")).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _read_alert(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return next(family.samples[0].value for family in families if family.name == "kennel_drift_alert")
