"""Bodies of every content type, through respond(): what comes back, in which order, and whose fault it is."""

from __future__ import annotations

import base64
import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.preprocess import decode_pixels
from serving.handler import Predictor, respond
from serving.messages import Answer, Query
from serving.options import Options
from tests.bundles import draw_picture, encode_picture

PNG, JPEG = encode_picture("PNG", seed=1), encode_picture("JPEG", seed=2)
BROKEN = PNG[:60]
JSON, JSON_LINES, NPY = "application/json", "application/jsonlines", "application/x-npy"


def b64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """multipart/form-data of (Content-Disposition's parameters, content)."""
    pieces = [
        b'--xyz\r\nContent-Disposition: form-data; name="image"'
        + head.encode()
        + b"\r\n\r\n"
        + content
        + b"\r\n"
        for head, content in parts
    ]
    return b"".join(pieces) + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def instances(*values: object) -> bytes:
    return json.dumps({"instances": values}).encode()


def ask(body: bytes, content_type: str | None, predictor: Predictor, accept: str | None = JSON) -> Answer:
    return respond(Query(body, content_type, accept), predictor)


def row(body: bytes, predictor: Predictor) -> list[float]:
    """What one picture alone is answered."""
    alone: list[float] = json.loads(ask(body, "image/png", predictor).body)[0]
    return alone


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(instances(b64(PNG), b64(BROKEN), b64(JPEG)), JSON, id="json"),
        pytest.param(
            instances({"b64": b64(PNG)}, {"b64": b64(BROKEN)}, {"b64": b64(JPEG)}), JSON, id="objects"
        ),
        pytest.param(instances(b64(PNG), "$$$", b64(JPEG)), JSON, id="not_base64"),
        pytest.param(instances(b64(PNG), 7, b64(JPEG)), JSON, id="number"),
        pytest.param(instances(b64(PNG), "", b64(JPEG)), JSON, id="empty"),
        pytest.param(instances(b64(PNG), {"url": "http://a.example/"}, b64(JPEG)), JSON, id="url"),
        pytest.param(f'"{b64(PNG)}"\n{{\n"{b64(JPEG)}"\n'.encode(), JSON_LINES, id="broken_line"),
        pytest.param(f'"{b64(PNG)}"\n\n{{"b64": "{b64(JPEG)}"}}'.encode(), JSON_LINES, id="blank_line"),
        pytest.param(
            *form(('; filename="a"', PNG), ('; filename="b"', BROKEN), ('; filename="c"', JPEG)), id="form"
        ),
    ],
)
def test_one_bad_item_leaves_its_neighbours_alone(
    body: bytes, content_type: str, predictor: Predictor
) -> None:
    answer = ask(body, content_type, predictor)

    first, error, last = json.loads(answer.body)
    assert answer.status == 200
    assert (first, last) == (row(PNG, predictor), row(JPEG, predictor))
    assert set(error["error"]) == {"code", "message", "hint"}


def test_json_lines_are_answered_line_by_line_unless_json_is_asked_for(predictor: Predictor) -> None:
    body = "".join(f"{json.dumps(b64(encode_picture('PNG', seed=seed)))}\n" for seed in range(5)).encode()

    answer = ask(body, JSON_LINES, predictor, accept=None)

    assert answer.headers["Content-Type"] == JSON_LINES
    lines = answer.body.decode().removesuffix("\n").split("\n")
    expected = [row(encode_picture("PNG", seed=seed), predictor) for seed in range(5)]
    assert [json.loads(line) for line in lines] == expected
    assert json.loads(ask(body, JSON_LINES, predictor).body) == expected


def test_csv_is_a_line_a_picture_and_names_the_error_in_its_place(predictor: Predictor) -> None:
    answer = ask(instances(b64(PNG), b64(BROKEN)), JSON, predictor, accept="text/csv")

    first, error = csv.reader(io.StringIO(answer.body.decode()))
    assert [float(value) for value in first] == row(PNG, predictor)
    assert error[:2] == ["error", "unreadable_image"]


def test_npy_answer_has_a_row_of_nan_in_the_place_of_an_error(predictor: Predictor) -> None:
    answer = ask(instances(b64(PNG), b64(BROKEN)), JSON, predictor, accept=NPY)

    rows = np.load(io.BytesIO(answer.body), allow_pickle=False)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0], np.array(row(PNG, predictor), dtype=np.float32))
    assert np.isnan(rows[1]).all()


def test_all_items_bad_is_still_an_npy_answer(predictor: Predictor) -> None:
    answer = ask(instances(b64(BROKEN)), JSON, predictor, accept=NPY)

    assert np.load(io.BytesIO(answer.body), allow_pickle=False).shape == (1, 3)


