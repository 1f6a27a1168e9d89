"""The log, one line per event on stderr: key=value for a terminal, JSON for CloudWatch's queries.

Code logs as everywhere in Kennel, `logger.info("event=refused status=%d code=%s", 415, code)`; the JSON line
takes the keys from that text and the values, typed, from its arguments. Never a payload, never a credential.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

JSON_FORMAT, TEXT_FORMAT, AUTO = "json", "text", "auto"
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"  # the caller's own, by which SageMaker joins ground truth
MAX_ID_CHARACTERS = 64  # SageMaker's limit; a client could otherwise fill the log
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_FIELD = re.compile(r"(\w+)=(%(?!%)[-#0-9 +.]*[a-zA-Z]|\S+)")
_PLACEHOLDER = re.compile(r"%(?!%)[-#0-9 +.]*[a-zA-Z]")


class Ids(NamedTuple):
    """Which request a line is about; empty where it is about none."""

    request_id: str = ""
    inference_id: str = ""


_NONE = Ids()
_ids: ContextVar[Ids] = ContextVar("kennel_ids", default=_NONE)


@contextmanager
def about(request_id: str, inference_id: str | None = None) -> Iterator[None]:
    """Lines logged inside carry these."""
    token = _ids.set(Ids(request_id[:MAX_ID_CHARACTERS], (inference_id or "")[:MAX_ID_CHARACTERS]))
    try:
        yield
    finally:
        _ids.reset(token)


def current_ids() -> Ids:
    """To be sent along to the process that predicts, which says `about(*ids)` in turn."""
    return _ids.get()


def configure(level: str, log_format: str = AUTO) -> None:
    """Log to stderr from `level` on; auto is text where stderr is a terminal and JSON in a container."""
    as_json = log_format == JSON_FORMAT or (log_format == AUTO and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)


class TextFormatter(logging.Formatter):
    """As ever, with the ids at the end."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, before any traceback."""
        ids = {name: value for name, value in _ids.get()._asdict().items() if value}
        # repr: an id comes from outside and may hold anything, a line break too
        return " ".join(
            [super().formatMessage(record), *(f"{name}={value!r}" for name, value in ids.items())]
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, the ids, the record's own fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
        }
        line |= {name: value for name, value in _ids.get()._asdict().items() if value}
        line |= {name: value for name, value in read_fields(record).items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def read_fields(record: logging.LogRecord) -> dict[str, Any]:
    """`event=x status=%d` and arguments -> {"event": "x", "status": 415}; other text -> {"message": ...}."""
    template = str(record.msg)
    arguments = record.args if isinstance(record.args, tuple) else ()
    rest = _FIELD.sub("", template)
    if "=" not in template or rest.strip() or len(_PLACEHOLDER.findall(template)) != len(arguments):
        return {"message": record.getMessage()}
    remaining = iter(arguments)
    return {
        name: next(remaining) if value.startswith("%") else value for name, value in _FIELD.findall(template)
    }
