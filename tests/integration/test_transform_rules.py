"""What the documentation of Batch Transform says, rule by rule, each against a real server process.

Sources: the developer guide's pages your-algorithms-batch-code, batch-transform, batch-transform-errors and
batch-transform-data-processing, and the API reference of CreateTransformJob.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local.splitting import RECORDIO_MAGIC
from tests.transform_jobs import CSV, LINES, MEBIBYTE, ROWS, SINGLE, Workplace, latin

OBJECTS = b'{"id":7,"x":1}\n{"id":8,"x":2}\n'
BIG = b"a" * (MEBIBYTE // 2 - 1) + b"\n"  # two of them fill a mebibyte exactly


def recordio(*records: bytes) -> bytes:
    """MXNet's frame around each."""
    return b"".join(
        struct.pack("<II", RECORDIO_MAGIC, len(record)) + record + bytes(-len(record) % 4)
        for record in records
    )


def tfrecord(*records: bytes) -> bytes:
    """TensorFlow's frame around each, with checksums nobody looks at."""
    return b"".join(struct.pack("<QI", len(record), 1) + record + struct.pack("<I", 2) for record in records)


def sound_object(fields: Mapping[str, Any]) -> bytes:
    """One that a job with these fields can transform."""
    by_split = {"RecordIO": recordio(b"r"), "TFRecord": tfrecord(b"r"), "Line": b"r\n"}
    by_type = {"text/csv": ROWS, "application/jsonlines": OBJECTS}
    plain = by_type.get(fields.get("ContentType", ""), by_split.get(fields.get("SplitType", ""), b"r"))
    return gzip.compress(plain) if "CompressionType" in fields else plain


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.mark.parametrize(
    ("files", "fields", "bodies"),
    [
        pytest.param({"1.jpg": b"one\ntwo\n"}, {}, [b"one\ntwo\n"], id="None sends the whole object"),
        pytest.param({"a": b"x", "b/c": b"y"}, {}, [b"x", b"y"], id="everything below a prefix is sent"),
        pytest.param(
            {"_SUCCESS": b"", "notes.csv": b"n"},
            {},
            [b"", b"n"],
            id="marker files and empty objects are sent too",
        ),
        pytest.param({"a": b"x", ".hidden": b"h"}, {}, [b"x"], id="this machine's hidden files are not"),
        pytest.param(
            {"a": b"r1\nr2\n"}, {"SplitType": "Line", **SINGLE}, [b"r1\n", b"r2\n"], id="a line each"
        ),
        pytest.param(
            {"a": b"r1\nr2"},
            {"SplitType": "Line", **SINGLE},
            [b"r1\n", b"r2"],
            id="the last line may lack its end",
        ),
        pytest.param(
            {"a": b"r1\nr2\n"},
            {"SplitType": "Line"},
            [b"r1\nr2\n"],
            id="MultiRecord, the default, fills a request",
        ),
        pytest.param(
            {"a": b"r1\n", "b": b"r2\n"},
            {"SplitType": "Line"},
            [b"r1\n", b"r2\n"],
            id="no request crosses objects",
        ),
        pytest.param(
            {"a": 3 * BIG},
            {"SplitType": "Line", "MaxPayloadInMB": 1},
            [2 * BIG, BIG],
            id="MultiRecord goes up to MaxPayloadInMB exactly",
        ),
        pytest.param(
            {"a": recordio(b"abc", b"defgh")},
            {"SplitType": "RecordIO", **SINGLE},
            [b"abc", b"defgh"],
            id="RecordIO without its frame as single records",
        ),
        pytest.param(
            {"a": recordio(b"abc", b"defgh")},
            {"SplitType": "RecordIO"},
            [recordio(b"abc", b"defgh")],
            id="RecordIO with its frame as many",
        ),
        pytest.param(
            {
                "a": struct.pack("<II", RECORDIO_MAGIC, 1 << 29 | 4)
                + b"abcd"
                + struct.pack("<II", RECORDIO_MAGIC, 3 << 29 | 1)
                + b"e\0\0\0"
            },
            {"SplitType": "RecordIO", **SINGLE},
            [b"abcd" + struct.pack("<I", RECORDIO_MAGIC) + b"e"],
            id="a RecordIO record in parts is one",
        ),
        pytest.param(
            {"a": tfrecord(b"abc", b"de")},
            {"SplitType": "TFRecord", **SINGLE},
            [b"abc", b"de"],
            id="TFRecord without its frame as single records",
        ),
        pytest.param(
            {"a": tfrecord(b"abc", b"de")},
            {"SplitType": "TFRecord"},
            [tfrecord(b"abc", b"de")],
            id="TFRecord with its frame as many",
        ),
        pytest.param(
            {"a.gz": gzip.compress(b"r1\nr2\n")},
            {"SplitType": "Line", "CompressionType": "Gzip", **SINGLE},
            [b"r1\n", b"r2\n"],
            id="Gzip is unpacked before it is split",
        ),
        pytest.param({"a": ROWS}, {**CSV, "InputFilter": "$[1:]"}, [b"2\n4\n6\n"], id="InputFilter on CSV"),
        pytest.param(
            {"a": OBJECTS},
            {**LINES, "InputFilter": "$.x", "ContentType": "application/jsonlines; charset=utf-8"},
            [b"1\n2\n"],
            id="InputFilter on JSON Lines",
        ),
        pytest.param({"a": b""}, {"SplitType": "Line"}, [], id="an empty object has no records"),
    ],
)
def test_container_is_asked(
    workplace: Workplace, files: Mapping[str, bytes], fields: dict[str, Any], bodies: list[bytes]
) -> None:
    workplace.write(files)

    result = workplace.run(**fields)

    assert (result.status, result.num_finished) == (
        "Completed",
        sum(not key.startswith(".") for key in files),
    )
    assert workplace.bodies() == latin(*bodies)


