"""Headers in, answers out."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answers import rank_labels
from serving.codec import (
    ANSWER_TYPES,
    PICTURE,
    STRUCTURED_TYPES,
    ContentType,
    parse_accept,
    parse_content_type,
    parse_custom_attributes,
    parse_top,
)
from serving.errors import BadRequest, NotAcceptable, RequestError, UnsupportedContentType
from serving.messages import encode_json


def find_types(sentence: str) -> list[str]:
    return re.findall(r"[a-z]+/[a-z-]+", sentence)


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param("image/jpeg", id="jpeg"),
        pytest.param("image/png", id="png"),
        pytest.param("IMAGE/WebP; q=1", id="case_and_parameters"),
        pytest.param("application/x-image", id="sagemakers_built_in_algorithm"),
        pytest.param("application/octet-stream", id="bytes"),
    ],
)
def test_content_type_of_a_picture_is_accepted(content_type: str | None) -> None:
    assert parse_content_type(content_type) == ContentType(PICTURE)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        pytest.param("application/x-npy", ContentType("application/x-npy"), id="npy"),
        pytest.param("Application/JSON; charset=utf-8", ContentType("application/json"), id="json"),
        pytest.param("application/jsonlines", ContentType("application/jsonlines"), id="jsonlines"),
        pytest.param(
            'multipart/form-data; boundary="a b"', ContentType("multipart/form-data", "a b"), id="form"
        ),
    ],
)
def test_content_type_of_many_pictures_is_accepted(content_type: str, expected: ContentType) -> None:
    assert parse_content_type(content_type) == expected


@pytest.mark.parametrize(
    "content_type", ["text/csv", "application/jsonx", "multipart/mixed; boundary=x", "a"]
)
def test_other_content_type_is_refused_by_name(content_type: str) -> None:
    with pytest.raises(UnsupportedContentType, match=content_type) as raised:
        parse_content_type(content_type)

    assert raised.value.hint.startswith("Send the bytes of one picture as image/jpeg")
    assert find_types(raised.value.hint.partition(" many as ")[2]) == list(STRUCTURED_TYPES)


@pytest.mark.parametrize(
    ("accept", "top"),
    [
        pytest.param(None, None, id="missing"),
        pytest.param("", None, id="empty"),
        pytest.param("*/*", None, id="anything"),
        pytest.param("application/*", None, id="any_application"),
        pytest.param("application/json", None, id="json"),
        pytest.param("Application/JSON; charset=utf-8", None, id="unknown_parameter"),
        pytest.param("application/json; top=5", 5, id="top"),
        pytest.param("application/json;top=5;q=0.5", 5, id="top_with_quality"),
        pytest.param("text/html, application/json;q=0.9, */*;q=0.1", None, id="second_choice"),
    ],
)
def test_accept_that_allows_json_is_answered_in_json(accept: str | None, top: int | None) -> None:
    assert parse_accept(accept) == ("application/json", top)


@pytest.mark.parametrize(
    ("accept", "default", "expected"),
    [
        pytest.param("text/csv", "application/json", "text/csv", id="csv"),
        pytest.param("text/*", "application/json", "text/csv", id="any_text"),
        pytest.param("application/x-npy", "application/json", "application/x-npy", id="npy"),
        pytest.param("application/jsonlines", "application/json", "application/jsonlines", id="jsonlines"),
        pytest.param(None, "application/jsonlines", "application/jsonlines", id="default"),
        pytest.param("*/*", "application/jsonlines", "application/jsonlines", id="default_for_anything"),
        pytest.param("*", "application/jsonlines", "application/jsonlines", id="java_s_anything"),
        pytest.param("text/csv;q=0, application/*", "application/json", "application/json", id="not_csv"),
        pytest.param("application/json", "application/jsonlines", "application/json", id="named"),
        pytest.param(
            "application/json;q=0.2, text/csv;q=0.9", "application/json", "text/csv", id="better_liked"
        ),
        pytest.param(
            "text/csv;q=0.2, application/json;q=0.9", "application/json", "application/json", id="json_liked"
        ),
        pytest.param(
            "application/json;q=0, */*;q=0.1", "application/json", "application/jsonlines", id="anything_else"
        ),
    ],
)
def test_best_liked_type_that_is_offered_is_answered(accept: str | None, default: str, expected: str) -> None:
    assert parse_accept(accept, default=default) == (expected, None)


@pytest.mark.parametrize(
    "accept", ["application/json;q=0", "*/*;q=0", "image/*", "image/png", "nonsense", ";;,"]
)
def test_accept_without_an_offer_is_refused_naming_what_is_offered(accept: str) -> None:
    with pytest.raises(NotAcceptable) as raised:
        parse_accept(accept)

    assert accept in raised.value.message
    assert raised.value.hint.startswith("Ask for ") and "as `application/json; top=5`" in raised.value.hint
    assert find_types(raised.value.hint.partition("labels and")[0]) == list(ANSWER_TYPES)


@given(st.text())
def test_any_accept_gives_an_answer_type_or_a_request_error(accept: str) -> None:
    try:
        assert parse_accept(accept)[0] in ANSWER_TYPES
    except RequestError as error:
        assert error.status in (400, 406)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(None, {}, id="missing"),
        pytest.param("top=5", {"top": "5"}, id="one"),
        pytest.param("trace=a1, top=5", {"trace": "a1", "top": "5"}, id="comma"),
        pytest.param("trace=a=1;top = 5", {"trace": "a=1", "top": "5"}, id="semicolon_and_equals_in_value"),
        pytest.param("3f2b-request-id", {}, id="not_a_pair"),
    ],
)
def test_custom_attributes_are_pairs_between_commas_or_semicolons(
    header: str | None, expected: dict[str, str]
) -> None:
    assert parse_custom_attributes(header) == expected


@pytest.mark.parametrize("text", ["0", "-1", "abc", "", "1.5", "²", "00", "+3"])
def test_bad_top_is_refused_naming_the_value(text: str) -> None:
    with pytest.raises(BadRequest) as raised:
        parse_top(text)

    assert f"top={text!r}" in raised.value.message
    assert raised.value.hint == "Send a whole number from 1 on, as top=5."


def test_top_beyond_any_number_of_labels_is_all_of_them() -> None:
    assert parse_top("1" + 20 * "0") == 100_000_000


def test_rank_labels_gives_the_likeliest_first_and_no_more_than_there_are() -> None:
    log_probabilities = np.log(np.array([0.2, 0.7, 0.1], dtype=np.float32))

    ranked = rank_labels(log_probabilities, ("a", "b", "c"), limit=99)

    assert [prediction["label"] for prediction in ranked] == ["b", "a", "c"]
    assert ranked[0]["probability"] == pytest.approx(0.7)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_encoded_log_probabilities_come_back_as_the_same_floats(values: list[float]) -> None:
    log_probabilities = np.array([values], dtype=np.float32)

    decoded = np.array(json.loads(encode_json(log_probabilities.tolist())), dtype=np.float32)

    assert np.array_equal(decoded, log_probabilities)


def test_nan_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_json([float("nan")])
