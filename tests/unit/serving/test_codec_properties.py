"""Whatever the bytes and headers: an answer or a documented refusal, never a 500."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.answers import encode_many
from serving.errors import BadRequest
from serving.handler import Predictor, respond
from serving.messages import CSV, JSON, JSON_LINES, MULTIPART, NPY, Query
from tests.bundles import encode_picture

HEADS = (
    b"",
    b"\x93NUMPY\x01\x00",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"RIFF",
    b"BM",
    b"II*\0",
    b"P5 ",
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["instances", "b64", "url", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
CONTENT_TYPES = st.sampled_from(
    [
        None,
        "image/png",
        "application/octet-stream",
        NPY,
        JSON,
        JSON_LINES,
        f"{MULTIPART}; boundary=a",
        "text/x",
    ]
) | st.text(max_size=30)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_documented(query: Query, predictor: Predictor) -> None:
    answer = respond(query, predictor)
    assert answer.status in (200, 400, 406, 413, 415, 422)
    if answer.status != 200:
        assert set(json.loads(answer.body)["error"]) == {"code", "message", "hint"}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of broken pictures
@QUICK
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=300), content_type=CONTENT_TYPES)
def test_any_bytes_under_any_content_type(
    head: bytes, tail: bytes, content_type: str | None, predictor: Predictor
) -> None:
    assert_documented(Query(head + tail, content_type), predictor)


@QUICK
@given(value=JSON_VALUES, content_type=st.sampled_from([JSON, JSON_LINES]))
def test_any_json(value: object, content_type: str, predictor: Predictor) -> None:
    assert_documented(Query(json.dumps(value).encode(), content_type), predictor)


@QUICK
@given(text=st.text(max_size=100), content_type=CONTENT_TYPES)
def test_any_headers(text: str, content_type: str | None, predictor: Predictor) -> None:
    assert_documented(Query(encode_picture("PNG"), content_type, text, text), predictor)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of broken pictures
@QUICK
@given(
    place=st.integers(min_value=0),
    value=st.binary(min_size=1, max_size=8),
    kind=st.sampled_from(["PNG", "JPEG"]),
)
def test_any_change_of_a_picture(place: int, value: bytes, kind: str, predictor: Predictor) -> None:
    body = bytearray(encode_picture(kind))
    start = place % len(body)
    body[start : start + len(value)] = value

    assert_documented(Query(bytes(body)), predictor)


@QUICK
@given(
    values=st.lists(
        st.none() | st.lists(st.floats(-50, 0, width=32), min_size=3, max_size=3), min_size=1, max_size=6
    ),
    answer_type=st.sampled_from([JSON, JSON_LINES, CSV]),
)
def test_every_answer_keeps_count_and_order(values: list[list[float] | None], answer_type: str) -> None:
    refused = BadRequest('two\nlines, "quoted"', hint="none")
    rows = [refused if value is None else np.array(value, dtype=np.float32) for value in values]

    body = encode_many(rows, answer_type, ("a", "b", "c"), None).decode()

    if answer_type == CSV:
        lines = csv.reader(io.StringIO(body))
        items = [None if line[0] == "error" else [float(field) for field in line] for line in lines]
    else:
        decoded = json.loads(body) if answer_type == JSON else map(json.loads, body.splitlines())
        items = [item if isinstance(item, list) else None for item in decoded]
    assert items == values
