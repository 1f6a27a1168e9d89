"""Faults injected into a transform job: in the end every good object has one .out, every bad one a reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.platform import REPOSITORY, LocalError
from local.transform_job import run_transform_job
from tests.bundles import encode_picture, make_tiny_bundle
from tests.transform_jobs import Workplace, start_reference
from tests.waiting import wait_until

JOB = """
import sys
from pathlib import Path
from typing import Any
from tests.transform_jobs import Workplace
Workplace(Path(sys.argv[1])).run(MaxConcurrentTransforms=2)
"""


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB; only root can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a small tmpfs cannot be mounted here (that needs root)")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_one_percent_of_corrupt_images_spoils_only_itself(tmp_path: Path) -> None:
    place, pictures = Workplace(tmp_path), [encode_picture("JPEG", seed=seed) for seed in range(5)]
    files = {f"{number % 3}/{number}.jpg": pictures[number % 5] for number in range(200)}
    corrupt = {"1/100.jpg": pictures[0][:300], "2/50.jpg": b"not an image"}
    place.write(files | corrupt)

    result = run_transform_job(
        make_tiny_bundle(tmp_path / "model"), input_dir=place.input, output_dir=place.output
    )

    assert result.failed.keys() == corrupt.keys()
    assert all(reason.startswith("400") for reason in result.failed.values())
    assert place.answers().keys() == {f"{key}.out" for key in files.keys() - corrupt.keys()}


def test_burst_of_5xx_and_slow_answers_cost_no_object(workplace: Workplace) -> None:
    workplace.write({str(number): b"%d" % number for number in range(20)})
    workplace.write({"5": b"busy", "6": b"busy 2", "7": b"slow", "8": b"drop"})

    result = workplace.run(MaxConcurrentTransforms=4)

    assert result.status == "Completed"
    assert len(workplace.answers()) == 20
    assert Counter(workplace.bodies()) >= Counter({"busy": 3, "busy 2": 3, "drop": 2, "slow": 1})


def test_server_that_ends_fails_the_job_and_the_rest_goes_on_later(workplace: Workplace) -> None:
    workplace.write({f"{number:02}": b"%d" % number for number in range(20)} | {"10": b"die"})

    with pytest.raises(LocalError, match=r"has ended .*start the same job again"):
        workplace.run()

    kept, before = workplace.answers(), len(workplace.requests())
    assert kept.keys() == {f"{number:02}.out" for number in range(10)}
    assert json.loads((workplace.output / "transform.json").read_text())["TransformJobStatus"] == "InProgress"

    workplace.write({"10": b"10"})
    result = workplace.run()

    again = [request["body"] for request in workplace.requests()[before:]]
    assert result.status == "Completed"
    assert again == [str(number) for number in range(10, 20)]
    assert len(workplace.answers()) == 20 and workplace.answers().items() >= kept.items()


def test_killed_job_continues_without_repeating_what_is_finished(workplace: Workplace) -> None:
    workplace.write({f"{number:02}": b"wait %d" % number for number in range(24)})
    job = subprocess.Popen([sys.executable, "-c", JOB, str(workplace.root)], cwd=REPOSITORY)
    wait_until(lambda: len(workplace.answers()) >= 6)
    job.kill()
    job.wait()
    time.sleep(0.3)  # for what its server, an orphan now, still does
    kept, before = workplace.answers(), workplace.requests()

    result = workplace.run(MaxConcurrentTransforms=2)

    again = {request["body"] for request in workplace.requests()[len(before) :]}
    finished = {answer.decode().strip("<>") for answer in kept.values()}
    assert 6 <= len(kept) < 24 and result.status == "Completed"
    assert again.isdisjoint(finished) and len(workplace.answers()) == 24
    assert len(workplace.requests()) - 24 <= 2  # only what was under way comes twice
    for pid in {int(request["pid"]) for request in before}:
        os.kill(pid, signal.SIGKILL)


def test_half_written_output_never_counts(workplace: Workplace) -> None:
    workplace.write({"a": b"r1\nr2\ndie\n"})
    lines: dict[str, Any] = {"SplitType": "Line", "BatchStrategy": "SingleRecord"}

    with pytest.raises(LocalError, match="has ended"):
        workplace.run(**lines)
    assert workplace.answers() == {}

    workplace.write({"a": b"r1\nr2\nr3\n"})
    workplace.run(**lines)
    assert workplace.answers() == {"a.out": b"<r1\n><r2\n><r3\n>"}


def test_full_disk_stops_the_job_which_goes_on_when_there_is_room(
    workplace: Workplace, small_disk: Path
) -> None:
    workplace.write({f"{number:02}": b"%02d" % number + b"x" * 8000 for number in range(12)})
    output = small_disk / "out"

    with pytest.raises(LocalError, match="No space left on device"):
        workplace.run(S3OutputPath=str(output))
    kept = {path.name for path in output.glob("*.out")}
    before = len(workplace.requests())
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    result = workplace.run(S3OutputPath=str(output))

    again = {request["body"][:2] + ".out" for request in workplace.requests()[before:]}
    assert 0 < len(kept) < 12 and result.status == "Completed"
    assert again.isdisjoint(kept)
    assert {path.stat().st_size for path in output.glob("*.out")} == {8004}
    assert len(list(output.glob("*.out"))) == 12


def test_only_failed_objects_are_sent_again_with_retry_failed(workplace: Workplace) -> None:
    workplace.write({"a": b"1", "b": b"bad", "c": b"bad too", "d": b"4"})
    workplace.run()
    workplace.write({"b": b"2"})

    unasked = workplace.run()
    again = workplace.run(retry_failed=True)

    assert unasked.failed.keys() == {"b", "c"}
    assert again.failed.keys() == {"c"} and again.num_finished == 3
    assert Counter(workplace.bodies()) == Counter({"1": 1, "4": 1, "2": 1, "bad": 1, "bad too": 2})
    assert workplace.answers().keys() == {"a.out", "b.out", "d.out"}


def test_completed_job_begins_anew(workplace: Workplace) -> None:
    workplace.write({"a": b"1", "b": b"2"})
    workplace.run()
    (workplace.input / "b").unlink()

    workplace.run()

    assert workplace.answers().keys() == {"a.out"}
    assert workplace.bodies() == ["1", "1", "2"]


def test_object_changed_since_its_answer_is_sent_again(workplace: Workplace) -> None:
    workplace.write({"a": b"1", "b": b"2", "c": b"bad"})
    workplace.run()
    workplace.write({"a": b"new"})

    workplace.run()

    assert workplace.answers() == {"a.out": b"<new>", "b.out": b"<2>"}


def test_another_request_does_not_continue_an_unfinished_job(workplace: Workplace) -> None:
    workplace.write({"a": b"1", "b": b"die"})
    with pytest.raises(LocalError, match="has ended"):
        workplace.run()
    workplace.write({"b": b"2"})

    with pytest.raises(LocalError, match=r"unfinished transform job with another content_type.*--fresh"):
        workplace.run(ContentType="image/png")
    result = workplace.run(ContentType="image/png", fresh=True)

    assert result.status == "Completed" and workplace.bodies().count("1") == 2


def test_retry_without_a_failed_job_is_refused(workplace: Workplace) -> None:
    workplace.write({"a": b"1"})

    with pytest.raises(LocalError, match="no failed transform job"):
        workplace.run(retry_failed=True)


def test_folder_of_a_running_job_is_not_shared(workplace: Workplace) -> None:
    workplace.write({str(number): b"wait %d" % number for number in range(30)})
    with subprocess.Popen([sys.executable, "-c", JOB, str(workplace.root)], cwd=REPOSITORY) as job:
        wait_until(lambda: len(workplace.answers()) >= 1)

        with pytest.raises(LocalError, match="still running"):
            workplace.run()

    assert job.returncode == 0


def test_server_nobody_started_is_named(tmp_path: Path) -> None:
    from local.transform_driver import running_server

    with start_reference(tmp_path / "log", {}) as address, running_server(f"http://127.0.0.1:{address.port}"):
        pass
    with (
        pytest.raises(LocalError, match="cannot be reached"),
        running_server(f"http://127.0.0.1:{address.port}"),
    ):
        pass
