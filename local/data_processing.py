"""DataProcessing of a transform job: InputFilter, OutputFilter (JSONPath) and JoinSource, for CSV and JSON.

Rules: the developer guide's page `batch-transform-data-processing`. A filter sees a CSV row as an array.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonpath_ng
from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.parser import parse

from local.platform import LocalError

ROOT = "$"
MOST_FILTER_CHARACTERS = 63
JOINED_INPUT, JOINED_OUTPUT = "SageMakerInput", "SageMakerOutput"  # reserved attributes
JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"
# What the guide lists: root, child by dot or bracket, wildcard, index and slice of an array.
OPERATORS = (
    jsonpath_ng.Root,
    jsonpath_ng.Child,
    jsonpath_ng.Fields,
    jsonpath_ng.Index,
    jsonpath_ng.Slice,
    jsonpath_ng.Wildcard,
)


class ProcessingError(ValueError):
    """A record that cannot be filtered or joined; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataProcessing:
    """The filters' expressions and whether the input is joined; the default changes nothing."""

    input_filter: str = ROOT
    output_filter: str = ROOT
    joins_input: bool = False

    @property
    def is_identity(self) -> bool:
        """Then records need not be parsed at all."""
        return (self.input_filter, self.output_filter, self.joins_input) == (ROOT, ROOT, False)

    def check(self, *, content_type: str | None, accept: str | None, split: str, assemble: str) -> None:
        """Raises LocalError for a job whose data cannot be processed."""
        if self.is_identity:
            return
        kinds = (JSON, JSON_LINES, CSV)
        accept = accept or content_type
        if _kind(content_type) not in kinds or _kind(accept) not in kinds:
            raise LocalError(
                f"DataProcessing works with {', '.join(kinds)}; this job has ContentType={content_type!r} "
                f"and Accept={accept!r}."
            )
        if {_kind(content_type), _kind(accept)} & {CSV, JSON_LINES} and (split, assemble) != ("Line", "Line"):
            raise LocalError(
                f"DataProcessing of lines needs SplitType=Line and AssembleWith=Line; this job has {split} "
                f"and {assemble}."
            )
        if self.joins_input and (_kind(content_type) == CSV) != (_kind(accept) == CSV):
            raise LocalError(f"JoinSource=Input cannot join {_kind(accept)} to {_kind(content_type)}.")


def parse_data_processing(request: Mapping[str, Any]) -> DataProcessing:
    """The request's DataProcessing. Raises LocalError naming the filter that is not allowed."""
    join = request.get("JoinSource", "None")
    if join not in ("None", "Input"):
        raise LocalError(f"JoinSource={join!r} is not allowed; set it to None or Input.")
    filters = {name: request.get(name, ROOT) for name in ("InputFilter", "OutputFilter")}
    for name, expression in filters.items():
        _check_filter(name, expression)
    return DataProcessing(
        input_filter=filters["InputFilter"],
        output_filter=filters["OutputFilter"],
        joins_input=join == "Input",
    )


def filter_input(processing: DataProcessing, record: bytes, content_type: str | None) -> bytes:
    """One record as the container gets it, its line ending kept. Raises ProcessingError."""
    if processing.input_filter == ROOT:
        return record
    kind = _kind(content_type)
    filtered = _select(processing.input_filter, _parse(record, kind))
    return _render(filtered, kind) + (b"\n" if record.endswith(b"\n") else b"")


def process_answer(
    processing: DataProcessing,
    records: Sequence[bytes],
    answer: bytes,
    *,
    content_type: str | None,
    accept: str | None,
) -> bytes:
    """A mini-batch's answer, joined with its original records and filtered. Raises ProcessingError."""
    kind = _kind(accept or content_type)
    if not processing.joins_input and processing.output_filter == ROOT:
        return answer
    answers = [answer] if kind == JSON else answer.splitlines()
    if processing.joins_input and len(answers) != len(records):
        raise ProcessingError(f"{len(records)} records got {len(answers)} answers, so they cannot be joined.")
    values = [_parse(line, kind) for line in answers]
    if processing.joins_input:
        join = _join_rows if kind == CSV else _join_objects
        originals = [_parse(record, _kind(content_type)) for record in records]
        values = [join(original, value) for original, value in zip(originals, values, strict=True)]
    return b"\n".join(_render(_select(processing.output_filter, value), kind) for value in values)


def _join_rows(original: Any, answer: Any) -> Any:
    return [*original, *answer]


def _join_objects(original: Any, answer: Any) -> Any:
    if not isinstance(original, dict):
        return {JOINED_INPUT: original, JOINED_OUTPUT: answer}
    if JOINED_OUTPUT in original:
        raise ProcessingError(
            f"The record has the attribute {JOINED_OUTPUT}, which is reserved for the join."
        )
    return {**original, JOINED_OUTPUT: answer}


def _check_filter(name: str, expression: object) -> None:
    if not isinstance(expression, str) or not 0 < len(expression) <= MOST_FILTER_CHARACTERS:
        raise LocalError(f"{name} must be text of 1 to {MOST_FILTER_CHARACTERS} characters.")
    try:
        path = _read_path(expression) if expression.startswith(ROOT) else None
    except (JSONPathError, ValueError):
        path = None
    if path is None or not _is_supported(path):
        raise LocalError(
            f"{name}={expression!r} is not a JSONPath SageMaker takes; write $ followed by .name, "
            "['name','name'], [0,2], [1:] or *."
        )


def _is_supported(path: Any) -> bool:
    if isinstance(path, jsonpath_ng.Child):
        return _is_supported(path.left) and _is_supported(path.right)
    return isinstance(path, OPERATORS)


def _select(expression: str, value: Any) -> Any:
    """What the path names: itself where it names one thing, an object of several names, else an array."""
    if expression == ROOT:
        return value
    path = _read_path(expression)
    found = path.find(value)
    if not found:
        raise ProcessingError(f"{expression} names nothing in the record.")
    if _names_one(path):
        return found[0].value
    if isinstance(path.right, jsonpath_ng.Fields) and len(path.right.fields) > 1:
        return {str(match.path): match.value for match in found}
    return [match.value for match in found]


@lru_cache
def _read_path(expression: str) -> Any:
    return parse(expression)


def _names_one(path: Any) -> bool:
    if isinstance(path, jsonpath_ng.Child):
        return _names_one(path.left) and _names_one(path.right)
    if isinstance(path, jsonpath_ng.Fields):
        return len(path.fields) == 1 and path.fields != ("*",)
    if isinstance(path, jsonpath_ng.Index):
        return len(path.indices) == 1
    return isinstance(path, jsonpath_ng.Root)


def _parse(record: bytes, kind: str) -> Any:
    try:
        if kind != CSV:
            return json.loads(record)
        (row,) = csv.reader([record.decode().rstrip("\r\n")], strict=True)
    except (ValueError, csv.Error, RecursionError):
        raise ProcessingError(f"{record[:60]!r} is not {kind}, so it cannot be filtered or joined.") from None
    return row


def _render(value: Any, kind: str) -> bytes:
    if kind != CSV:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(value if isinstance(value, list) else [value])
    return text.getvalue().encode()


def _kind(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()
