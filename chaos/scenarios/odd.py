"""Every file of a collection of odd pictures, held against the table of docs/odd-images.md."""

from __future__ import annotations

import asyncio
import fnmatch
import http.client
import json
import re
from pathlib import Path

from chaos.lab import Lab, Result
from local.platform import REPOSITORY

PAGE = REPOSITORY / "docs/odd-images.md"
SECONDS = 60.0


async def send_odd_files(lab: Lab) -> Result:
    """Each gets the documented status and code."""
    if lab.odd is None:
        return Result(name="odd", passed=True, skipped="no collection of odd files was named (--odd FOLDER)")
    async with lab.server() as server:
        differing, sent = await asyncio.to_thread(_compare, lab.odd, server.port)
        alive = server.process.poll() is None
    numbers = {"files": sent, "differing": differing}
    return Result(name="odd", passed=alive and sent > 0 and not differing, numbers=numbers)


def read_table(page: str) -> list[tuple[str, int, str]]:
    """(pattern, files, outcome) of each row; a file belongs to the first pattern that fits."""
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
    return [(pattern, int(files), outcome) for pattern, files, outcome in rows]


def _compare(folder: Path, port: int) -> tuple[list[str], int]:
    rows = read_table(PAGE.read_text())
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    differing = []
    for name in names:
        documented = next((row[2] for row in rows if fnmatch.fnmatchcase(name, row[0])), "no row")
        connection.request(
            "POST", "/invocations", (folder / name).read_bytes(), {"Content-Type": "image/jpeg"}
        )
        answer = connection.getresponse()
        stated = json.loads(answer.read())
        got = str(answer.status) if answer.status == 200 else f"{answer.status} {stated['error']['code']}"
        if got != documented:
            differing.append(f"{name}: {got}, documented {documented}")
    connection.close()
    return differing, len(names)
