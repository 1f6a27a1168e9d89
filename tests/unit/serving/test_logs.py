"""One line per event, in JSON or as text, with the ids of the request it is about."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from local.platform import REPOSITORY
from serving.logs import JsonFormatter, TextFormatter, about, read_fields


def record(message: str, *arguments: object, exc_info: bool = False) -> logging.LogRecord:
    return logging.LogRecord(
        "serving.handler", logging.INFO, "", 0, message, arguments, sys.exc_info() if exc_info else None
    )


@pytest.mark.parametrize(
    ("message", "arguments", "fields"),
    [
        pytest.param(
            "event=refused status=%d code=%s",
            (415, "unsupported"),
            {"event": "refused", "status": 415, "code": "unsupported"},
            id="typed",
        ),
        pytest.param("event=failed", (), {"event": "failed"}, id="no arguments"),
        pytest.param("seconds=%.2f x=%s", (1.5, "a b=c"), {"seconds": 1.5, "x": "a b=c"}, id="value with ="),
        pytest.param("Loaded %s in %d ms", ("it", 3), {"message": "Loaded it in 3 ms"}, id="sentence"),
        pytest.param("wrote file=%s in %d s", ("m", 3), {"message": "wrote file=m in 3 s"}, id="half"),
        pytest.param("100%% sure", (), {"message": "100%% sure"}, id="percent"),
        pytest.param("%s", ("a=1 b=2",), {"message": "a=1 b=2"}, id="all in one"),
    ],
)
def test_fields_are_the_templates_own(
    message: str, arguments: tuple[object, ...], fields: dict[str, object]
) -> None:
    assert read_fields(record(message, *arguments)) == fields


def test_json_line_carries_the_ids_and_cannot_be_broken_by_them() -> None:
    with about("r-1", 'evil"\n{"level":"FATAL"}'):
        line = JsonFormatter().format(record("event=refused status=%d inference_id=%s", 400, "forged"))

    content = json.loads(line)
    assert "\n" not in line
    assert content["request_id"] == "r-1"
    assert content["inference_id"].startswith("evil")
    assert content["status"] == 400
    assert (content["level"], content["logger"]) == ("INFO", "serving.handler")
    assert content["time"].endswith("Z")


def test_lines_outside_a_request_have_no_ids() -> None:
    with about("r-1"):
        pass

    assert "request_id" not in json.loads(JsonFormatter().format(record("event=ready")))


def test_ids_are_cut_to_sagemakers_length() -> None:
    with about("r" * 1000, "i" * 1000):
        content = json.loads(JsonFormatter().format(record("event=ready")))

    assert len(content["request_id"]) == len(content["inference_id"]) == 64


def test_text_line_stays_one_line() -> None:
    with about("r-1", "two\nlines"):
        line = TextFormatter("%(message)s").format(record("event=refused status=%d", 400))

    assert line == r"event=refused status=400 request_id='r-1' inference_id='two\nlines'"


def test_traceback_is_part_of_the_json_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = JsonFormatter().format(record("event=failed", exc_info=True))

    assert "ValueError: broken" in json.loads(line)["exception"]
    assert "\n" not in line


@pytest.mark.parametrize(
    ("log_format", "is_json"),
    [
        pytest.param("json", True),
        pytest.param("text", False),
        pytest.param("auto", True, id="auto in a pipe"),
    ],
)
def test_configured_log_goes_to_stderr_from_its_level_on(log_format: str, is_json: bool) -> None:
    code = (
        f"import logging; from serving.logs import configure; configure('WARNING', {log_format!r}); "
        "logging.info('event=quiet'); logging.warning('event=loud status=%d', 503)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    (line,) = done.stderr.splitlines()
    assert done.stdout == ""
    assert "status" in line and line.startswith("{") == is_json
