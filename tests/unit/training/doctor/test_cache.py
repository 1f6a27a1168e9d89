"""What is remembered between runs, and that no state of the cache stops one."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from training.doctor.cache import CACHE_VARIABLE, FLUSH_ROWS, Cache, default_cache_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "doctor.sqlite3"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "1.jpg"
    path.write_bytes(b"picture")
    return path


def test_what_is_kept_is_found_in_the_next_run(path: Path, file: Path) -> None:
    with Cache(path, settle_seconds=0.0) as cache:
        cache.keep_checksum(file, file.stat(), "abc")
        cache.keep_facts("abc", "1", "facts")

    with Cache(path) as cache:
        assert cache.find_checksum(file, file.stat()) == "abc"
        assert cache.find_facts("abc", "1") == "facts"


def test_another_version_of_the_code_finds_nothing_and_replaces(path: Path) -> None:
    with Cache(path) as cache:
        cache.keep_facts("abc", "1", "old")
    with Cache(path) as cache:
        assert cache.find_facts("abc", "2") is None
        cache.keep_facts("abc", "2", "new")

    with Cache(path) as cache:
        assert (cache.find_facts("abc", "1"), cache.find_facts("abc", "2")) == (None, "new")


def test_file_written_moments_ago_is_not_known_by_its_stat(path: Path, file: Path) -> None:
    with Cache(path, settle_seconds=60.0) as cache:
        cache.keep_checksum(file, file.stat(), "abc")

    with Cache(path) as cache:
        assert cache.find_checksum(file, file.stat()) is None


def test_changed_file_is_not_known(path: Path, file: Path) -> None:
    with Cache(path, settle_seconds=0.0) as cache:
        cache.keep_checksum(file, file.stat(), "abc")
    status = file.stat()
    file.write_bytes(b"PICTURE")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    with Cache(path) as cache:
        assert cache.find_checksum(file, file.stat()) is None


def test_name_that_is_not_utf8_is_kept(path: Path, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    file.write_bytes(b"picture")

    with Cache(path, settle_seconds=0.0) as cache:
        cache.keep_checksum(file, file.stat(), "abc")
    with Cache(path) as cache:
        assert cache.find_checksum(file, file.stat()) == "abc"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"this is not a database, however long one looks at it" * 100, id="not a database"),
        pytest.param(b"SQLite format 3\x00" + b"\xff" * 5000, id="a broken header"),
    ],
)
def test_broken_cache_is_begun_anew_with_a_warning(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with caplog.at_level(logging.WARNING), Cache(path) as cache:
        cache.keep_facts("abc", "1", "facts")

    assert "begun anew" in caplog.text
    with Cache(path) as cache:
        assert cache.find_facts("abc", "1") == "facts"


def test_cache_that_breaks_inside_costs_a_warning_and_is_removed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Cache(path) as cache:
        for number in range(3000):
            cache.keep_facts(f"{number:064d}", "1", "facts" * 50)
    pages = bytearray(path.read_bytes())
    pages[4096 * 10 :] = b"\xff" * (len(pages) - 4096 * 10)  # the first pages hold the tables' roots
    path.write_bytes(pages)

    with caplog.at_level(logging.WARNING), Cache(path) as cache:
        assert [cache.find_facts(f"{number:064d}", "1") for number in range(0, 3000, 100)] == [None] * 30

    assert "is not used" in caplog.text
    assert not path.exists()


def test_cache_where_none_can_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")

    with caplog.at_level(logging.WARNING), Cache(tmp_path / "file" / "doctor.sqlite3") as cache:
        cache.keep_facts("abc", "1", "facts")
        assert cache.find_facts("abc", "1") is None

    assert "is not used" in caplog.text


def test_another_programs_tables_are_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE file (name TEXT)")
    connection.close()

    with caplog.at_level(logging.WARNING), Cache(path) as cache:
        cache.find_checksum(path, path.stat())

    assert "is not used" in caplog.text
    assert path.exists()


def test_killed_run_keeps_what_it_had_written(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from training.doctor.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        f"for number in range({FLUSH_ROWS} + 10): cache.keep_facts(str(number), '1', 'facts')\n"
        "os.kill(os.getpid(), 9)"
    )

    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)

    assert done.returncode == -9
    with Cache(path) as cache:
        assert cache.find_facts("0", "1") == "facts"
        assert cache.find_facts(str(FLUSH_ROWS + 5), "1") is None


def test_threads_and_runs_share_one_cache(path: Path) -> None:
    def keep(start: int) -> None:
        with Cache(path) as cache, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: cache.keep_facts(f"{n}", "1", f"{n}"), range(start, start + 1000)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(keep, (0, 1000)))

    with Cache(path) as cache:
        assert [cache.find_facts(f"{n}", "1") for n in range(2000)] == [f"{n}" for n in range(2000)]


def test_closed_cache_knows_nothing(path: Path) -> None:
    cache = Cache(path)
    cache.close()
    cache.keep_facts("abc", "1", "facts")

    assert cache.find_facts("abc", "1") is None


def test_environment_says_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert default_cache_path() == tmp_path / "doctor.sqlite3"

    monkeypatch.delenv(CACHE_VARIABLE)
    assert default_cache_path() == Path.home() / ".cache" / "kennel" / "doctor.sqlite3"


def test_settled_file_is_known_after_its_clock_has_ticked(path: Path, file: Path) -> None:
    time.sleep(0.06)

    with Cache(path, settle_seconds=0.05) as cache:
        cache.keep_checksum(file, file.stat(), "abc")
    with Cache(path) as cache:
        assert cache.find_checksum(file, file.stat()) == "abc"
