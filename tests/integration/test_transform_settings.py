"""What the documentation of Batch Transform says of the job around the objects, rule by rule.

Who asks how often and how many at a time, what the container is told, which objects are meant, what is
refused. Sources as in test_transform_rules.py, which has the objects themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local.platform import LocalError
from local.transform_request import parse_transform_request
from tests.conftest import run_local
from tests.transform_jobs import CSV, MEBIBYTE, ROWS, SINGLE, Workplace, latin, start_reference


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.mark.parametrize(
    ("content", "times"),
    [
        pytest.param(b"bad", 1, id="a 4xx is not repeated"),
        pytest.param(b"boom", 4, id="a 5xx is repeated three times unless set"),
        pytest.param(b"busy", 3, id="until it is answered"),
        pytest.param(b"drop", 2, id="a broken connection is repeated"),
    ],
)
def test_request_is_repeated(workplace: Workplace, content: bytes, times: int) -> None:
    workplace.write({"a": content})

    workplace.run()

    assert len(workplace.requests()) == times


@pytest.mark.parametrize(
    ("fields", "parameters", "concurrent"),
    [
        pytest.param({}, None, 1, id="default 1 where the container has no route"),
        pytest.param({}, '{"MaxConcurrentTransforms": 3}', 3, id="the container's word"),
        pytest.param(
            {"MaxConcurrentTransforms": 2}, '{"MaxConcurrentTransforms": 3}', 2, id="the job's word first"
        ),
        pytest.param(
            {"MaxConcurrentTransforms": 0}, '{"MaxConcurrentTransforms": 3}', 3, id="0 asks the container"
        ),
    ],
)
def test_requests_at_a_time(
    workplace: Workplace, fields: dict[str, Any], parameters: str | None, concurrent: int
) -> None:
    workplace.write({f"wait{number}": b"wait %d" % number for number in range(8)})

    workplace.run(server={"REFERENCE_PARAMETERS": parameters} if parameters else {}, **fields)

    requests = workplace.requests()
    assert max(request["in_flight"] for request in requests) == concurrent
    assert len({request["client"] for request in requests}) == concurrent  # each keeps one connection


@pytest.mark.parametrize(
    ("fields", "parameters", "num_requests"),
    [
        pytest.param({}, '{"BatchStrategy": "SINGLE_RECORD"}', 2, id="the container's strategy"),
        pytest.param(SINGLE, '{"BatchStrategy": "MULTI_RECORD"}', 2, id="the job's strategy first"),
        pytest.param({"MaxPayloadInMB": 6}, '{"MaxPayloadInMB": 1}', 1, id="the job's payload first"),
    ],
)
def test_strategy_and_payload_follow_the_precedence(
    workplace: Workplace, fields: dict[str, Any], parameters: str, num_requests: int
) -> None:
    workplace.write({"a": b"r1" + b"." * MEBIBYTE + b"\n" if "MaxPayloadInMB" in fields else b"r1\nr2\n"})

    result = workplace.run(server={"REFERENCE_PARAMETERS": parameters}, SplitType="Line", **fields)

    assert result.status == "Completed" and len(workplace.requests()) == num_requests


@pytest.mark.parametrize(
    ("fields", "environment"),
    [
        pytest.param({}, {"SAGEMAKER_BATCH": "true"}, id="nothing set, nothing told"),
        pytest.param(
            {
                "MaxPayloadInMB": 2,
                "MaxConcurrentTransforms": 4,
                **SINGLE,
                "Environment": {"MY_SAGEMAKER_X": "1"},
            },
            {
                "SAGEMAKER_BATCH": "true",
                "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2",
                "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "4",
                "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
                "MY_SAGEMAKER_X": "1",
            },
            id="what the job sets, in the container's spelling",
        ),
    ],
)
def test_environment_of_the_container(
    workplace: Workplace, fields: dict[str, Any], environment: dict[str, str]
) -> None:
    workplace.write({"a": b"x"})

    workplace.run(**fields)

    (request,) = workplace.requests()
    request["environment"].pop("SAGEMAKER_BIND_TO_PORT")
    assert request["environment"] == environment


def test_payload_of_0_is_streamed_in_chunks_without_a_limit(workplace: Workplace) -> None:
    workplace.write({"a": b"x" * (7 * MEBIBYTE)})

    result = workplace.run(MaxPayloadInMB=0)

    (request,) = workplace.requests()
    assert result.status == "Completed"
    assert (request["transfer"], len(request["body"])) == ("chunked", 7 * MEBIBYTE)


def test_content_type_and_accept_are_the_jobs_for_every_object(workplace: Workplace) -> None:
    workplace.write({"a.jpg": b"x", "b.txt": b"y"})

    workplace.run(ContentType="image/jpeg", Accept="application/json; top=5")

    sent = {(request["content_type"], request["accept"]) for request in workplace.requests()}
    assert sent == {("image/jpeg", "application/json; top=5")}


def test_manifest_names_the_objects(workplace: Workplace) -> None:
    workplace.write({"set/a/1.jpg": b"x", "set/2.jpg": b"y", "set/3.jpg": b"unlisted"})
    manifest = workplace.input / "manifest.json"
    manifest.write_text(json.dumps([{"prefix": "set/"}, "a/1.jpg", "2.jpg", "absent.jpg"]))

    result = workplace.run(S3DataType="ManifestFile", S3Uri=str(manifest))

    assert workplace.answers() == {"a/1.jpg.out": b"<x>", "2.jpg.out": b"<y>"}
    assert result.failed.keys() == {"absent.jpg"}


def test_prefix_may_be_the_beginning_of_names(workplace: Workplace) -> None:
    workplace.write({"test/1": b"x", "tense": b"y", "other": b"z"})

    workplace.run(S3Uri=str(workplace.input / "te"))

    assert workplace.answers().keys() == {"test/1.out", "tense.out"}


def test_two_instances_share_the_keys_and_give_what_one_gives(workplace: Workplace, tmp_path: Path) -> None:
    files = {f"{number % 3}/{number}.jpg": b"%d" % number for number in range(41)}
    alone = Workplace(tmp_path / "alone")
    for place in (workplace, alone):
        place.write(files)

    alone.run(InstanceCount=1)
    workplace.run(InstanceCount=2)

    shares: dict[int, list[str]] = {}
    for request in workplace.requests():
        shares.setdefault(request["server"], []).append(request["body"])
    first, second = shares.values()
    assert set(first).isdisjoint(second) and abs(len(first) - len(second)) <= 1
    assert sorted(first + second) == latin(*files.values())
    assert workplace.answers() == alone.answers() and len(alone.answers()) == 41


def test_more_instances_than_objects_leave_some_idle(workplace: Workplace) -> None:
    workplace.write({"a": b"x"})

    assert workplace.run(InstanceCount=2).status == "Completed"
    assert workplace.bodies() == ["x"]


@pytest.mark.parametrize(
    ("parameters", "status", "sentence"),
    [
        pytest.param(
            "{“MaxPayloadInMB”: 6}", "200", "is not a JSON object", id="the guide's own curly quotes"
        ),
        pytest.param(
            '{"MaxPayloadInMB": 101}', "200", "MaxPayloadInMB=101 of /execution-parameters", id="over 100"
        ),
        pytest.param('{"MaxConcurrentTransforms": "2"}', "200", "is not a whole number", id="text"),
        pytest.param('{"BatchStrategy": "ALL"}', "200", "BatchStrategy='ALL'", id="unknown strategy"),
        pytest.param('{"MaxConcurrentTransforms": 20}', "200", "20 x MaxPayloadInMB=6 is 120", id="product"),
    ],
)
def test_senseless_execution_parameters_end_the_job(
    workplace: Workplace, parameters: str, status: str, sentence: str
) -> None:
    workplace.write({"a": b"x"})

    with pytest.raises(LocalError, match=sentence):
        workplace.run(server={"REFERENCE_PARAMETERS": parameters, "REFERENCE_STATUS": status})

    assert workplace.requests() == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        pytest.param({"MaxPayloadInMB": 101}, "MaxPayloadInMB=101 of the job", id="payload"),
        pytest.param({"MaxConcurrentTransforms": 21, "MaxPayloadInMB": 5}, "is 105", id="product"),
        pytest.param({"InvocationsTimeoutInSeconds": 0}, "from 1 to 3600", id="timeout too short"),
        pytest.param({"InvocationsTimeoutInSeconds": 3601}, "from 1 to 3600", id="timeout too long"),
        pytest.param({"InvocationsMaxRetries": 4}, "from 0 to 3", id="retries"),
        pytest.param({"InstanceCount": 101}, "from 1 to 100", id="instances"),
        pytest.param({"SplitType": "Word"}, "None or Line or RecordIO or TFRecord", id="split"),
        pytest.param({"AssembleWith": "Zip"}, "None or Line", id="assemble"),
        pytest.param(
            {"BatchStrategy": "MULTI_RECORD"}, "MultiRecord or SingleRecord", id="the other spelling"
        ),
        pytest.param({"S3DataType": "AugmentedManifestFile"}, "S3Prefix or ManifestFile", id="data type"),
        pytest.param({"S3Uri": "s3://bucket/prefix"}, "is on S3", id="S3"),
        pytest.param({"Environment": {str(n): "" for n in range(17)}}, "17 entries", id="environment"),
        pytest.param({"Environment": {"1a": ""}}, "'1a' is no name", id="name of a variable"),
        pytest.param({"Environment": {"A": "x" * 10241}}, "up to 10240", id="value of a variable"),
        pytest.param({"JoinSource": "Output"}, "None or Input", id="join"),
        pytest.param({**CSV, "InputFilter": "$" + ".a" * 32}, "1 to 63 characters", id="long filter"),
        pytest.param({**CSV, "InputFilter": "$..a"}, "is not a JSONPath", id="recursion"),
        pytest.param({**CSV, "InputFilter": "a"}, "is not a JSONPath", id="no root"),
        pytest.param({**CSV, "InputFilter": "$[?(@.a>1)]"}, "is not a JSONPath", id="condition"),
        pytest.param({"JoinSource": "Input"}, "DataProcessing works with", id="images cannot be joined"),
        pytest.param(
            {**CSV, "SplitType": "None", "JoinSource": "Input"}, "needs SplitType=Line", id="whole CSV"
        ),
        pytest.param(
            {**CSV, "Accept": "application/json", "JoinSource": "Input"}, "cannot join", id="CSV and JSON"
        ),
    ],
)
def test_request_outside_the_documented_limits_is_refused(
    workplace: Workplace, fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(LocalError, match=sentence.replace("(", r"\(")):
        parse_transform_request(workplace.request(**fields))


def test_output_inside_the_input_is_refused(workplace: Workplace) -> None:
    with pytest.raises(LocalError, match="lies inside the input"):
        parse_transform_request(workplace.request(S3OutputPath=str(workplace.input / "out")))


def test_command_line_drives_a_server_somebody_else_started(workplace: Workplace) -> None:
    workplace.write({"a.csv": ROWS, "b.csv": b"bad\n"})
    with start_reference(workplace.root / "log", {}) as address:
        done = run_local(
            *("transform", "--url", f"http://127.0.0.1:{address.port}", "--input", str(workplace.input)),
            *("--output", str(workplace.output), "--content-type", "text/csv", "--split-type", "Line"),
            *("--assemble-with", "Line", "--join-source", "Input", "--output-filter", "$[0,-1]"),
            *("--strategy", "SingleRecord", "--max-concurrent", "2"),
        )

    assert (done.returncode, json.loads(done.stdout)) == (1, {"objects": 2, "failed": 1})
    assert workplace.answers() == {"a.csv.out": b"1,3.0\n3,7.0\n5,11.0\n"}
    assert "failed b.csv: " in done.stderr and "--retry-failed" in done.stderr