@pytest.mark.parametrize(
    ("files", "fields", "answers"),
    [
        pytest.param(
            {"a/1.jpg": b"x", "2": b"y"},
            {},
            {"a/1.jpg.out": b"<x>", "2.out": b"<y>"},
            id="KEY.out for each object",
        ),
        pytest.param(
            {"a": b"r1\nr2\nr3\n"},
            {"SplitType": "Line", **SINGLE, "MaxConcurrentTransforms": 3},
            {"a.out": b"<r1\n><r2\n><r3\n>"},
            id="answers in the records' order, joined as they are",
        ),
        pytest.param(
            {"a": b"slow1\nr2\nr3\n"},
            {"SplitType": "Line", **SINGLE, "MaxConcurrentTransforms": 3, "AssembleWith": "Line"},
            {"a.out": b"<slow1\n>\n<r2\n>\n<r3\n>\n"},
            id="order is kept when a later answer comes first, and Line ends each",
        ),
        pytest.param(
            {"a.csv": ROWS}, CSV, {"a.csv.out": b"3.0\n7.0\n11.0\n"}, id="Line ends a mini-batch's answer"
        ),
        pytest.param(
            {"a": OBJECTS},
            LINES,
            {"a.out": b'{"n": 2}\n{"n": 2}\n'},
            id="Line adds no empty line to an ended one",
        ),
        pytest.param(
            {"a": b""}, {"SplitType": "Line"}, {"a.out": b""}, id="an empty object has an empty .out"
        ),
        pytest.param(
            {"a": ROWS},
            {**CSV, "JoinSource": "Input"},
            {"a.out": b"1,2,3.0\n3,4,7.0\n5,6,11.0\n"},
            id="a CSV answer is joined as further columns",
        ),
        pytest.param(
            {"a": ROWS},
            {**CSV, "InputFilter": "$[1]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
            {"a.out": b"1,2.0\n3,4.0\n5,6.0\n"},
            id="the whole input is joined, not what the filter left of it",
        ),
        pytest.param(
            {"a": OBJECTS},
            {**LINES, "JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"},
            {"a.out": b'{"id":7,"SageMakerOutput":{"n":2}}\n{"id":8,"SageMakerOutput":{"n":2}}\n'},
            id="JSON Lines are joined under SageMakerOutput",
        ),
        pytest.param(
            {"a": OBJECTS},
            {**LINES, "JoinSource": "Input", "OutputFilter": "$.SageMakerOutput.n"},
            {"a.out": b"2\n2\n"},
            id="OutputFilter sees the joined record",
        ),
        pytest.param(
            {"a": b"[1,2]\n"},
            {**LINES, "JoinSource": "Input"},
            {"a.out": b'{"SageMakerInput":[1,2],"SageMakerOutput":{"n":2}}\n'},
            id="what is no object is joined under SageMakerInput",
        ),
        pytest.param(
            {"a": b'{"id": 7}'},
            {"ContentType": "application/json", "JoinSource": "Input"},
            {"a.out": b'{"id":7,"SageMakerOutput":{"got":{"id":7}}}'},
            id="a JSON document is joined whole",
        ),
        pytest.param(
            {"a": ROWS},
            {**CSV, "OutputFilter": "$[0]"},
            {"a.out": b"3.0\n7.0\n11.0\n"},
            id="OutputFilter alone",
        ),
    ],
)
def test_output_is(
    workplace: Workplace, files: Mapping[str, bytes], fields: dict[str, Any], answers: Mapping[str, bytes]
) -> None:
    workplace.write(files)

    result = workplace.run(**fields)

    assert result.status == "Completed", result.failed
    assert workplace.answers() == answers


@pytest.mark.parametrize(
    ("content", "fields", "reason"),
    [
        pytest.param(b"bad", {}, "400 no bad", id="the container refuses"),
        pytest.param(
            b"boom", {"InvocationsMaxRetries": 1}, "500 no boom", id="the container fails each time"
        ),
        pytest.param(
            b"busy", {"InvocationsMaxRetries": 1}, "503 no busy", id="busy for longer than it is repeated"
        ),
        pytest.param(
            b"slow",
            {"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 0, "MaxPayloadInMB": 7},
            "imed out",
            id="slower than the timeout",
        ),
        pytest.param(
            b"x" * (MEBIBYTE + 1), {"MaxPayloadInMB": 1}, "MaxPayloadInMB", id="an object over the limit"
        ),
        pytest.param(
            b"r1\n" + b"x" * MEBIBYTE + b"\n",
            {"SplitType": "Line", "MaxPayloadInMB": 1},
            "Record 2 has 1048577 bytes",
            id="a record over the limit",
        ),
        pytest.param(
            b"r1\nbad\nr3\n",
            {"SplitType": "Line", **SINGLE},
            "400 no bad",
            id="one bad record fails its object",
        ),
        pytest.param(b"junk" * 3, {"SplitType": "RecordIO"}, "not RecordIO", id="not RecordIO"),
        pytest.param(
            tfrecord(b"abc")[:-1], {"SplitType": "TFRecord"}, "inside a record", id="a cut TFRecord"
        ),
        pytest.param(b"r1\n", {"CompressionType": "Gzip"}, "gzip", id="not gzip"),
        pytest.param(
            b"1,short\n2,3\n",
            {**CSV, "JoinSource": "Input"},
            "2 records got 1",
            id="answers that do not pair",
        ),
        pytest.param(
            b'{"SageMakerOutput": 1}\n',
            {**LINES, "JoinSource": "Input"},
            "reserved",
            id="a reserved attribute",
        ),
        pytest.param(b"{]\n", {**LINES, "InputFilter": "$.x"}, "is not application/jsonlines", id="not JSON"),
        pytest.param(
            b'{"y": 1}\n', {**LINES, "InputFilter": "$.x"}, "$.x names nothing", id="nothing selected"
        ),
    ],
)
def test_failed_object_has_no_output_and_the_others_are_kept(
    workplace: Workplace, content: bytes, fields: dict[str, Any], reason: str
) -> None:
    workplace.write({"a": content, "b": sound_object(fields)})

    result = workplace.run(**fields)

    assert result.status == "Failed"
    assert workplace.answers().keys() == {"b.out"}
    assert reason in result.failed["a"] and len(result.failed) == 1
    (line,) = (workplace.output / "failed.jsonl").read_text().splitlines()
    assert json.loads(line) == {"key": "a", "reason": result.failed["a"]}
