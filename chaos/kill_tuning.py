"""kill -9 of a search at random moments, and again: `python -m chaos.kill_tuning --data D --kills 10`.

After each kill nothing of the search may live on, and in the end each trial was run to its end exactly once.
The last line of stdout is JSON; exit code 1 where a trial was repeated, lost or orphaned.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from local.platform import REPOSITORY

ORPHAN_SECONDS = 150.0  # a stopped job's grace, and some
LONGEST_SECONDS = 900.0
ENDED = ("COMPLETE", "PRUNED", "FAIL")
# What to wait for before the kill, and the longest pause after it. The commit of a result is the riskiest.
MOMENTS = (("start", 4.0), ("metric", 2.0), ("outcome", 0.4))


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What the kills did."""

    kills: int = 0
    trials: int = 0
    faults: list[str] = field(default_factory=list)


def torment(command: Sequence[str], output: Path, *, kills: int, seed: int) -> Verdict:
    """Run the search `command`, which writes to `output`; kill it so often, then let it come to its end."""
    draw, verdict = random.Random(seed), Verdict()
    before: dict[int, tuple[object, ...]] = {}
    for _ in range(kills):
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        _wait_for_moment(process, output, draw)
        verdict.kills += process.poll() is None
        process.kill()
        process.wait()
        verdict.faults += _find_orphans(output) + _find_repeated(before, output)
        before = read_ended(output)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        verdict.faults.append(f"the last run failed: {done.stderr[-500:]}")
    verdict.faults += _find_repeated(before, output)
    ended = read_ended(output)
    verdict.trials = len(ended)
    failed = [number for number, (state, *_) in ended.items() if state == "FAIL"]
    verdict.faults += [f"trial {number} failed, though only the search was killed" for number in failed]
    return verdict


def read_ended(output: Path) -> dict[int, tuple[object, ...]]:
    """Trial -> its state, score and how much its job has ever said, of those that ended."""
    file = output / "search.db"
    if not file.exists():
        return {}
    query = (
        "select t.number, t.state, v.value, p.value_json from trials t "
        "left join trial_values v on v.trial_id = t.trial_id "
        "join trial_user_attributes p on p.trial_id = t.trial_id and p.key = 'position'"
    )
    with sqlite3.connect(file, timeout=30) as database:
        try:
            rows = database.execute(query).fetchall()
        except sqlite3.OperationalError:  # killed while it made the tables
            return {}
    ended = ((number, state, value, int(place)) for number, state, value, place in rows if state in ENDED)
    return {
        number: (state, value, (output / "trials" / f"{place:03d}" / "log.txt").read_bytes())
        for number, state, value, place in ended
    }


def _wait_for_moment(process: subprocess.Popen[bytes], output: Path, draw: random.Random) -> None:
    """Until something has happened that had not, and a random while longer; or until the search ends."""
    kind, longest = draw.choice(MOMENTS)
    before = _count(output, kind)
    deadline = time.monotonic() + LONGEST_SECONDS
    while process.poll() is None and _count(output, kind) == before and time.monotonic() < deadline:
        if kind == "start":
            break
        time.sleep(0.01)
    time.sleep(draw.uniform(0, longest))


def _count(output: Path, kind: str) -> int:
    if kind == "outcome":
        return len(list(output.glob("trials/*/outcome.json")))
    return sum(log.read_bytes().count(b"metric ") for log in output.glob("trials/*/log.txt"))


def _find_orphans(output: Path) -> list[str]:
    """Processes that work in `output` and do not end by themselves."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while living := _living(output):
        if time.monotonic() > deadline:
            return [f"still alive after {ORPHAN_SECONDS:.0f} s: {line}" for line in living]
        time.sleep(0.2)
    return []


def _living(output: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "pid"]):
        command = " ".join(process.info["cmdline"] or [])
        prefix = (process.info["environ"] or {}).get("KENNEL_PREFIX", "")
        if ("local.tuning_trial" in command and str(output) in command) or prefix.startswith(str(output)):
            found.append(f"{process.info['pid']} {command[:120]}")
    return found


def _find_repeated(before: dict[int, tuple[object, ...]], output: Path) -> list[str]:
    after = read_ended(output)
    lost = [f"trial {number} is lost" for number in before if number not in after]
    changed = [
        f"trial {number} ran again"
        for number in before
        if number in after and after[number] != before[number]
    ]
    return lost + changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, torment, tell."""
    parser = argparse.ArgumentParser(prog="python -m chaos.kill_tuning", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="python -m examples.shapes DIR draws some")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder).resolve()
        command = tuning_command(options.data, output, trials=options.trials)
        verdict = torment(command, output, kills=options.kills, seed=options.seed)
    if verdict.trials != options.trials:
        verdict.faults.append(f"{verdict.trials} trials ended, not {options.trials}")
    summary = {
        "kills": verdict.kills,
        "trials": verdict.trials,
        "faults": verdict.faults,
        "seed": options.seed,
    }
    print(json.dumps({"passed": not verdict.faults, **summary}))
    return 1 if verdict.faults else 0


def tuning_command(data: Path, output: Path, *, trials: int) -> list[str]:
    """A search of small, quick trials."""
    settings = ("epochs=2", "image_size=32", "resize=36", "precision=fp32", "doctor=off")
    return [
        *(sys.executable, "-m", "local", "tune", "recipes/shapes.toml"),
        *("--data", str(data.resolve()), "--output", str(output)),
        *("--max-jobs", str(trials), "--max-parallel-jobs", "2"),
        *(f"--set={setting}" for setting in settings),
    ]


if __name__ == "__main__":
    sys.exit(main())
