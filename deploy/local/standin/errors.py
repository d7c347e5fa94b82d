"""The errors of a sync."""

from __future__ import annotations

from deploy.kube.errors import ApiError


class SyncError(Exception):
    """A sync failed, and is retried with backoff."""


class NotServedError(SyncError):
    """The API server does not serve a kind."""


class RelatedNotSyncedError(SyncError):
    """The informer of a related kind has not synced yet. Expected, so not logged."""


class TooManyRequestsError(SyncError):
    """A hook answered 429 with Retry-After: retry the sync after these seconds."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"hook asked to wait {seconds} s")
        self.seconds = seconds


class RefusedError(Exception):
    """The spec of a controller has a field or value that the stand-in does not know."""


def brief(error: Exception) -> str:
    """The cause of an error, without the host and URL that errors of requests repeat."""
    if isinstance(error, ApiError):
        return error.message
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return str(reason or error).strip()


def raise_all(errors: list[Exception]) -> None:
    """Raise collected errors, if there are any, as one SyncError."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SyncError("[" + ", ".join(str(error) for error in errors) + "]") from errors[0]
