"""Failures of a model, as types, and the time to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

# The longest time between two tries, within which a repaired origin is noticed.
MAX_BACKOFF_SECONDS = 300.0
_MAX_DOUBLINGS = 16


class FailureKind(StrEnum):
    """Kinds of failures. The value is the reason in LocalModelNode.status."""

    NOT_FOUND = "NotFound"
    DENIED = "Denied"
    THROTTLED = "Throttled"
    UNREACHABLE = "Unreachable"
    TLS = "TLS"
    CORRUPT = "Corrupt"
    CHANGED = "Changed"
    OTHER_VERSION = "OtherVersion"
    NO_SPACE = "NoSpace"
    READ_ONLY = "ReadOnly"
    UNAVAILABLE = "Unavailable"
    OTHER_DISK = "OtherDisk"
    NO_LINKS = "NoHardLinks"
    UNSUPPORTED = "Unsupported"
    FOREIGN_DIRECTORY = "ForeignDirectory"
    INTERNAL = "Internal"


# Failures of the node's disk as a whole, not of one model.
DISK_KINDS = frozenset({FailureKind.READ_ONLY, FailureKind.UNAVAILABLE, FailureKind.OTHER_DISK})
# Failures that no source can cause. (NoSpace is not among them: a source may report false sizes.)
NODE_KINDS = DISK_KINDS | {FailureKind.NO_LINKS, FailureKind.FOREIGN_DIRECTORY}

# Failures that may pass by themselves. All others stay until a person acts, or the next change.
TRANSIENT_KINDS = frozenset({FailureKind.UNREACHABLE, FailureKind.THROTTLED, FailureKind.CHANGED})


_FOREIGN = (
    "the model's folder on this node was not made by localmodel, and differs from the source. It "
    "is left alone: ask an administrator to move or delete it, and the model is downloaded"
)


class CancelledError(Exception):
    """A download, or another job of a worker, was cancelled."""


def encodable(text: str) -> str:
    """The text without the surrogates that stand for bytes in names of files that are no UTF-8.

    Neither JSON nor the API server takes such a text.
    """
    return text.encode("utf-8", "backslashreplace").decode()


class DownloadError(Exception):
    """A model cannot be downloaded or used now.

    The message is for people: what is wrong, where, and what to do. The message must hold no
    secret: URIs go through `public_uri`, and texts of libraries' errors, which quote URLs, are left
    out.

    `retry_after` is the delay that the origin requested, in seconds. `hides` is whether the
    origin may have answered "not found" instead of "denied" to hide a private model.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        retry_after: float | None = None,
        hides: bool = False,
    ) -> None:
        message = encodable(message)
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after
        self.hides = hides

    def told_to(self, namespace: str) -> DownloadError:
        """The failure with the message that caches of this namespace may read.

        The content of a foreign directory is reported to the administrator alone, as it may belong
        to any namespace.
        """
        if not namespace or self.kind is not FailureKind.FOREIGN_DIRECTORY:
            return self
        return DownloadError(self.kind, _FOREIGN)

    def without_traceback(self) -> DownloadError:
        """The same failure, to be kept.

        A traceback holds all that the attempt had in memory, such as its listing and its
        credentials, and grows each time that the failure is raised again.
        """
        return DownloadError(
            self.kind, self.message, retry_after=self.retry_after, hides=self.hides
        )

    @property
    def refuses(self) -> bool:
        """Whether the source refused the credentials: a missing model is not a refusal."""
        return self.kind is FailureKind.DENIED or self.hides


def unexpected(error: Exception) -> DownloadError:
    """A fault of the agent, or of a library, as the failure of one model."""
    return DownloadError(
        FailureKind.INTERNAL,
        f"the agent failed with {type(error).__name__}: see its log, and report it",
    )


@dataclass(frozen=True)
class _Backoff:
    """Seconds before the second try, and the longest time before any later try."""

    base: float
    cap: float = MAX_BACKOFF_SECONDS


_BACKOFFS = {
    FailureKind.NOT_FOUND: _Backoff(5),
    FailureKind.DENIED: _Backoff(5),
    FailureKind.THROTTLED: _Backoff(60),
    FailureKind.UNREACHABLE: _Backoff(1, cap=60),
    FailureKind.TLS: _Backoff(5),
    FailureKind.CORRUPT: _Backoff(5),
    FailureKind.CHANGED: _Backoff(1, cap=60),
    FailureKind.OTHER_VERSION: _Backoff(5),
    FailureKind.NO_SPACE: _Backoff(30),
    FailureKind.READ_ONLY: _Backoff(10),
    FailureKind.UNAVAILABLE: _Backoff(10),
    FailureKind.OTHER_DISK: _Backoff(10),
    FailureKind.NO_LINKS: _Backoff(10),
    FailureKind.UNSUPPORTED: _Backoff(60),
    FailureKind.FOREIGN_DIRECTORY: _Backoff(10),
    FailureKind.INTERNAL: _Backoff(5),
}


def backoff(kind: FailureKind, attempts: int, jitter: float) -> float:
    """Seconds to wait after the failed attempt number `attempts` (from 1).

    The wait doubles from the kind's base up to its cap. `jitter`, from 0 to 1, shortens it by up to
    a quarter, so that many nodes do not return to an origin at once. After Throttled the jitter
    lengthens the wait by up to a quarter, up to the cap: at most one try a minute.
    """
    rule = _BACKOFFS[kind]
    delay = min(rule.cap, rule.base * 2.0 ** min(attempts - 1, _MAX_DOUBLINGS))
    if kind is FailureKind.THROTTLED:
        return min(rule.cap, delay * (1 + 0.25 * jitter))
    return delay * (1 - 0.25 * jitter)


def public_uri(uri: str) -> str:
    """The URI without parts that may be secret: user, password, query and fragment."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.split("://", 1)[0] + "://…"
    host = parts.netloc.rpartition("@")[2]
    query = "?…" if parts.query else ""
    return f"{parts.scheme}://{host}{parts.path}{query}"


def scheme(uri: str) -> str:
    """The scheme of a URI, in lower case: `s3` of `s3://bucket/model`."""
    return uri.partition("://")[0].lower()
