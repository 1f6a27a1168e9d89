"""code/inference.py: run as SageMaker's toolkit would, and only where the operator says so."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from artifact.bundle import BundleError, read_bundle, write_manifest
from artifact.signature import PublicKey
from serving.errors import CodeError
from serving.handler import Predictor, model_fn, respond
from serving.messages import Query
from serving.overrides import OverriddenPredictor, read_overrides
from tests.bundles import encode_picture

PNG = encode_picture("PNG")
ALL_STAGES = """
import json, os
def model_fn(model_dir):
    return {"files": sorted(os.listdir(model_dir))}
def input_fn(request_body, content_type):
    return [type(request_body).__name__, content_type, len(request_body)]
def predict_fn(data, model):
    return {"data": data, "model": model["files"]}
def output_fn(prediction, accept):
    return json.dumps(prediction | {"accept": accept})
"""


@pytest.fixture
def model_dir(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "model")


def write_code(model_dir: Path, source: str) -> Path:
    (model_dir / "code").mkdir()
    (model_dir / "code/inference.py").write_text(source)
    return model_dir


def test_code_is_ignored_with_one_log_line_unless_it_is_allowed(
    model_dir: Path, predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    write_code(model_dir, "raise SystemExit('it ran')")

    with caplog.at_level(logging.INFO):
        served = model_fn(model_dir)

    assert respond(Query(PNG), served) == respond(Query(PNG), predictor)
    assert [record.getMessage() for record in caplog.records] == [
        "event=code_ignored file=code/inference.py reason=KENNEL_ALLOW_CODE is not 1"
    ]


def test_bundle_without_code_starts_as_ever_where_code_is_allowed(model_dir: Path) -> None:
    assert not isinstance(model_fn(model_dir, allow_code=True), OverriddenPredictor)


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [("application/json", "str"), ("text/csv", "str"), ("image/png", "bytes"), (None, "bytes")],
)
def test_all_four_stages_run_in_the_toolkits_order_with_its_arguments(
    content_type: str | None, kind: str, model_dir: Path
) -> None:
    served = model_fn(write_code(model_dir, ALL_STAGES), allow_code=True)

    answer = respond(Query(b"four", content_type, "text/plain"), served)

    told = json.loads(answer.body)
    assert (answer.status, answer.headers) == (200, {"Content-Type": "text/plain"})
    assert told["data"] == [kind, content_type, 4]
    assert "manifest.json" in told["model"]
    assert told["accept"] == "text/plain"
    assert not list(model_dir.rglob("__pycache__"))


@pytest.mark.parametrize("accept", [None, "*/*"])
def test_missing_accept_is_json_as_in_the_toolkit(accept: str | None, model_dir: Path) -> None:
    served = model_fn(write_code(model_dir, ALL_STAGES), allow_code=True)

    assert json.loads(respond(Query(b"x", None, accept), served).body)["accept"] == "application/json"


def test_functions_may_take_the_toolkits_context(model_dir: Path) -> None:
    source = """
def output_fn(prediction, accept, context):
    assert context is None
    return b"with context", "text/plain"
"""
    answer = respond(Query(PNG), model_fn(write_code(model_dir, source), allow_code=True))

    assert (answer.body, answer.headers["Content-Type"]) == (b"with context", "text/plain")


def test_missing_stages_are_kennels_own(model_dir: Path, predictor: Predictor) -> None:
    source = "def predict_fn(data, model):\n    return model.predict(data[:, ::-1].copy()[:, ::-1].copy())\n"
    served = model_fn(write_code(model_dir, source), allow_code=True)

    assert respond(Query(PNG, accept="application/json; top=2"), served) == respond(
        Query(PNG, accept="application/json; top=2"), predictor
    )
    assert served.precision == "fp32"


def test_code_may_import_the_modules_beside_it(model_dir: Path) -> None:
    write_code(model_dir, "from neighbour_of_inference import output_fn\n")
    (model_dir / "code/neighbour_of_inference.py").write_text(
        "def output_fn(prediction, accept):\n    return 'me'\n"
    )

    assert respond(Query(PNG), model_fn(model_dir, allow_code=True)).body == b"me"


@pytest.mark.parametrize("result", ["None", "7", "('text', 5)"])
def test_failing_code_is_the_servers_fault_and_does_not_reach_the_client(
    result: str, model_dir: Path
) -> None:
    source = f"def output_fn(prediction, accept):\n    return {result}\n"

    answer = respond(Query(PNG), model_fn(write_code(model_dir, source), allow_code=True))

    assert answer.status == 500
    assert b"output_fn" not in answer.body


def test_bad_picture_before_the_artifacts_own_stage_is_the_clients_fault(model_dir: Path) -> None:
    served = model_fn(write_code(model_dir, "def predict_fn(data, model):\n    return 1\n"), allow_code=True)

    assert respond(Query(b"text"), served).status == 400


def test_body_that_is_not_utf8_is_the_clients_fault(model_dir: Path) -> None:
    served = model_fn(write_code(model_dir, ALL_STAGES), allow_code=True)

    assert respond(Query(b"\xff", "application/json"), served).status == 400


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        pytest.param("def (", "cannot be imported", id="syntax"),
        pytest.param("import no_such_module", "No module named 'no_such_module'", id="missing_module"),
        pytest.param("1 / 0", "ZeroDivisionError", id="fails"),
        pytest.param("def input_fn(body): ...", "input_fn must take 2 arguments", id="signature"),
        pytest.param("model_fn = 3", "model_fn must take 1 arguments", id="not_a_function"),
        pytest.param(
            "def transform_fn(a, b, c, d): ...", "transform_fn, which is not supported", id="transform"
        ),
        pytest.param("def model_fn(model_dir):\n    return 1 / 0", "model_fn of .* failed", id="model_fn"),
    ],
)
def test_code_that_cannot_be_used_ends_the_server_with_a_sentence(
    source: str, sentence: str, model_dir: Path
) -> None:
    with pytest.raises(CodeError, match=sentence):
        model_fn(write_code(model_dir, source), allow_code=True)


def test_listed_code_must_have_its_checksum(model_dir: Path) -> None:
    write_manifest(write_code(model_dir, ALL_STAGES), read_bundle(model_dir).manifest)
    (model_dir / "code/inference.py").write_text(ALL_STAGES + "\n")

    with pytest.raises(BundleError, match="does not have the checksum"):
        model_fn(model_dir, allow_code=True)


def test_code_that_was_added_to_a_signed_artifact_is_refused(model_dir: Path) -> None:
    bundle = read_bundle(write_code(model_dir, ALL_STAGES))

    with pytest.raises(BundleError, match="not in the signed manifest"):
        read_overrides(bundle, allow_code=True, is_signed=True)


def test_unsigned_bundle_is_refused_where_a_key_is_configured(model_dir: Path) -> None:
    with pytest.raises(BundleError, match="KENNEL_PUBLIC_KEY"):
        model_fn(model_dir, public_key=PublicKey(bytes(8), bytes(32)))
