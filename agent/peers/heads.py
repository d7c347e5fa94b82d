"""Reads requests of HTTP/1.1, within limits: a peer may send anything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

# The heads of agents have about 400 bytes.
MAX_HEAD_BYTES = 8192
_END = b"\r\n\r\n"
_REQUEST = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.1")
# Without blanks of its own before the value: a long run of them would be tried in every division.
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~]*)")


class RequestError(Exception):
    """A request that gets no answer but this one. The connection ends after it."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Head:
    """A request without its body. The names of `fields` are in lower case."""

    method: str
    target: str
    fields: Mapping[str, str]

    @property
    def is_last(self) -> bool:
        """Whether the client sends no other request on this connection."""
        return self.fields.get("connection", "").lower() == "close"


class Reader:
    """Reads requests from a connection, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def wait(self) -> bool:
        """Wait for the first byte of a request. False: the client is gone. Raises OSError."""
        return bool(self._rest) or self._receive()

    def head(self) -> Head:
        """The head of the next request. Raises RequestError and OSError."""
        while _END not in self._rest:
            if len(self._rest) > MAX_HEAD_BYTES:
                raise RequestError(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"the request has more than {MAX_HEAD_BYTES} bytes before its body",
                )
            if not self._receive():
                raise ConnectionResetError("the request is not whole")
        head, _, self._rest = self._rest.partition(_END)
        return _parse(head)

    def body(self, head: Head, limit: int) -> bytes:
        """The body of the request, of at most `limit` bytes. Raises RequestError and OSError."""
        length = head.fields.get("content-length", "0")
        if "transfer-encoding" in head.fields or not re.fullmatch("[0-9]{1,9}", length):
            raise RequestError(
                HTTPStatus.LENGTH_REQUIRED, "a body needs its length, as Content-Length"
            )
        size = int(length)
        if size > limit:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body may have {limit} bytes"
            )
        while len(self._rest) < size:
            if not self._receive():
                raise ConnectionResetError("the body is not whole")
        body, self._rest = self._rest[:size], self._rest[size:]
        return body

    def _receive(self) -> bool:
        got = self._connection.recv(MAX_HEAD_BYTES)
        self._rest += got
        return bool(got)


def _parse(head: bytes) -> Head:
    first, *lines = head.decode("latin-1").split("\r\n")
    request = _REQUEST.fullmatch(first)
    found = [_FIELD.fullmatch(line) for line in lines]
    fields = {field[1].lower(): field[2].strip() for field in found if field}
    if not request or len(fields) < len(lines):
        # Also where a field comes twice: nobody sends that with a good reason.
        raise RequestError(HTTPStatus.BAD_REQUEST, "the request is not one of HTTP/1.1")
    return Head(request[1], request[2], fields)
