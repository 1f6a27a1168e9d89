"""Mutated bodies against the codec: no 500, no dead worker, no growing memory.

    python -m chaos.fuzz_codec --model DIR --seeds FOLDER... --bodies 100000      respond() in this process
    python -m chaos.fuzz_codec --model DIR --seeds FOLDER... --guided             the same, led by coverage
    python -m chaos.fuzz_codec --url http://127.0.0.1:8080 --pid MASTER --seeds FOLDER... --bodies 100000

Prints one JSON line and ends with 1 where something failed. `--keep DIR` stores the bodies that did. What
`--guided` found worth keeping can be a seed later: add the corpus folder to --seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import logging
import os
import random
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from chaos.mutations import ACCEPTS, CONTENT_TYPES, draw_query, read_seeds, wrap
from chaos.processes import read_resident_mib, read_tree
from serving.messages import Query

SAMPLES = 100  # of the memory, evenly over the bodies: at any one moment some picture is in it, or none
WARM = slice(20, 30)  # by then every decoder was loaded and has grown its buffers
END = slice(-10, None)
MAX_GROWTH = 0.05
GUIDED_BYTES = 64 * 1024
TIMEOUT_SECONDS = 60.0
TRIES, RETRY_SECONDS = 200, 0.05  # of a request turned away


@dataclass(slots=True)
class Ledger:
    """What became of every body, and of the processes that answered."""

    bodies: int
    pid: int
    keep: Path | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    resident_mib: list[float] = field(default_factory=list)
    processes: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, query: Query, status: str) -> None:
        """`status` is HTTP's, or the name of the exception that came instead of an answer."""
        with self._lock:
            self.sent += 1
            self.statuses[status] += 1
            if self.sent == 1:
                self.processes = read_tree(self.pid)
            if self.sent * SAMPLES // self.bodies > len(self.resident_mib):
                self.resident_mib.append(read_resident_mib(read_tree(self.pid)))
        if self.keep is not None and not status.startswith(("2", "4")):
            self.keep.mkdir(parents=True, exist_ok=True)
            name = f"{status}-{hashlib.sha256(query.body).hexdigest()[:16]}"
            (self.keep / name).write_bytes(query.body)
            (self.keep / f"{name}.json").write_text(json.dumps([query.content_type, query.accept]))

    def report(self) -> dict[str, object]:
        """Plain values, `ok` among them."""
        now = read_tree(self.pid)
        warm_mib, end_mib = (_mean(self.resident_mib[part]) for part in (WARM, END))
        growth = end_mib / warm_mib - 1.0 if warm_mib else 0.0
        deaths = len(self.processes - now)
        bad = sum(count for status, count in self.statuses.items() if not status.startswith(("2", "4")))
        return {
            "bodies": self.sent,
            "statuses": dict(sorted(self.statuses.items())),
            "bad_answers": bad,
            "worker_deaths": deaths,
            "resident_mib_warm": round(warm_mib, 1),
            "resident_mib_end": round(end_mib, 1),
            "resident_growth": round(growth, 4),
            "ok": bad == 0 and deaths == 0 and growth <= MAX_GROWTH,
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def fuzz_in_process(model: Path, seeds: list[bytes], ledger: Ledger, *, seed: int) -> None:
    """Random bodies to respond()."""
    from serving.handler import model_fn, respond

    predictor = model_fn(model)
    draw = random.Random(seed)
    for _ in range(ledger.bodies):
        query = draw_query(seeds, draw)
        ledger.note(query, str(respond(query, predictor).status))


def fuzz_over_http(url: str, seeds: list[bytes], ledger: Ledger, *, seed: int, connections: int) -> None:
    """Random bodies over kept-alive connections, each with a stream of its own."""

    def send(number: int) -> None:
        draw = random.Random(seed * 1000 + number)
        share = ledger.bodies // connections + (number < ledger.bodies % connections)
        connection = _connect(url)
        for _ in range(share):
            query = draw_query(seeds, draw)
            status = _post(connection, query)
            ledger.note(query, status)
            if not status.isdigit():
                connection.close()
        connection.close()

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(send, range(connections)))


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT_SECONDS)


