"""Translates errors of network libraries into failures whose messages hold no secret."""

from __future__ import annotations

import re
import socket
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING

from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS: dict[int, FailureKind] = {
    HTTPStatus.UNAUTHORIZED: FailureKind.DENIED,
    HTTPStatus.FORBIDDEN: FailureKind.DENIED,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: FailureKind.DENIED,
    HTTPStatus.NOT_FOUND: FailureKind.NOT_FOUND,
    HTTPStatus.GONE: FailureKind.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT: FailureKind.UNREACHABLE,
    HTTPStatus.PRECONDITION_FAILED: FailureKind.CHANGED,
    HTTPStatus.TOO_MANY_REQUESTS: FailureKind.THROTTLED,
    HTTPStatus.SERVICE_UNAVAILABLE: FailureKind.THROTTLED,
    # Unofficial codes of web hosts: bandwidth limit exceeded, and site overloaded.
    509: FailureKind.THROTTLED,
    529: FailureKind.THROTTLED,
}
# The text of http.client's error for a CONNECT that a proxy refuses.
TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b")
_STATUSES = frozenset(int(status) for status in HTTPStatus)
_ADVICE = {
    FailureKind.DENIED: "check that the credentials may read it: those that the cache names, or "
    "else the agent's own",
    FailureKind.NOT_FOUND: "check sourceModelUri, and that the model is there",
    FailureKind.CHANGED: "it changed while it was downloaded; the file starts over by itself",
    FailureKind.THROTTLED: "it is tried again by itself",
    FailureKind.UNREACHABLE: "it is tried again by itself",
    FailureKind.INTERNAL: "check sourceModelUri",
}


def status_failure(
    status: int, where: str, detail: str = "", *, retry_after: float | None = None
) -> DownloadError:
    """The failure for an HTTP status of 400 or above, from `where` (a public URI)."""
    unknown = FailureKind.UNREACHABLE if status >= 500 else FailureKind.INTERNAL
    kind = _KINDS.get(status, unknown)
    answer = detail or (HTTPStatus(status).phrase if status in _STATUSES else "")
    message = f"{where} answered {status} {answer}".rstrip() + f": {_ADVICE[kind]}"
    return DownloadError(kind, message, retry_after=retry_after)


def unreachable(error: BaseException, where: str) -> DownloadError:
    """The failure for an origin to which no connection could be made or kept."""
    if any(isinstance(cause, ssl.SSLError) and not _is_end(cause) for cause in chain(error)):
        return DownloadError(
            FailureKind.TLS,
            f"{where} has no TLS connection that can be trusted: {root_cause(error)}; give the "
            "agent the certificate of its authority (SSL_CERT_FILE, or AWS_CA_BUNDLE for S3), or "
            "mend the server's certificate",
        )
    return DownloadError(
        FailureKind.UNREACHABLE,
        f"{where} cannot be reached: {root_cause(error)}; check the address and the network of "
        "the node, it is tried again by itself",
    )


def root_cause(error: BaseException) -> str:
    """The text of the first known error among the causes of `error`.

    Libraries wrap the system's errors, and put URLs with their queries into their own texts.
    """
    for current in chain(error):
        if isinstance(current, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({current.verify_message})"
        if isinstance(current, ssl.SSLError):
            reason = "the connection broke" if _is_end(current) else current.reason
            return (reason or "the handshake failed").lower().replace("_", " ")
        if isinstance(current, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(current, OSError) and current.strerror and current.errno:
            return current.strerror.lower()
        if isinstance(current, TimeoutError) or "Timeout" in type(current).__name__:
            return "it does not answer in time"
    by_proxy = any(
        TUNNEL.search(str(cause)) for cause in chain(error) if isinstance(cause, OSError)
    )
    return "the proxy refuses the connection" if by_proxy else "the connection broke"


def _is_end(error: BaseException) -> bool:
    """Whether the peer closed the connection within TLS, which is no failure of trust."""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all its causes: `__cause__`, `__context__`, `reason` and arguments."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        reason = getattr(current, "reason", None)
        queue += [current.__cause__, current.__context__, reason, *current.args]
