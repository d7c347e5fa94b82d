"""The errors of a call to the API server. Pure."""

from __future__ import annotations


class ApiError(Exception):
    """The API server refused a call, or did not answer. str() names the call and the cause.

    message: the message of the API server's Status. status: the HTTP status; 0 without an answer.
    reason: the reason of the Status, such as Conflict or Expired; may be empty.
    """

    def __init__(self, doing: str, message: str, status: int = 0, reason: str = "") -> None:
        super().__init__(f"{doing}: {message}")
        self.message = message
        self.status = status
        self.reason = reason


class UnreachableError(ApiError):
    """No connection to the API server: it has not received the call."""


class UnansweredError(UnreachableError):
    """The answer is missing or incomplete. The API server may have carried the call out."""


class ForbiddenError(ApiError):
    """403: the user lacks a right, or an admission policy or a quota refuses the object."""


class NotFoundError(ApiError):
    """404: the object, its namespace or its kind does not exist."""


class ConflictError(ApiError):
    """409: the stored object has another resourceVersion or uid than the call."""


class AlreadyExistsError(ApiError):
    """409: an object of this name exists."""


class GoneError(ApiError):
    """410: the resourceVersion or the continue token has expired. List again."""


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