def _post(connection: http.client.HTTPConnection, query: Query) -> str:
    named = {"Content-Type": query.content_type, "Accept": query.accept}
    headers = {name: value for name, value in named.items() if value}
    try:
        for _ in range(TRIES):
            connection.request("POST", "/invocations", query.body, headers)
            response = connection.getresponse()
            response.read()
            if response.status != 503 or "Retry-After" not in response.headers:
                break
            time.sleep(RETRY_SECONDS)  # few heat maps are made at a time; each body shall have its answer
        return str(response.status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def fuzz_guided(model: Path, seeds: list[bytes], corpus: Path, ledger: Ledger) -> NoReturn:
    """libFuzzer mutates, led by what our Python code (not Pillow's C) newly reaches. Ends the process.

    The first byte of an input chooses the content type, the second the Accept.
    """
    import atheris

    with atheris.instrument_imports(include=["serving", "artifact", "PIL"]):
        from serving.handler import model_fn, respond

    predictor = model_fn(model)
    _write_corpus(corpus, seeds)

    def test_one_input(data: bytes) -> None:
        kind, accept = (*data[:2], 0, 0)[:2]
        query = Query(
            data[2:],
            CONTENT_TYPES[kind % len(CONTENT_TYPES)] or None,
            ACCEPTS[accept % len(ACCEPTS)] or None,
        )
        ledger.note(query, str(respond(query, predictor).status))
        if ledger.sent >= ledger.bodies:
            os._exit(_print_report(ledger))  # libFuzzer does not return to Python

    limits = [
        f"-max_len={GUIDED_BYTES}",
        "-rss_limit_mb=4096",
        "-timeout=30",
        "-print_final_stats=0",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], test_one_input)
    atheris.Fuzz()
    raise AssertionError("libFuzzer came back")


def _write_corpus(corpus: Path, seeds: list[bytes]) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for body in seeds:
        for number, content_type in enumerate(CONTENT_TYPES[:6]):
            stored = bytes([number, 0]) + wrap(body, content_type)
            if len(stored) <= GUIDED_BYTES // 4:
                (corpus / hashlib.sha1(stored).hexdigest()).write_bytes(stored)


def _print_report(ledger: Ledger) -> int:
    report = ledger.report()
    print(json.dumps(report), flush=True)
    return 0 if report["ok"] else 1


def main() -> int:
    """Parse, fuzz, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--model", type=Path, help="folder of an unpacked artifact")
    target.add_argument("--url", help="a running server, as http://127.0.0.1:8080")
    parser.add_argument("--seeds", type=Path, nargs="*", default=[], help="folders of pictures")
    parser.add_argument("--bodies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the random changes")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument(
        "--pid", type=int, default=os.getpid(), help="the server's first process, for its memory"
    )
    parser.add_argument("--guided", action="store_true", help="led by coverage (atheris)")
    parser.add_argument("--corpus", type=Path, help="where --guided keeps what it finds")
    parser.add_argument("--keep", type=Path, help="where bodies that fail are stored")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    seeds = read_seeds(arguments.seeds)
    ledger = Ledger(arguments.bodies, arguments.pid, arguments.keep)
    if arguments.url:
        fuzz_over_http(arguments.url, seeds, ledger, seed=arguments.seed, connections=arguments.connections)
    elif arguments.guided:
        fuzz_guided(arguments.model, seeds, arguments.corpus or Path(tempfile.mkdtemp()), ledger)
    else:
        fuzz_in_process(arguments.model, seeds, ledger, seed=arguments.seed)
    return _print_report(ledger)


if __name__ == "__main__":
    sys.exit(main())
