"""What can make a sync fail."""

from __future__ import annotations

from deploy.kube.errors import ApiError


class SyncError(Exception):
    """A sync failed and is tried again with backoff."""


class NotServedError(SyncError):
    """The API server does not serve a kind (any more, or yet)."""


class RelatedNotSyncedError(SyncError):
    """The cache of a related kind is still filling. Expected, so not worth a log line."""


class TooManyRequestsError(SyncError):
    """A hook answered 429 and said after how many seconds to come back."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"hook asked to wait {seconds} s")
        self.seconds = seconds


class RefusedError(Exception):
    """A controller's spec has something that the stand-in does not know."""


def brief(error: Exception) -> str:
    """What is at the core of an error: those of requests repeat the host and the whole URL."""
    if isinstance(error, ApiError):
        return error.message
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return str(reason or error).strip()


def raise_all(errors: list[Exception]) -> None:
    """Raise the collected errors, if there are any, as one."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SyncError("[" + ", ".join(str(error) for error in errors) + "]") from errors[0]
