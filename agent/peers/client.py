"""Asks one peer, over HTTP or TLS with a pinned certificate. See docs/peers.md for the requests."""

from __future__ import annotations

import ssl
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from urllib3 import Retry, Timeout
from urllib3.exceptions import HTTPError

from agent.sources.plain_get import fetch
from agent.sources.timed_connections import watched_pools
from agent.sources.waits import waiting
from agent.structs.causes import chain, root_cause
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import HTTPResponse
    from urllib3.connectionpool import HTTPConnectionPool

    from agent.sources.plain_get import PlainAnswer
    from agent.structs.exchange import Peer

GRANT = "Localmodel-Grant"
CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
# Requests for ranges, and one that waits for news.
MAX_CONNECTIONS = 3
_READ_BYTES = 256 << 10
# What a peer may ask to wait: a download has other peers, and its origin.
MAX_RETRY_AFTER_SECONDS = 30
# OverflowError: the port of an address is none.
_ERRORS = (HTTPError, OSError, ValueError, OverflowError)
_ENDED = (ssl.SSLError, ConnectionResetError, BrokenPipeError)
_NO_RETRIES = Retry(total=False, redirect=False)


@dataclass(frozen=True)
class Credentials:
    """What this agent proves to its peers: its certificate (DER) and the contexts that use it.

    `introduction` is a context without the certificate: a peer that has not seen it yet would end
    the handshake.
    """

    certificate: bytes
    context: ssl.SSLContext
    introduction: ssl.SSLContext