@pytest.mark.parametrize(
    ("accept", "one", "many"),
    [
        pytest.param("application/json; top=1", '{"predictions": [P]}', '[{"predictions": [P]}]', id="json"),
        pytest.param(
            "application/jsonlines; top=1", '{"predictions": [P]}\n', '{"predictions": [P]}\n', id="jsonlines"
        ),
    ],
)
def test_top_gives_each_picture_what_it_gets_alone(
    accept: str, one: str, many: str, predictor: Predictor
) -> None:
    alone = ask(PNG, "image/png", predictor, accept)
    listed = ask(instances(b64(PNG)), JSON, predictor, accept)

    best = json.dumps(json.loads(alone.body)["predictions"][0])
    assert alone.body.decode() == one.replace("P", best)
    assert listed.body.decode() == many.replace("P", best)


def test_csv_of_top_is_labels_and_probabilities(predictor: Predictor) -> None:
    ((label, probability, second, _),) = csv.reader(
        io.StringIO(ask(PNG, "image/png", predictor, "text/csv; top=2").body.decode())
    )

    assert {label, second} < set(predictor.labels)
    assert 0.0 < float(probability) <= 1.0


def test_top_cannot_go_into_an_array(predictor: Predictor) -> None:
    assert ask(PNG, "image/png", predictor, f"{NPY}; top=2").status == 400


def test_single_object_is_answered_as_one_picture(predictor: Predictor) -> None:
    body = json.dumps({"b64": b64(PNG)}).encode()

    assert ask(body, JSON, predictor) == ask(PNG, "image/png", predictor)


def test_base64_may_be_wrapped(predictor: Predictor) -> None:
    wrapped = base64.encodebytes(PNG).decode()

    assert json.loads(ask(instances(wrapped), JSON, predictor).body) == [row(PNG, predictor)]


def test_form_keeps_the_order_and_skips_plain_fields(predictor: Predictor) -> None:
    body, content_type = form(('; filename="a"', JPEG), ("", b"a comment"), ('; filename="b"', PNG))

    answered = json.loads(ask(body, content_type, predictor).body)

    assert answered == [row(JPEG, predictor), row(PNG, predictor)]


def test_bytes_win_over_the_label(predictor: Predictor) -> None:
    pixels = npy(np.asarray(draw_picture(seed=1)))

    assert ask(JPEG, "image/webp", predictor) == ask(JPEG, "application/octet-stream", predictor)
    assert ask(pixels, "application/octet-stream", predictor) == ask(pixels, NPY, predictor)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        pytest.param(b"", JSON, 400, "unreadable_image", id="empty"),
        pytest.param(b"{", JSON, 400, "bad_request", id="not_json"),
        pytest.param(b"\xff\xfe\xfd", JSON, 400, "bad_request", id="not_text"),
        pytest.param(b"[" * 100_000, JSON, 400, "bad_request", id="nested"),
        pytest.param(b"[" * 9_000, JSON, 400, "bad_request", id="nested_a_little"),
        pytest.param(b"[]", JSON, 400, "bad_request", id="list"),
        pytest.param(b"{}", JSON, 400, "bad_request", id="no_instances"),
        pytest.param(b'{"instances": []}', JSON, 400, "bad_request", id="no_instance"),
        pytest.param(b'{"instances": NaN}', JSON, 400, "bad_request", id="nan"),
        pytest.param(b'{"instances": ' + b"9" * 5000 + b"}", JSON, 400, "bad_request", id="long_number"),
        pytest.param(instances(*[0] * 1001), JSON, 413, "too_many_images", id="too_many"),
        pytest.param(instances(*[0] * 20_000), JSON, 400, "bad_request", id="numbers"),
        pytest.param(b"\n" * 1001, JSON_LINES, 413, "too_many_images", id="too_many_lines"),
        pytest.param(b'{"url": "http://169.254.169.254/"}', JSON, 400, "url_refused", id="url"),
        pytest.param(b"x", "multipart/form-data", 400, "bad_request", id="no_boundary"),
        pytest.param(b"x", "multipart/form-data; boundary=xyz", 400, "bad_request", id="no_form"),
        pytest.param(*form(("", b"x")), 400, "bad_request", id="no_file"),
        pytest.param(*form(*[('; filename="a"', b"x")] * 1001), 413, "too_many_images", id="too_many_parts"),
    ],
)
def test_body_that_is_wrong_as_a_whole_is_refused(
    body: bytes, content_type: str, status: int, code: str, predictor: Predictor
) -> None:
    answer = ask(body, content_type, predictor)

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)


class CountingPredictor:
    """Notes how many pictures each call brings; answers with the real one."""

    concurrency = 1

    def __init__(self, predictor: Predictor, max_batch: int) -> None:
        self.labels, self.preprocess, self.precision = predictor.labels, predictor.preprocess, "fp32"
        self.sizes: list[int] = []
        self._predictor = predictor
        self.max_batch = max_batch

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(pixels))
        return self._predictor.predict(pixels)


