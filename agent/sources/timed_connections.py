"""Connections whose requests have the time limits of waits.py."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)

from agent.sources.waits import current

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

# The limit for all addresses of a name together: it may have thousands that do not answer.
ALL_ADDRESSES_SECONDS = 15.0


class Watched:
    """A mixin for connections: connecting and reading headers end with the wait of the thread."""

    def _new_conn(self) -> socket.socket:
        """As in urllib3, but with one time limit for all addresses of the host."""
        conn: Any = self
        wait, failure = current(), OSError("the name has no address")
        until = time.monotonic() + ALL_ADDRESSES_SECONDS
        try:
            found = socket.getaddrinfo(conn._dns_host, conn.port, 0, socket.SOCK_STREAM)  # noqa: SLF001
        except socket.gaierror as error:
            raise NameResolutionError(conn.host, conn, error) from error
        except UnicodeError:
            raise LocationParseError(conn.host) from None
        for family, kind, protocol, _, address in found:
            if wait is not None:
                wait.check(conn.host)
            if time.monotonic() >= until:
                break
            try:
                return _connected(conn, socket.socket(family, kind, protocol), address)
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(conn, f"{conn.host} does not answer") from failure
        raise NewConnectionError(conn, f"no connection: {failure}") from failure

    def getresponse(self) -> HTTPResponse:
        """The status and headers of the answer."""
        conn: Any = self
        wait = current()
        if wait is None:
            return super().getresponse()  # type: ignore[misc, no-any-return]
        wait.check(conn.host)
        wait.connected = conn.sock
        try:
            answer: HTTPResponse = super().getresponse()  # type: ignore[misc]
        except Exception:
            # An aborted connection looks like a broken one, or like the end of the headers.
            wait.check(conn.host)
            raise
        if wait.has_ended:
            answer.close()
            wait.check(conn.host)
        return answer


class _HTTPConnection(Watched, HTTPConnection):  # type: ignore[misc]
    pass


class _HTTPSConnection(Watched, HTTPSConnection):  # type: ignore[misc]
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def watched_pools() -> dict[str, type[HTTPConnectionPool]]:
    """Pools of watched connections, by scheme."""
    return {"http": _HTTPPool, "https": _HTTPSPool}


def _connected(conn: Any, made: socket.socket, address: Any) -> socket.socket:
    try:
        for option in conn.socket_options or ():
            made.setsockopt(*option)
        made.settimeout(conn.timeout)
        if conn.source_address:
            made.bind(conn.source_address)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made