class PeerClient:
    """Requests to one peer. Any thread may use it; `credentials` are None for plain HTTP.

    Raises DownloadError: UNREACHABLE, THROTTLED if the peer serves too many others, NOT_FOUND if it
    does not have what is asked for, CORRUPT if its answer makes no sense.
    """

    def __init__(self, peer: Peer, credentials: Credentials | None) -> None:
        self.peer = peer
        self._credentials = credentials
        self._lock = threading.Lock()
        self._pool = self._make_pool(credentials.context if credentials else None)

    def range(self, key: str, grant: str, digest: str, start: int, end: int) -> PeerBody:
        """Bytes of a file, from `start` up to and without `end`."""
        headers = {GRANT: grant, "Range": f"bytes={start}-{end - 1}"}
        answer = self._get(f"/v2/{key}/blobs/sha256:{digest}", headers, READ_SECONDS)
        told = answer.headers.get("Content-Range", "")
        # With another length, the next answer on the connection would begin with the bytes left.
        length = answer.headers.get("Content-Length", "")
        if (
            answer.status != 206
            or not told.startswith(f"bytes {start}-{end - 1}/")
            or length != str(end - start)
        ):
            answer.close()
            raise self._error(FailureKind.CORRUPT, "sent another range than the one asked for")
        return PeerBody(self, answer, end - start)

    def content(
        self,
        path: str,
        grant: str,
        *,
        most: int,
        seconds: float,
        is_over: Callable[[], bool] = lambda: False,
    ) -> bytes:
        """A whole answer of at most `most` bytes, within so many seconds and until `is_over`."""
        with waiting(seconds, is_over), closing(self._get(path, {GRANT: grant}, seconds)) as answer:
            found, size = [], 0
            try:
                while piece := answer.read(_READ_BYTES, decode_content=False):
                    found.append(piece)
                    size += len(piece)
                    if size > most:
                        raise self._error(FailureKind.CORRUPT, "sent a longer answer than any")
            except _ERRORS as error:
                raise self.broken(error) from None
        return b"".join(found)

    def broken(self, error: Exception) -> DownloadError:
        """The failure of a connection."""
        return self._error(FailureKind.UNREACHABLE, f"cannot be read from ({root_cause(error)})")

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()

    def _get(
        self, path: str, headers: dict[str, str], seconds: float
    ) -> HTTPResponse | PlainAnswer:
        pool = self._pool
        try:
            answer = self._request(path, headers, seconds)
            refused = answer.status == 401
            if refused:
                answer.close()
        except DownloadError as error:
            # A peer that does not know this agent's certificate ends the handshake. Where the
            # request was sent already, the end of the connection may hide the reason.
            if self._credentials is None or not isinstance(error.__cause__, _ENDED):
                raise
            refused = True
        if refused:
            self._introduce(pool)
            answer = self._request(path, headers, seconds)
        if answer.status in {200, 206}:
            return answer
        retry_after = answer.headers.get("Retry-After", "")
        answer.close()
        if answer.status == 503:
            wait = (
                min(float(retry_after), MAX_RETRY_AFTER_SECONDS) if retry_after.isdecimal() else 1.0
            )
            raise self._error(FailureKind.THROTTLED, "serves too many others now", wait)
        if answer.status in {404, 416}:
            raise self._error(FailureKind.NOT_FOUND, "no longer has what it had")
        raise self._error(FailureKind.UNREACHABLE, f"answers {answer.status}")

    def _request(
        self, path: str, headers: dict[str, str], seconds: float
    ) -> HTTPResponse | PlainAnswer:
        try:
            return fetch(
                self._pool,
                path,
                headers,
                connect_seconds=CONNECT_SECONDS,
                read_seconds=seconds,
            )
        except _ERRORS as error:
            causes = (cause for cause in chain(error) if isinstance(cause, _ENDED))
            raise self.broken(error) from next(causes, None)

    def _introduce(self, refused: HTTPConnectionPool) -> None:
        """Tell the peer this agent's certificate, which the next handshake proves.

        `refused` is the pool whose connection was refused.
        """
        credentials = self._credentials
        if credentials is None:
            raise self._error(FailureKind.UNREACHABLE, "answers only agents of its cluster")
        # One thread at a time: each closes the connections that were not introduced.
        with self._lock:
            if self._pool is not refused:
                # Another thread has introduced this agent meanwhile.
                return
            pool = self._make_pool(credentials.introduction)
            try:
                answer = pool.urlopen(
                    "PUT",
                    "/v2/introduction",
                    body=credentials.certificate,
                    timeout=Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                    retries=_NO_RETRIES,
                    redirect=False,
                    # A body has nothing to say, and may be of any size.
                    preload_content=False,
                    decode_content=False,
                )
                answer.close()
            except _ERRORS as error:
                raise self.broken(error) from None
            finally:
                pool.close()
            if answer.status != 204:
                raise self._error(
                    FailureKind.UNREACHABLE,
                    "does not know this node yet: its LocalModelNode will list it soon",
                )
            former, self._pool = self._pool, self._make_pool(credentials.context)
            former.close()

    def _make_pool(self, context: ssl.SSLContext | None) -> HTTPConnectionPool:
        host, _, port = self.peer.address.rpartition(":")
        options: dict[str, object] = {"maxsize": MAX_CONNECTIONS}
        if context is not None:
            options |= {
                "ssl_context": context,
                "assert_fingerprint": self.peer.fingerprint,
                "assert_hostname": False,
                "cert_reqs": ssl.CERT_NONE,
            }
        pools = watched_pools()["http" if context is None else "https"]
        return pools(host.strip("[]"), int(port), **options)  # type: ignore[arg-type]

    def _error(
        self, kind: FailureKind, what: str, retry_after: float | None = None
    ) -> DownloadError:
        return DownloadError(
            kind,
            f"node {self.peer.node} at {self.peer.address} {what}; other nodes or the origin are "
            "asked instead",
            retry_after=retry_after,
        )


class PeerBody:
    """The bytes of one range. See agent.structs.remote.Body."""

    def __init__(self, client: PeerClient, answer: HTTPResponse | PlainAnswer, size: int) -> None:
        self._client = client
        self._answer = answer
        self._left = size

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end."""
        if not self._left:
            return b""
        try:
            piece = self._answer.read(min(size, self._left), decode_content=False)
        except _ERRORS as error:
            raise self._client.broken(error) from None
        if not piece:
            raise self._client.broken(ConnectionError("the connection broke"))
        self._left -= len(piece)
        return piece

    def abort(self) -> None:
        """Make a blocked `read` in another thread raise soon."""
        # Nothing to end where the connection was given back already.
        with suppress(OSError, TypeError, ValueError, RuntimeError):
            self._answer.shutdown()

    def close(self) -> None:
        """Keep the connection for the next request if all bytes were read; end it otherwise."""
        self._answer.close()
