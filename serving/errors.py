"""Everything the server refuses: a request (the client's fault, 4xx), or to start (the operator's, exit 1).

RequestError                          StartError
├── BadRequest                  400   ├── SettingsError     a variable has a value that is not allowed
│   ├── UnreadableImage         400   ├── GraphError        the graph does not load or does not fit the labels
│   ├── BadArray                400   ├── DriverError       the host's GPU driver is too old
│   └── UrlRefused              400   ├── GoldenMismatch    the golden picture gets another answer here
├── NotAcceptable               406   └── CodeError         the artifact's own code cannot be used
├── RequestTimeout              408
├── PayloadTooLarge             413   (and artifact.bundle.BundleError: files are not what the manifest says)
│   ├── ImageTooLarge           413
│   └── TooManyImages           413
├── UnsupportedContentType      415
│   └── UnsupportedImage        415
├── UrlFailed                   422
├── NotExplainable              422
├── NotCalibrated               422
├── ClientGone                  499
├── ServerFailed                500
└── Unavailable                 503
    ├── Overloaded              503
    └── DeadlinePassed          503
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


class BadArray(BadRequest):
    """The .npy body has another shape, type or range than the two that are accepted."""

    code = "bad_array"


class UrlRefused(BadRequest):
    """The address is not under a prefix of KENNEL_URL_ALLOW, or leads into a private network."""

    code = "url_refused"


class NotAcceptable(RequestError):
    """The Accept header asks for what the server cannot write."""

    status = 406
    code = "not_acceptable"


class RequestTimeout(RequestError):
    """The body came too slowly."""

    status = 408
    code = "request_timeout"


class PayloadTooLarge(RequestError):
    """More bytes than KENNEL_MAX_PAYLOAD_MB."""

    status = 413
    code = "payload_too_large"


class ImageTooLarge(PayloadTooLarge):
    """More pixels than KENNEL_MAX_PIXELS."""

    code = "image_too_large"


class TooManyImages(PayloadTooLarge):
    """More pictures in one request than KENNEL_MAX_IMAGES."""

    code = "too_many_images"


class UnsupportedContentType(RequestError):
    """The Content-Type is none that carries pictures."""

    status = 415
    code = "unsupported_content_type"


class UnsupportedImage(UnsupportedContentType):
    """The bytes are a known kind of file that is not opened."""

    code = "unsupported_image"


class NotExplainable(RequestError):
    """The network cannot say which places of the picture spoke for its answer."""

    status = 422
    code = "not_explainable"


class NotCalibrated(RequestError):
    """The artifact does not know when to abstain."""

    status = 422
    code = "not_calibrated"


class UrlFailed(RequestError):
    """The picture behind an allowed address could not be had."""

    status = 422
    code = "url_failed"


class ClientGone(RequestError):
    """The connection closed while the request waited; nobody reads this."""

    status = 499  # nginx's
    code = "client_gone"

    def __init__(self) -> None:
        super().__init__("The connection was closed before the answer.", hint="Wait longer.")


class ServerFailed(RequestError):
    """Our fault; the reason is in the log."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="The reason is in the container's log.")


class Unavailable(RequestError):
    """Not now: the client may send the same again after `retry_after` seconds."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, hint=f"Send it again in {retry_after} s, or use more or larger instances.")
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """The queue is full."""

    code = "overloaded"

    def __init__(self, retry_after: int) -> None:
        super().__init__("More requests are waiting than can be answered in time.", retry_after=retry_after)


class DeadlinePassed(Unavailable):
    """It waited in the queue until nobody waits for the answer any more."""

    code = "deadline_passed"

    def __init__(self, retry_after: int) -> None:
        super().__init__("The request's time ran out before its turn came.", retry_after=retry_after)


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


class CodeError(StartError):
    """code/inference.py cannot be imported, or a function there has another signature than SageMaker's."""
