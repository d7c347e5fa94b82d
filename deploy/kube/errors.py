"""What a call to the API server raises. Pure."""

from __future__ import annotations


class ApiError(Exception):
    """The API server refused a call, or did not answer. str() says what was tried, and why not.

    message: the API server's own sentence. status: the HTTP status; 0 without an answer. reason:
    the API server's word for the cause, such as Conflict or Expired; empty if it gave none.
    """

    def __init__(self, doing: str, message: str, status: int = 0, reason: str = "") -> None:
        super().__init__(f"{doing}: {message}")
        self.message = message
        self.status = status
        self.reason = reason


class UnreachableError(ApiError):
    """There is no connection to the API server, which has not received the call."""


class UnansweredError(UnreachableError):
    """The answer is missing or incomplete. The API server may have carried the call out."""


class ForbiddenError(ApiError):
    """403: the user lacks a right, or an admission policy or a quota refuses the object."""


class NotFoundError(ApiError):
    """404: there is no such object, namespace or kind."""


class ConflictError(ApiError):
    """409: the stored object has another resourceVersion or uid than the call named."""


class AlreadyExistsError(ApiError):
    """409: there is an object of this name."""


class GoneError(ApiError):
    """410: the API server does not know the resourceVersion any more. List again."""


class InvalidError(ApiError):
    """422: the object does not fit its schema, or a test of a JSON patch failed."""


_BY_STATUS: dict[int, type[ApiError]] = {
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
}


def refusal(doing: str, message: str, status: int, reason: str = "") -> ApiError:
    """The error of an HTTP status of 400 or above."""
    kind = _BY_STATUS.get(status, ApiError)
    if reason == "AlreadyExists":
        kind = AlreadyExistsError
    return kind(doing, message, status, reason)
