"""Processes that are started, stopped, failing and started again together."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until
from training.launch import count_oom_kills, explain_exit

REPOSITORY = Path(__file__).resolve().parents[3]
TRAPPED = "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done"


def _launch(
    folder: Path, *scripts: str, last_seconds: float = 90.0, restarts: int = 0
) -> subprocess.Popen[str]:
    """In a process of its own, because it takes the signals over. A script's $1 is the attempt."""
    code = (
        "import sys; from pathlib import Path; from training import launch; "
        "folder = Path(sys.argv[1]); launch.LAST_SECONDS = float(sys.argv[2]); "
        "launcher = launch.Launcher("
        "failure_path=folder / 'failure', checkpoint_dir=folder, restarts=int(sys.argv[3])); "
        "sys.exit(launcher.run([['sh', '-c', script] for script in sys.argv[4:]]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(last_seconds), str(restarts), *scripts],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("scripts", "expected", "failure"),
    [
        pytest.param(["exit 0", "sleep 0.5"], 0, "", id="good"),
        pytest.param(["sleep 0.5", "exit 3"], 1, "process 2 of 2 ended with exit code 3", id="one fails"),
        pytest.param(["kill -9 $$", "exec sleep 60"], 1, "process 1 of 2 was killed (SIGKILL)", id="killed"),
        pytest.param(["kill -BUS $$"], 1, "process was killed (SIGBUS): a file mapped into memory", id="bus"),
    ],
)
def test_one_failure_is_the_failure_of_all_and_its_cause_is_named(
    scripts: list[str], expected: int, failure: str, tmp_path: Path
) -> None:
    launched = _launch(tmp_path, *scripts)
    launched.communicate(timeout=30)

    assert launched.returncode == expected
    path = tmp_path / "failure"
    assert failure in path.read_text() if failure else not path.exists()


def test_process_that_outlasts_a_failed_one_is_killed_and_what_that_one_wrote_stands(tmp_path: Path) -> None:
    launched = _launch(
        tmp_path, "exec sleep 600", f"echo reason >{tmp_path}/failure; exit 3", last_seconds=0.5
    )
    launched.communicate(timeout=30)

    assert launched.returncode == 1
    assert (tmp_path / "failure").read_text() == "reason\n"


@pytest.mark.parametrize("kill", ["kill -9 $$", "exit 75"], ids=["killed", "another host is gone"])
def test_killed_process_is_started_again_with_all_others(kill: str, tmp_path: Path) -> None:
    launched = _launch(
        tmp_path, f"echo one; test $1 -ge 2 || {{ sleep 0.2; {kill}; }}", "echo two", restarts=2
    )
    printed, _ = launched.communicate(timeout=30)

    assert launched.returncode == 0
    assert sorted(printed.split()) == ["one"] * 3 + ["two"] * 3
    assert not (tmp_path / "failure").exists()


def test_restarts_come_to_an_end_and_the_first_cause_is_kept(tmp_path: Path) -> None:
    (tmp_path / "step-000000012.pt").touch()
    launched = _launch(tmp_path, "test $1 = 0 && kill -SEGV $$; kill -9 $$", restarts=1)
    launched.communicate(timeout=30)

    failure = (tmp_path / "failure").read_text()
    assert launched.returncode == 1
    assert failure.startswith("The training process was killed (SIGKILL)")
    assert "The checkpoint of step 12 is kept. It was started again 1 times after: The training" in failure
    assert "(SIGSEGV): a fault of the machine" in failure


def test_error_that_would_happen_again_is_not_tried_again(tmp_path: Path) -> None:
    launched = _launch(tmp_path, "echo $1; exit 1", restarts=3)
    printed, _ = launched.communicate(timeout=30)

    assert (launched.returncode, printed) == (1, "0\n")


def test_sigterm_reaches_every_process(tmp_path: Path) -> None:
    launched = _launch(tmp_path, TRAPPED, TRAPPED)
    assert launched.stdout is not None
    assert [launched.stdout.readline() for _ in range(2)] == ["ready\n"] * 2

    launched.send_signal(signal.SIGTERM)
    launched.communicate(timeout=30)

    assert launched.returncode == 0


def test_sigterm_before_a_process_can_do_anything_about_it_is_no_failure(tmp_path: Path) -> None:
    launched = _launch(tmp_path, "echo ready; exec sleep 600", restarts=3)
    assert launched.stdout is not None and launched.stdout.readline() == "ready\n"

    launched.send_signal(signal.SIGTERM)
    launched.communicate(timeout=30)

    assert launched.returncode == 0 and not (tmp_path / "failure").exists()


def test_processes_die_with_the_one_that_sees_to_them(tmp_path: Path) -> None:
    launched = _launch(tmp_path, "echo $$; exec sleep 600")
    assert launched.stdout is not None
    process = int(launched.stdout.readline())

    launched.kill()
    launched.communicate(timeout=30)  # until the last one has closed stdout

    wait_until(lambda: not _is_alive(process))


def _is_alive(process: int) -> bool:
    """Whether it is more than what nobody has reaped yet."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("code", "oom_killed", "sentence"),
    [
        (-signal.SIGKILL, True, "was killed by the kernel (SIGKILL): the memory ran out. Lower batch_size"),
        (-signal.SIGKILL, False, "was killed (SIGKILL): by a person, or by whoever watches"),
        (-signal.SIGSEGV, True, "was killed (SIGSEGV): a fault of the machine or of a library"),
        (7, False, "ended with exit code 7 and gave no reason"),
    ],
)
def test_exit_is_explained(code: int, oom_killed: bool, sentence: str) -> None:
    assert explain_exit(code, oom_killed=oom_killed).startswith(sentence)


def test_process_beside_the_trainer_loads_nothing_heavy() -> None:
    code = "import sys, training.__main__; print(*sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {
                "proc/self/cgroup": "5:memory:/job\n0::/\n",
                "sys/fs/cgroup/memory/job/memory.oom_control": "under_oom 0\noom_kill 2\n",
                "proc/vmstat": "oom_kill 9\n",
            },
            2,
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\noom_kill 3\n",
            },
            3,
            id="version 1, in a container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/job.slice\n",
                "sys/fs/cgroup/job.slice/memory.events": "oom 1\noom_kill 4\n",
                "proc/vmstat": "oom_kill 9\n",
            },
            4,
            id="version 2",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "proc/vmstat": "pgfault 7\noom_kill 9\n"}, 9, id="no group"
        ),
        pytest.param({}, 0, id="nobody tells"),
    ],
)
def test_kills_are_counted_in_the_own_group(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert count_oom_kills(tmp_path) == expected
