"""A model file with a flipped bit."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

from chaos.lab import Lab, Result
from chaos.server import START_SECONDS, start_process


async def serve_corrupted_bundle(lab: Lab) -> Result:
    """The server refuses to start: one sentence, exit code not 0."""
    model_dir = shutil.copytree(lab.model_dir, lab.scratch / "corrupted")
    for path in (model_dir / "openvino").glob("*.bin"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    server = start_process(model_dir, lab.log())
    try:
        code = await asyncio.to_thread(server.process.wait, START_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        code = 0
    lines = server.log.read_text().splitlines()
    numbers = {"exit_code": code, "lines": len(lines)}
    passed = code != 0 and len(lines) == 1 and "checksum" in lines[0]
    return Result(name="corrupted", passed=passed, numbers=numbers)
