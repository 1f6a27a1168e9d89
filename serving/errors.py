"""Everything the server refuses: a request (the client's fault, 4xx), or to start (the operator's, exit 1).

RequestError                      StartError
├── BadRequest              400   ├── SettingsError     a variable has a value that is not allowed
│   └── UnreadableImage     400   ├── GraphError        the graph does not load or does not fit the labels
├── NotAcceptable           406   ├── DriverError       the host's GPU driver is too old
├── PayloadTooLarge         413   └── GoldenMismatch    the golden picture gets another answer here
│   └── ImageTooLarge       413   (and artifact.bundle.BundleError: the files are not what the manifest says)
└── UnsupportedContentType  415
"""

from __future__ import annotations


class RequestError(Exception):
    """Answered as `{"error": {"code", "message", "hint"}}`: what is wrong, and what to send instead."""

    status = 400
    code = "bad_request"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadRequest(RequestError):
    """A value in the request is not allowed."""


class UnreadableImage(BadRequest):
    """The body is empty, not a picture, or a broken one."""

    code = "unreadable_image"


class NotAcceptable(RequestError):
    """The Accept header asks for what the server cannot write."""

    status = 406
    code = "not_acceptable"


class PayloadTooLarge(RequestError):
    """More bytes than KENNEL_MAX_PAYLOAD_MB."""

    status = 413
    code = "payload_too_large"


class ImageTooLarge(PayloadTooLarge):
    """More pixels than KENNEL_MAX_PIXELS."""

    code = "image_too_large"


class UnsupportedContentType(RequestError):
    """The Content-Type is not that of a picture."""

    status = 415
    code = "unsupported_content_type"


class StartError(Exception):
    """The server cannot start; the message is one sentence that names the cause and the remedy."""


class SettingsError(StartError):
    """An environment variable has a value that is not allowed."""


class GraphError(StartError):
    """The graph does not load, or does not fit the manifest."""


class DriverError(StartError):
    """The host's GPU driver is too old for the image's CUDA."""


class GoldenMismatch(StartError):
    """This machine does not answer the golden picture as the trainer did."""