@pytest.mark.parametrize(("max_batch", "sizes"), [(1, [1, 1, 1, 1]), (3, [2, 2])])
def test_pictures_are_predicted_in_turn_or_in_batches_of_what_the_engine_takes(
    max_batch: int, sizes: list[int], predictor: Predictor
) -> None:
    counting = CountingPredictor(predictor, max_batch)
    pictures = [PNG, BROKEN, JPEG, JPEG, PNG]

    answered = json.loads(ask(instances(*map(b64, pictures)), JSON, counting).body)

    assert counting.sizes == sizes
    expected = [row(picture, predictor) for picture in (PNG, JPEG, JPEG, PNG)]
    np.testing.assert_allclose([answered[place] for place in (0, 2, 3, 4)], expected, atol=1e-5)
    assert "error" in answered[1]


def test_raw_pixels_are_preprocessed_like_a_file(predictor: Predictor) -> None:
    pixels = np.asarray(draw_picture(seed=1))

    assert ask(npy(pixels), NPY, predictor) == ask(PNG, "image/png", predictor)
    assert json.loads(ask(npy(np.stack([pixels, pixels])), NPY, predictor).body) == [row(PNG, predictor)] * 2
    assert ask(npy(np.asfortranarray(pixels)), NPY, predictor) == ask(PNG, "image/png", predictor)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2"])
def test_normalised_floats_are_answered_as_the_pixels_they_came_from(
    dtype: str, predictor: Predictor
) -> None:
    preprocess = predictor.preprocess
    pixels = decode_pixels(PNG, preprocess)
    normalised = ((pixels / 255.0 - preprocess.mean) / preprocess.std).transpose(2, 0, 1)[np.newaxis]

    answered = json.loads(ask(npy(normalised.astype(dtype)), NPY, predictor).body)

    if dtype == "<f2":  # half floats round pixels
        np.testing.assert_allclose(answered, [row(PNG, predictor)], atol=1e-2)
    else:
        assert answered == [row(PNG, predictor)]


def test_floats_that_were_not_normalised_are_named_in_their_place(predictor: Predictor) -> None:
    raw = np.stack([np.full((3, 32, 32), 200.0), np.zeros((3, 32, 32)), np.full((3, 32, 32), np.nan)])

    first, second, third = json.loads(ask(npy(raw), NPY, predictor).body)

    assert "Normalise 0-1 with mean" in first["error"]["hint"]
    assert len(second) == 3
    assert third["error"]["code"] == "bad_array"


class Hostile:
    """Would run if it were unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Hostile()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(npy(np.zeros((1, 3, 32, 31), dtype=np.float32)), id="other_size"),
        pytest.param(npy(np.zeros((3, 32, 32), dtype=np.float32)), id="floats_without_n"),
        pytest.param(npy(np.zeros((32, 32, 4), dtype=np.uint8)), id="four_channels"),
        pytest.param(npy(np.zeros((32, 32, 3), dtype=np.int8)), id="signed"),
        pytest.param(npy(np.zeros((0, 32, 32, 3), dtype=np.uint8)), id="nothing"),
        pytest.param(npy(np.zeros((1, 3, 32, 32), dtype=np.complex64)), id="complex"),
        pytest.param(npy(np.zeros((8, 8, 3), dtype=np.uint8))[:-1], id="truncated"),
        pytest.param(npy(np.zeros((8, 8, 3), dtype=np.uint8)) + b"x", id="trailing_byte"),
        pytest.param(npy(np.zeros((8, 8, 3), dtype=np.uint8))[:40], id="half_a_header"),
        pytest.param(pickled(), id="pickle"),
        pytest.param(PNG, id="picture"),
        pytest.param(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, id="nested_header"),
        pytest.param(b"\x93NUMPY\x09\x09", id="unknown_version"),
        pytest.param(
            npy(np.zeros((8, 8, 3), dtype=np.uint8))
            .replace(b"(8, 8, 3)", b"(80000000000, 8, 3)")
            .replace(b" " * 10, b"", 1),
            id="promises_terabytes",
        ),
    ],
)
def test_other_array_is_refused_naming_what_is_expected(body: bytes, predictor: Predictor) -> None:
    answer = ask(body, NPY, predictor)

    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (400, "bad_array")
    assert "uint8 (H, W, 3)" in error["hint"] and "(N, 3, 32, 32)" in error["hint"]


def test_raw_pixels_over_the_limit_are_refused(predictor: Predictor) -> None:
    query = Query(npy(np.zeros((20, 20, 3), dtype=np.uint8)), NPY)

    assert respond(query, predictor, Options(max_pixels=399)).status == 413
    assert respond(query, predictor, Options(max_pixels=400)).status == 200
