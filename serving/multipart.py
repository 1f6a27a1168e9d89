"""The files of a multipart/form-data body, in order, by werkzeug's parser and without temporary files."""

from __future__ import annotations

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from serving.errors import BadRequest, TooManyImages

HINT = "Send one file part a picture, as `curl -F image=@one.jpg -F image=@two.jpg` does."


def read_parts(body: bytes, boundary: str, *, max_parts: int) -> list[bytes]:
    """The content of every part that has a file name; other fields are not pictures. Raises RequestError."""
    if not boundary:
        raise BadRequest("The multipart/form-data header names no boundary.", hint=HINT)
    try:
        parts = _split(body, boundary.encode(), max_parts)
    except RequestEntityTooLarge as error:
        raise TooManyImages(
            f"The form has more than {max_parts} parts.",
            hint="Send several smaller requests; the limit is KENNEL_MAX_IMAGES.",
        ) from error
    except ValueError as error:  # also a part's header that is not UTF-8
        raise BadRequest("The body is not the multipart/form-data its header says.", hint=HINT) from error
    if not parts:
        raise BadRequest("The form has no file.", hint=HINT)
    return parts


def _split(body: bytes, boundary: bytes, max_parts: int) -> list[bytes]:
    decoder = MultipartDecoder(boundary, max_parts=max_parts)
    decoder.receive_data(body)
    decoder.receive_data(None)
    files: list[list[bytes]] = []
    is_file = False
    while not isinstance(event := decoder.next_event(), Epilogue | NeedData):
        if isinstance(event, File | Field):
            is_file = isinstance(event, File)
            if is_file:
                files.append([])
        elif isinstance(event, Data) and is_file:
            files[-1].append(event.data)
    return [b"".join(pieces) for pieces in files]
