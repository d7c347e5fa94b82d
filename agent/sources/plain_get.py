"""GET requests over kept connections, whose plain answers are parsed in one pass.

Most answers with a file are plain: 200 or 206, with a Content-Length and nothing that HTTP allows
beside it. They are parsed here, in a tenth of the time that urllib3 takes, which is more than a
small file takes otherwise. All other answers are parsed by http.client, and are urllib3's.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from functools import partial
from http import client
from typing import TYPE_CHECKING, Any, cast

from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import ProtocolError, SSLError

from agent.sources.waits import break_off, current

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import BufferedReader

    from urllib3.connectionpool import HTTPConnectionPool

# Holds the head of an answer, and what comes with it.
_BUFFER_BYTES = 16 << 10
# RFC 9112: a status line, and header fields of visible characters that are not folded.
_PLAIN = re.compile(
    rb"HTTP/1\.1 (200|206)(?: [^\r\n]*)?\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)+)\r\n"
)
_FIELD = re.compile(r"([^:]+):([^\r]*)\r\n")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_MAX_FIELDS = 100
_NO_TARGET = re.compile(r"[\0- \x7f]")


class PlainHeaders(dict[str, str]):
    """Header fields by name in lower case; a field that comes twice has both values."""

    def get(self, name: str, default: Any = None, /) -> Any:
        """The value of a field, or the default."""
        return super().get(name.lower(), default)

    def __getitem__(self, name: str, /) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object, /) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())


class PlainAnswer:
    """An answer whose body has `length` bytes. The connection is kept once all are read."""

    def __init__(
        self, status: int, headers: PlainHeaders, length: int, reader: BufferedReader, kept: _Kept
    ) -> None:
        self.status = status
        self.headers = headers
        self._left = length
        self._reader = reader
        self._kept: _Kept | None = kept
        # An abort must not meet the next request of a connection that was given back.
        self._lock = threading.Lock()
        if not length:
            self._end(keep=True)

    def read(self, size: int, *, decode_content: bool = False) -> bytes:
        """At most `size` bytes as they were sent; empty at the end of the body.

        Raises OSError, and ProtocolError where the connection ends before the body.
        """
        assert not decode_content  # noqa: S101
        if not self._left:
            return b""
        piece = self._reader.read(min(size, self._left))
        if not piece:
            raise ProtocolError(f"{self._left} bytes of the body are missing")
        self._left -= len(piece)
        if not self._left:
            self._end(keep=True)
        return piece

    def shutdown(self) -> None:
        """Make a blocked `read` in another thread end."""
        with self._lock:
            if self._kept is not None:
                break_off(self._kept.socket)

    def close(self) -> None:
        """End the connection, unless the whole body was read."""
        self._end(keep=False)

    def _end(self, *, keep: bool) -> None:
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            self._reader.close()
            kept.give_back(keep=keep)


class _Kept:
    """A connection of a pool, which is used by one request at a time."""

    def __init__(
        self, pool: HTTPConnectionPool, connect_seconds: float, read_seconds: float
    ) -> None:
        self._pool = pool
        # Connections are checked by urllib3's pool before they are used again.
        self.connection = cast("Any", pool._get_conn())  # noqa: SLF001
        try:
            if self.connection.is_closed:
                self.connection.timeout = connect_seconds
                self.connection.connect()
            self.socket: socket.socket = self.connection.sock
            self.socket.settimeout(read_seconds)
        except BaseException:
            self.give_back(keep=False)
            raise

    def give_back(self, *, keep: bool) -> None:
        if not keep:
            self.connection.close()
        self._pool._put_conn(self.connection)  # noqa: SLF001


def fetch(
    pool: HTTPConnectionPool,
    target: str,
    headers: Mapping[str, str],
    *,
    connect_seconds: float,
    read_seconds: float,
) -> PlainAnswer | HTTPResponse:
    """The streamed answer to a GET. `target` is the path with its query, as it is sent.

    Raises what urllib3 raises, and OSError, ValueError for a target or a header that cannot be
    sent, and DownloadError where the wait of this thread has ended.
    """
    asked = _request(pool, target, headers)
    wait = current()
    try:
        kept = _Kept(pool, connect_seconds, read_seconds)
        try:
            if wait is not None:
                wait.check(pool.host)
                wait.connected = kept.socket
            kept.socket.sendall(asked)
            answer = _answer(kept, pool, target)
        except BaseException:
            kept.give_back(keep=False)
            raise
    except Exception as error:
        if wait is not None:
            # An aborted connection looks like a broken one, or like the end of the headers.
            wait.check(pool.host)
        if isinstance(error, ssl.SSLError):
            # A certificate's error is a ValueError too.
            raise SSLError(error) from error
        if isinstance(error, client.HTTPException):
            raise ProtocolError("the answer is no HTTP", error) from error
        raise
    if wait is not None and wait.has_ended:
        answer.close()
        wait.check(pool.host)
    return answer


def _request(pool: HTTPConnectionPool, target: str, headers: Mapping[str, str]) -> bytes:
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    breaks = {fields.count("\r"), fields.count("\n")}
    if breaks != {len(headers)} or "\0" in fields or _NO_TARGET.search(target):
        raise ValueError("a request that would be read as another one")
    host = ""
    if not any(name.lower() == "host" for name in headers):
        name = f"[{pool.host}]" if ":" in pool.host else pool.host
        usual = pool.port == (443 if pool.scheme == "https" else 80)
        host = f"Host: {name}\r\n" if usual else f"Host: {name}:{pool.port}\r\n"
    return f"GET {target} HTTP/1.1\r\n{host}{fields}\r\n".encode("latin-1")


def _answer(kept: _Kept, pool: HTTPConnectionPool, target: str) -> PlainAnswer | HTTPResponse:
    reader: Any = kept.socket.makefile("rb", _BUFFER_BYTES)
    try:
        return _plain(reader, kept) or _other(reader, kept, pool, target)
    except BaseException:
        reader.close()
        raise


def _plain(reader: BufferedReader, kept: _Kept) -> PlainAnswer | None:
    """The answer if it is plain; None: nothing of it was read then."""
    found = _PLAIN.match(reader.peek())
    if found is None:
        return None
    named = _FIELD.findall(found[2].decode("latin-1"))
    fields = {name.lower(): value.strip(" \t") for name, value in named}
    if len(fields) != len(named):
        fields = _joined(named)
    length = fields.get("content-length", "")
    stays = fields.get("connection", "keep-alive").lower() == "keep-alive"
    if (
        not _LENGTH.fullmatch(length)
        or "transfer-encoding" in fields
        or not stays
        or len(named) > _MAX_FIELDS
    ):
        return None
    reader.read(found.end())
    return PlainAnswer(int(found[1]), PlainHeaders(fields), int(length), reader, kept)


def _joined(named: list[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for given, spaced in named:
        name, value = given.lower(), spaced.strip(" \t")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


class _Begun:
    """A connection for http.client, of which the beginning may have been received already."""

    def __init__(self, reader: BufferedReader) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> BufferedReader:
        return self._reader


def _other(
    reader: BufferedReader, kept: _Kept, pool: HTTPConnectionPool, target: str
) -> HTTPResponse:
    """Any other answer, as urllib3's own connections make it."""
    begun: Any = _Begun(reader)
    answer = client.HTTPResponse(begun, method="GET")
    answer.begin()
    if answer.will_close:
        # The reader keeps the socket until the body has been read.
        kept.connection.close()
    return HTTPResponse(
        body=answer,
        headers=HTTPHeaderDict(answer.msg.items()),
        status=answer.status,
        version=answer.version,
        reason=answer.reason,
        preload_content=False,
        decode_content=False,
        original_response=answer,
        pool=pool,
        connection=kept.connection,
        request_method="GET",
        request_url=target,
        sock_shutdown=partial(socket.socket.shutdown, kept.socket),
    )
