"""Closed-loop load by wrk: each connection sends the next request when it has the last one's answer."""

from __future__ import annotations

import http.client
import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.requests import Request

TIMEOUT_SECONDS = 60  # SageMaker's own limit
PATIENCE_SECONDS = 30  # for a first answer
MARK = "result: "  # before wrk's numbers, as the script below prints them

SCRIPT = """
local file = assert(io.open({body!r}, "rb"))
wrk.method = {method!r}
wrk.body = file:read("*all")
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'result: {{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "p999": %d, ' ..
    '"bad_status": %d, "socket_errors": %d}}\\n',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


class LoadError(RuntimeError):
    """wrk could not run, or requests failed under it; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """What wrk saw. Latencies in ms."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def run_wrk(
    port: int, request: Request, *, connections: int, seconds: float, keep_alive: bool = True
) -> ClosedLoop:
    """Load for `seconds`, longer until something is answered. Raises LoadError where a request fails."""
    with tempfile.TemporaryDirectory() as scratch:
        body, script = Path(scratch) / "body", Path(scratch) / "post.lua"
        body.write_bytes(request.body)
        script.write_text(write_script(request, body, keep_alive=keep_alive))
        command = ["wrk", "--threads", "1", "--connections", str(connections)]
        command += ["--timeout", f"{TIMEOUT_SECONDS}s", "--script", str(script)]
        url = f"http://127.0.0.1:{port}{request.path}"
        for duration in (max(1, round(seconds)), PATIENCE_SECONDS):
            settle(port, request)
            output = _execute([*command, "--duration", f"{duration}s", url])
            closed = parse_wrk(output, keep_alive=keep_alive)
            if closed.requests:
                return closed
    raise LoadError(f"{request.path}: no answer on {connections} connections within {PATIENCE_SECONDS} s")


def wrk_version() -> str:
    """Such as `wrk 4.1.0`. Raises LoadError where there is none."""
    done = _start(["wrk", "--version"])
    return " ".join((done.stdout or done.stderr).split()[:2])


def _start(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LoadError("There is no `wrk` here; `apt-get install wrk` brings it.") from None


def _execute(command: list[str]) -> str:
    done = _start(command)
    if done.returncode != 0:
        raise LoadError(f"wrk failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout


def settle(port: int, request: Request) -> None:
    """Wait for one answer: wrk leaves without its last answers, and a slow server still works on those."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        exchange(connection, request)
    finally:
        connection.close()


def exchange(connection: http.client.HTTPConnection, request: Request) -> int:
    """The status of one request; the connection is made again where the server has closed it meanwhile."""
    for attempt in (1, 2):
        try:
            connection.request(request.method, request.path, body=request.body, headers=dict(request.headers))
            response = connection.getresponse()
            response.read()
            return response.status
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            connection.close()
            if attempt == 2:
                raise LoadError(f"{request.path}: the server closed the connection ({error})") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise LoadError(f"{request.path}: {type(error).__name__} {error}") from error
    raise AssertionError("unreachable")


def write_script(request: Request, body: Path, *, keep_alive: bool = True) -> str:
    """The Lua that sends `request`, its body read from a file, and prints the numbers as JSON."""
    headers = dict(request.headers) | ({} if keep_alive else {"Connection": "close"})
    lines = "\n".join(f"wrk.headers[{name!r}] = {value!r}" for name, value in headers.items())
    return SCRIPT.format(body=str(body), method=request.method, headers=lines)


def parse_wrk(output: str, *, keep_alive: bool = True) -> ClosedLoop:
    """The script's line. Raises LoadError where it is absent or a request failed.

    Without keep-alive wrk counts every close as a read error, so only the statuses are looked at.
    """
    line = next((line for line in output.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise LoadError(f"wrk printed no result: {output[-200:]!r}")
    numbers = json.loads(line.removeprefix(MARK))
    failed = numbers["bad_status"] + (numbers["socket_errors"] if keep_alive else 0)
    if failed:
        raise LoadError(
            f"{numbers['requests']} requests, of which {numbers['bad_status']} had a bad status; "
            f"{numbers['socket_errors']} socket errors"
        )
    return ClosedLoop(
        requests=numbers["requests"],
        seconds=numbers["microseconds"] / 1e6,
        p50_ms=numbers["p50"] / 1000,
        p99_ms=numbers["p99"] / 1000,
        p999_ms=numbers["p999"] / 1000,
    )
