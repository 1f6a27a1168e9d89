"""Headers at the border: which content types come in, and in which one the answer goes out."""

from __future__ import annotations

import functools
from typing import NamedTuple

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from serving.errors import BadRequest, NotAcceptable, NotExplainable, UnsupportedContentType
from serving.messages import CSV, JSON, JSON_LINES, MULTIPART, NPY, PNG

PICTURE = "image/*"
# One type holds for a whole Batch Transform job, so the bytes decide what they are, not this header.
BINARY_TYPES = ("application/x-image", "application/octet-stream")
STRUCTURED_TYPES = (NPY, JSON, JSON_LINES, MULTIPART)
ANSWER_TYPES = (JSON, JSON_LINES, CSV, NPY)
KNOWN_HEADERS = 64  # of which the meaning is remembered: most requests have the same ones as the last


class ContentType(NamedTuple):
    """`kind` is PICTURE, for every type whose bytes speak for themselves, or one of STRUCTURED_TYPES."""

    kind: str
    boundary: str = ""  # of multipart/form-data


@functools.lru_cache(KNOWN_HEADERS)
def parse_content_type(header: str | None) -> ContentType:
    """What the body claims to be; a missing header is a picture. Raises UnsupportedContentType."""
    stated, options = parse_options_header(header)
    kind = stated.strip().lower()
    if not kind or kind in BINARY_TYPES or kind.startswith("image/"):
        return ContentType(PICTURE)
    if kind in STRUCTURED_TYPES:
        return ContentType(kind, options.get("boundary", ""))
    raise UnsupportedContentType(
        f"Content type {header!r} is not supported.",
        hint="Send the bytes of one picture as image/jpeg, image/png, image/webp or application/x-image, "
        f"or many as {', '.join(STRUCTURED_TYPES[:-1])} or {STRUCTURED_TYPES[-1]}.",
    )


@functools.lru_cache(KNOWN_HEADERS)
def parse_accept(accept: str | None, *, default: str = JSON) -> tuple[str, int | None]:
    """The content type to answer in and its `top`: the best liked that is offered, `default` for a wildcard.

    Raises NotAcceptable, or BadRequest for a bad `top`.
    """
    if not (accept or "").strip():
        return default, None
    offered = (default, *(kind for kind in ANSWER_TYPES if kind != default))
    ranges = [
        (*parse_options_header(value), quality) for value, quality in parse_accept_header(accept, MIMEAccept)
    ]
    refused = {kind.lower() for kind, _, quality in ranges if quality <= 0}
    for wanted, options, quality in ranges:  # best first
        fitting = (kind for kind in offered if kind not in refused and _fits(kind, wanted.lower()))
        answer_type = next(fitting, None) if quality > 0 else None
        if answer_type is not None:
            return answer_type, parse_top(options["top"]) if "top" in options else None
    raise NotAcceptable(
        f"Accept {accept!r} cannot be answered.",
        hint=f"Ask for {', '.join(ANSWER_TYPES[:-1])} or {ANSWER_TYPES[-1]} (log-probabilities), or for "
        f"labels and probabilities, best first, as `{JSON}; top=5`.",
    )


def _fits(kind: str, wanted: str) -> bool:
    family, _, subtype = wanted.partition("/")
    return wanted in (kind, "*/*", "*") or (subtype == "*" and kind.startswith(f"{family}/"))


def parse_custom_attributes(header: str | None) -> dict[str, str]:
    """`key=value` pairs between commas or semicolons; anything else in the header is someone else's."""
    pairs = (part.partition("=") for part in (header or "").replace(";", ",").split(","))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def parse_top(text: str) -> int:
    """How many labels to answer with. Raises BadRequest naming the value."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9])):
        raise BadRequest(
            f"top={text!r} is not a count of labels.", hint="Send a whole number from 1 on, as top=5."
        )
    return int(text[:9])


def wants_explanation(accept: str | None, custom_attributes: str | None, *, method: str) -> bool:
    """Whether a request is for the process that explains; `method` is the manifest's, empty for none.

    Raises NotExplainable where it is asked for by name and the network has none.
    """
    if "explain" in (custom_attributes or "") and "explain" in parse_custom_attributes(custom_attributes):
        if not method:
            raise NotExplainable(
                "This network has no class-activation map.",
                hint="It takes a global average before the head (as in cnn, resnet, densenet, mobilenet, "
                "efficientnet) and an artifact exported since Kennel explains; leave out explain=.",
            )
        return True
    return bool(method) and "image/" in (accept or "") and prefers_png(accept)


def prefers_png(accept: str | None) -> bool:
    """A picture ahead of every type that predictions come in."""
    liked = parse_accept_header(accept or "", MIMEAccept)
    return "image/" in (accept or "") and liked.best_match([*ANSWER_TYPES, PNG]) == PNG
