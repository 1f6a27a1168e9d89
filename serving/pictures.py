"""A request's body -> its pictures, each decoded only when its turn comes: one in memory at a time."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from artifact.preprocess import (
    ImageTooLargeError,
    Preprocess,
    UnreadableImageError,
    UnsupportedImageError,
    decode_opened,
    open_image,
)
from serving.arrays import preprocess_raw, read_array, undo_normalisation
from serving.codec import PICTURE, parse_content_type
from serving.errors import (
    BadRequest,
    ImageTooLarge,
    TooManyImages,
    UnreadableImage,
    UnsupportedImage,
)
from serving.messages import JSON, JSON_LINES, NPY
from serving.multipart import read_parts
from serving.options import Options
from serving.remote import Fetcher
from serving.telemetry import note_size

NPY_MAGIC = b"\x93NUMPY"
SEPARATORS = (b"[", b"{", b",")
SEPARATORS_PER_IMAGE = 10  # {"b64": "..."} has two
SPACE = dict.fromkeys(map(ord, " \t\r\n"))
SEND_A_PICTURE = "Send the bytes of one whole JPEG, PNG or WebP file as the body."
SEND_JSON = (
    '{"instances": ["<base64>", ...]}, each item the base64 of one picture, {"b64": ...} or {"url": ...}'
)

# Gives (crop, crop, 3) uint8 or raises RequestError.
Source = Callable[[], NDArray[np.uint8]]


class Pictures(NamedTuple):
    """`is_one`: the body is a picture itself; else a list, whose answer is a list even for one picture."""

    sources: Sequence[Source]
    is_one: bool


def read_pictures(
    body: bytes, content_type: str | None, preprocess: Preprocess, options: Options
) -> Pictures:
    """What the body holds, nothing decoded yet. Raises RequestError for a body that is wrong as a whole."""
    kind, boundary = parse_content_type(content_type)
    if not body:
        raise UnreadableImage("The body is empty.", hint=SEND_A_PICTURE)
    decode = functools.partial(decode_picture, preprocess=preprocess, max_pixels=options.max_pixels)
    if kind == NPY or (kind == PICTURE and body.startswith(NPY_MAGIC)):
        return _read_array(body, preprocess, options)
    if kind == PICTURE:
        return Pictures([functools.partial(decode, body)], is_one=True)
    if kind in (JSON, JSON_LINES):
        return (_read_json if kind == JSON else _read_json_lines)(body, decode, options)
    parts = read_parts(body, boundary, max_parts=options.max_images)
    return Pictures([functools.partial(decode, part) for part in parts], is_one=False)


def decode_picture(body: bytes, preprocess: Preprocess, *, max_pixels: int) -> NDArray[np.uint8]:
    """One encoded picture -> (crop, crop, 3) uint8 RGB. Raises RequestError."""
    if not body:
        raise UnreadableImage(
            "The picture is empty.", hint="Send the bytes of one whole JPEG, PNG or WebP file."
        )
    try:
        image = open_image(body, max_pixels=max_pixels)
        size = image.size  # as sent: decoding may reduce it
        pixels = decode_opened(image, preprocess)
        note_size(size)
        return pixels
    except ImageTooLargeError as error:
        raise ImageTooLarge(str(error), hint="Shrink it first; the limit is KENNEL_MAX_PIXELS.") from error
    except UnsupportedImageError as error:
        raise UnsupportedImage(str(error), hint="Convert it to JPEG, PNG or WebP first.") from error
    except UnreadableImageError as error:
        raise UnreadableImage(str(error), hint=SEND_A_PICTURE) from error


def _read_array(body: bytes, preprocess: Preprocess, options: Options) -> Pictures:
    array = read_array(body, preprocess)
    if array.dtype == np.uint8:
        one = functools.partial(preprocess_raw, preprocess=preprocess, max_pixels=options.max_pixels)
    else:
        one = functools.partial(undo_normalisation, preprocess=preprocess)
    if array.ndim == 3:
        return Pictures([functools.partial(one, array)], is_one=True)
    _check_count(len(array), options)
    return Pictures([functools.partial(one, item) for item in array], is_one=False)


def _read_json(body: bytes, decode: Callable[[bytes], NDArray[np.uint8]], options: Options) -> Pictures:
    value = _parse_json(body, options)
    if not isinstance(value, dict):
        raise BadRequest("The JSON is not an object.", hint=f"Send {SEND_JSON}.")
    fetcher = _build_fetcher(options)
    if "instances" not in value:
        _read_instance_text(value)  # one that has no picture is wrong as a whole
        return Pictures([functools.partial(_decode_instance, value, decode, fetcher)], is_one=True)
    instances = value["instances"]
    if not isinstance(instances, list) or not instances:
        raise BadRequest("The JSON's instances are not a list of pictures.", hint=f"Send {SEND_JSON}.")
    _check_count(len(instances), options)
    return Pictures(
        [functools.partial(_decode_instance, instance, decode, fetcher) for instance in instances],
        is_one=False,
    )


def _read_json_lines(body: bytes, decode: Callable[[bytes], NDArray[np.uint8]], options: Options) -> Pictures:
    content = body.removesuffix(b"\n")
    _check_count(content.count(b"\n") + 1, options)
    fetcher = _build_fetcher(options)

    def decode_line(line: bytes) -> NDArray[np.uint8]:
        return _decode_instance(_parse_json(line, options), decode, fetcher)

    return Pictures([functools.partial(decode_line, line) for line in content.split(b"\n")], is_one=False)


def _decode_instance(
    instance: object, decode: Callable[[bytes], NDArray[np.uint8]], fetcher: Fetcher
) -> NDArray[np.uint8]:
    """A base64 string, {"b64": the same} or {"url": an address}. Raises RequestError."""
    key, text = _read_instance_text(instance)
    if key == "url":
        return decode(fetcher.fetch(text))
    try:
        return decode(base64.b64decode(text.translate(SPACE), validate=True))
    except ValueError as error:  # binascii.Error, or characters that are not ASCII
        raise UnreadableImage(
            f"The picture is not valid base64 ({error}).", hint="Use the standard alphabet with padding."
        ) from error


def _read_instance_text(instance: object) -> tuple[str, str]:
    """("b64" or "url", its text). Raises BadRequest."""
    if isinstance(instance, str):
        return "b64", instance
    if isinstance(instance, dict):
        for key in ("b64", "url"):
            if isinstance(instance.get(key), str):
                return key, instance[key]
    raise BadRequest(f"The JSON {_name(instance)} is not a picture.", hint=f"Send {SEND_JSON}.")


def _parse_json(text: bytes, options: Options) -> Any:
    """Raises BadRequest also for what would be a small body and a hundred times its size in memory."""
    most = SEPARATORS_PER_IMAGE * (options.max_images + 1)
    if sum(text.count(separator) for separator in SEPARATORS) > most:
        raise BadRequest(f"The JSON has more than {most} values.", hint=f"Send {SEND_JSON}, not numbers.")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = (
            str(error).splitlines()[0] if isinstance(error, json.JSONDecodeError) else type(error).__name__
        )
        raise BadRequest(f"The body is not JSON ({reason}).", hint=f"Send {SEND_JSON}.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_count(count: int, options: Options) -> None:
    if count > options.max_images:
        raise TooManyImages(
            f"The request has {count} pictures, over the limit of {options.max_images}.",
            hint="Send several smaller requests; the limit is KENNEL_MAX_IMAGES.",
        )


def _build_fetcher(options: Options) -> Fetcher:
    return Fetcher(options.url_allow, options.max_fetch_bytes)


def _name(value: object) -> str:
    """In JSON's own words."""
    names = {dict: "object", list: "array", bool: "boolean", int: "number", float: "number", str: "string"}
    return names.get(type(value), "null")
