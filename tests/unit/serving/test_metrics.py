"""Metrics, in real processes: prometheus_client chooses how it counts when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.platform import REPOSITORY
from serving.metrics_files import FILE_BYTES

FRONT = """
import sys, time
from serving.metrics_files import prepare_process
print(prepare_process(), flush=True)
from serving.metrics import Metrics, Model

metrics = Metrics()
metrics.describe_model(Model("cnn", "fp32", "openvino", "2", "today"), {"brightness": (400, 400)})
metrics.in_flight += 2
metrics.queue_depth = 3
metrics.restarts.inc()
for status in (200, 200, 503):
    metrics.count_request("/invocations", status)
metrics.count_request("/wp-admin.php", 404)
metrics.record([("decode", 0.003), ("infer", 0.02)], [4], [(int(sys.argv[1]),)] * 300)
if sys.argv[2] == "wait":
    metrics.publish()
print("counted", flush=True)
if sys.argv[2] == "show":
    print(metrics.render()[0].decode())
else:
    time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def start_front(chosen: int, *, then: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FRONT, str(chosen), then]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def show_front(chosen: int) -> dict[str, float]:
    """What a front that counted, and looked at /metrics then, saw there."""
    text = start_front(chosen, then="show").communicate(timeout=30)[0]
    lines = (line for line in text.splitlines() if line.startswith("kennel_"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.fixture
def other_front(directory: Path) -> Iterator[subprocess.Popen[str]]:
    process = start_front(1, then="wait")
    assert process.stdout
    assert [process.stdout.readline() for _ in range(2)] == ["True\n", "counted\n"]
    yield process
    process.kill()
    process.communicate()


def test_one_process_alone_tells_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)

    seen = show_front(0)

    assert seen['kennel_requests_total{route="/invocations",status="200"}'] == 2
    assert seen['kennel_requests_total{route="other",status="404"}'] == 1
    assert seen['kennel_stage_seconds_bucket{le="0.004",stage="decode"}'] == 1
    assert seen["kennel_batch_size_sum"] == 4
    assert seen["kennel_drift_alert"] == 1


def test_processes_are_added_up(other_front: subprocess.Popen[str]) -> None:
    seen = show_front(0)

    assert seen['kennel_requests_total{route="/invocations",status="200"}'] == 4
    assert seen['kennel_requests_total{route="/invocations",status="503"}'] == 2
    assert seen["kennel_in_flight"] == 4
    assert seen["kennel_queue_depth"] == 6
    assert seen["kennel_inference_restarts_total"] == 2
    assert seen['kennel_stage_seconds_count{stage="infer"}'] == 2
    info = 'architecture="cnn",created="today",engine="openvino",num_classes="2",precision="fp32"'
    assert seen[f"kennel_model_info{{{info}}}"] == 1


def test_windows_of_two_processes_give_one_index(other_front: subprocess.Popen[str]) -> None:
    seen = show_front(0)

    assert seen['kennel_drift_window{bin="0",signal="brightness"}'] == 300
    assert seen['kennel_drift_window{bin="1",signal="brightness"}'] == 300
    assert seen['kennel_drift_psi{signal="brightness"}'] == 0
    assert seen["kennel_drift_alert"] == 0


def test_killed_process_keeps_its_counters_and_loses_its_gauges(
    other_front: subprocess.Popen[str],
) -> None:
    from serving.metrics_files import forget_process

    other_front.kill()
    other_front.wait()
    forget_process(other_front.pid)

    seen = show_front(0)

    assert seen['kennel_requests_total{route="/invocations",status="200"}'] == 4
    assert seen['kennel_stage_seconds_count{stage="infer"}'] == 2
    assert seen["kennel_in_flight"] == 2
    assert seen["kennel_drift_alert"] == 1


def test_files_have_their_blocks_so_that_a_full_disk_kills_nobody(
    directory: Path, other_front: subprocess.Popen[str]
) -> None:
    files = list(directory.glob(f"*_{other_front.pid}.db"))

    assert {file.name.split("_")[0] for file in files} == {"counter", "gauge", "histogram"}
    for file in files:
        assert file.stat().st_size == FILE_BYTES  # none had to grow, which would make it sparse
        assert 512 * file.stat().st_blocks >= FILE_BYTES


def test_process_that_finds_the_disk_full_counts_in_memory(
    directory: Path, other_front: subprocess.Popen[str]
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    command = [sys.executable, "-c", limit + ignore + FRONT, "0", "show"]

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert done.stdout.startswith("False\n")
    assert "event=metrics_in_memory" in done.stderr
    assert 'kennel_requests_total{route="/invocations",status="200"} 2.0' in done.stdout
    assert len(list(directory.iterdir())) == 4  # the other front's


def test_one_process_speaks_for_all_and_another_after_its_death(directory: Path) -> None:
    code = (
        "import time; from serving.metrics_files import is_first_process; "
        "print(is_first_process(), flush=True); time.sleep(60)"
    )

    def ask() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        return process, process.stdout.readline().strip()

    first, first_says = ask()
    second, second_says = ask()
    first.kill()
    first.communicate()
    third, third_says = ask()
    for process in (second, third):
        process.kill()
        process.communicate()

    assert (first_says, second_says, third_says) == ("True", "False", "True")


def test_master_makes_a_fresh_folder_and_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.metrics_files import make_directory, remove_directory

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # so that it is put back
    directory = make_directory()
    assert directory is not None

    assert list(directory.iterdir()) == []
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(directory)
    remove_directory(directory)
    assert not directory.exists()


def test_side_that_answers_http_needs_neither_numpy_nor_pillow() -> None:
    code = (
        "import sys, serving.metrics, serving.emf, serving.drift, serving.logs, serving.metrics_files; "
        "print(*{'numpy', 'PIL', 'openvino'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)

    assert (done.stdout.strip(), done.returncode) == ("", 0)


def test_side_that_predicts_needs_no_metrics_library() -> None:
    code = "import sys, serving.telemetry; print('prometheus_client' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)

    assert done.stdout.strip() == "False"


def test_what_was_noted_is_counted_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import gevent

    import serving.metrics
    from serving.wsgi import keep_published

    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setattr(serving.metrics, "PUBLISH_SECONDS", 0.01)
    metrics = serving.metrics.Metrics()
    metrics.count_request("/ping", 200)
    noted = [sample.value for family in metrics.requests.collect() for sample in family.samples]

    publishing = gevent.spawn(keep_published, metrics)
    gevent.sleep(0.1)
    publishing.kill()

    counted = {
        sample.name: sample.value for family in metrics.requests.collect() for sample in family.samples
    }
    assert noted == []
    assert counted["kennel_requests_total"] == 1
