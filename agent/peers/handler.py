"""Answers the requests of one peer.

    GET|HEAD /v2/<key>/blobs/sha256:<hex>         a file, or one range of it
    GET /v2/<key>/pieces?after=<n>&wait=<s>       the pieces that are there, once that changes
    GET /v2/<key>/manifests/sha256:<hex>          the verified manifest of the published copy
    PUT /v2/introduction                          the certificate of the peer

What a requester may not have is answered as if it were not there.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from agent.peers.admission import MAX_CERTIFICATE_BYTES
from agent.peers.connection import IDLE_SECONDS, REQUEST_SECONDS
from agent.peers.heads import Reader, RequestError
from agent.peers.shelf import MAX_WAIT_SECONDS
from agent.structs.log import log
from agent.structs.pieces import first_of, piece_bytes
from crds.keys import MODEL_KEY_LENGTH

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping

    from agent.peers.admission import Admission
    from agent.peers.connection import Connection
    from agent.peers.heads import Head
    from agent.peers.sending import Uploads
    from agent.peers.shelf import Opened, Shelf

# A peer takes each part of an answer, of at most a mebibyte of a file, within this time.
PART_SECONDS = 20.0
# A poll is answered so long after the last answer at the earliest: then many pieces in one.
POLL_SECONDS = 0.4
GRANT = "localmodel-grant"

_KEY = rf"/v2/(?P<key>[0-9a-f]{{{MODEL_KEY_LENGTH}}})"
_HEX = "(?P<hex>[0-9a-f]{64})"
_POLL = r"\?after=(?P<after>[0-9]{1,20})&wait=(?P<wait>[0-9]{1,4})"
_INTRODUCTION = "/v2/introduction"
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})")
_BINARY = "application/octet-stream"
_JSON = "application/json"


@dataclass(frozen=True)
class Serving:
    """What all connections of a server share. `admission` None: everybody may ask."""

    shelf: Shelf
    uploads: Uploads
    admission: Admission | None
    closing: threading.Event


class Handler:
    """Serves one connection until it ends."""

    def __init__(self, connection: Connection, serving: Serving) -> None:
        self._connection = connection
        self._serving = serving
        self._certificate: bytes | None = None
        # When the last poll was answered (monotonic).
        self._polled = 0.0
        self._routes: tuple[tuple[re.Pattern[str], Callable[[Head, re.Match[str]], None]], ...] = (
            (re.compile(f"(?:GET|HEAD) {_KEY}/blobs/sha256:{_HEX}"), self._blob),
            (re.compile(f"GET {_KEY}/pieces{_POLL}"), self._pieces),
            (re.compile(f"GET {_KEY}/manifests/sha256:{_HEX}"), self._manifest),
        )

    def run(self) -> None:
        """Answer requests until the peer is gone or may not go on. Raises OSError."""
        admission = self._serving.admission
        if admission is not None:
            encrypted = admission.context.wrap_socket(
                self._connection.socket, server_side=True, do_handshake_on_connect=False
            )
            self._connection.socket = encrypted
            encrypted.do_handshake()
            self._certificate = encrypted.getpeercert(binary_form=True)
        reader = Reader(self._connection.socket)
        try:
            while not self._serving.closing.is_set() and reader.wait():
                self._connection.allow(REQUEST_SECONDS)
                head = reader.head()
                self._answer(head, reader)
                if head.is_last:
                    return
                self._connection.is_idle = True
                self._connection.allow(IDLE_SECONDS)
        except RequestError as error:
            self._refuse(error.status, str(error), {"Connection": "close"})

    def _answer(self, head: Head, reader: Reader) -> None:
        admission = self._serving.admission
        if admission is not None:
            if (head.method, head.target) == ("PUT", _INTRODUCTION):
                self._introduce(admission, reader.body(head, MAX_CERTIFICATE_BYTES))
                return
            if admission.node(self._certificate) is None:
                raise RequestError(
                    HTTPStatus.UNAUTHORIZED,
                    "the connection has no certificate of a peer: introduce it by PUT "
                    f"{_INTRODUCTION}, and connect with it",
                )
        self._connection.is_idle = False
        reader.body(head, limit=0)
        for pattern, route in self._routes:
            match = pattern.fullmatch(f"{head.method} {head.target}")
            if match is not None:
                try:
                    route(head, match)
                except DiskError as error:
                    log.warning("Could not read a model for a peer", error=str(error.__cause__))
                    self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error), head=head)
                return
        self._refuse(HTTPStatus.NOT_FOUND, "there is nothing of this name", head=head)

    def _introduce(self, admission: Admission, certificate: bytes) -> None:
        if admission.introduce(certificate):
            self._send(HTTPStatus.NO_CONTENT, {})
        else:
            self._refuse(
                HTTPStatus.FORBIDDEN,
                "this agent's LocalModelNode lists no peer with this certificate: the list follows "
                "the LocalModelNode of the peer within seconds",
            )

    def _blob(self, head: Head, match: re.Match[str]) -> None:
        with _reading_disk():
            opened = self._serving.shelf.open(match["key"], _grant(head), match["hex"])
        if opened is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such file of this model", head=head)
            return
        with opened:
            asked = _asked(head, opened)
            if isinstance(asked, str):
                self._refuse(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    asked,
                    {"Content-Range": f"bytes */{opened.size}"},
                    head=head,
                )
            elif head.method == "HEAD":
                self._begin_file(head, opened, *asked)
            else:
                self._send_file(head, opened, *asked)

    def _send_file(self, head: Head, opened: Opened, start: int, end: int) -> None:
        uploads = self._serving.uploads
        with uploads.slot() as taken:
            if not taken:
                self._refuse_busy()
                return
            self._begin_file(head, opened, start, end)
            uploads.send_file(
                self._connection.socket,
                opened.descriptor,
                start,
                end,
                going=lambda: self._connection.allow(PART_SECONDS),
            )

    def _begin_file(self, head: Head, opened: Opened, start: int, end: int) -> None:
        fields = {"Content-Type": _BINARY, "Content-Length": str(end - start)}
        if "range" not in head.fields:
            self._send(HTTPStatus.OK, fields)
            return
        fields["Content-Range"] = f"bytes {start}-{end - 1}/{opened.size}"
        self._send(HTTPStatus.PARTIAL_CONTENT, fields)

    def _pieces(self, head: Head, match: re.Match[str]) -> None:
        wait = min(float(match["wait"]), MAX_WAIT_SECONDS)
        self._connection.allow(wait + POLL_SECONDS + REQUEST_SECONDS)
        self._serving.closing.wait(max(0.0, self._polled + POLL_SECONDS - time.monotonic()))
        with _reading_disk():
            news = self._serving.shelf.pieces(
                match["key"], _grant(head), int(match["after"]), wait, self._is_over
            )
        self._polled = time.monotonic()
        if news is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such model")
            return
        revision, files = news
        body = json.dumps({"revision": revision, "files": files}, separators=(",", ":")).encode()
        self._send(HTTPStatus.OK, {"Content-Type": _JSON}, body)

    def _manifest(self, head: Head, match: re.Match[str]) -> None:
        with self._serving.uploads.slot() as taken:
            if not taken:
                self._refuse_busy()
                return
            with _reading_disk():
                content = self._serving.shelf.manifest(
                    match["key"], _grant(head), f"sha256:{match['hex']}"
                )
            if content is None:
                self._refuse(HTTPStatus.NOT_FOUND, "there is no such manifest of this model")
            else:
                self._send(HTTPStatus.OK, {"Content-Type": _JSON}, content)

    def _is_over(self) -> bool:
        return self._serving.closing.is_set() or self._connection.is_gone()

    def _refuse_busy(self) -> None:
        self._refuse(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "this agent sends files to as many others as it may now",
            {"Retry-After": "1"},
        )

    def _refuse(
        self,
        status: HTTPStatus,
        text: str,
        fields: Mapping[str, str] | None = None,
        *,
        head: Head | None = None,
    ) -> None:
        body = f"{text}\n".encode()
        told = {"Content-Type": "text/plain; charset=utf-8", **(fields or {})}
        if head is not None and head.method == "HEAD":
            self._send(status, {**told, "Content-Length": str(len(body))})
        else:
            self._send(status, told, body)

    def _send(
        self, status: HTTPStatus, fields: Mapping[str, str], body: bytes | None = None
    ) -> None:
        """Send an answer; the content follows if there is no body and `fields` has its length."""
        length = {} if body is None else {"Content-Length": str(len(body))}
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            *(f"{name}: {value}" for name, value in {**fields, **length}.items()),
        ]
        self._connection.allow(PART_SECONDS)
        head = "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")
        self._connection.socket.sendall(head + (body or b""))


class DiskError(Exception):
    """The disk gave an error, which is its cause. A peer is told no path."""


@contextmanager
def _reading_disk() -> Iterator[None]:
    """Tell errors of the disk from those of the connection."""
    try:
        yield
    except OSError as error:
        raise DiskError("the disk of this node gives an error") from error


def _grant(head: Head) -> str:
    return head.fields.get(GRANT, "")


def _asked(head: Head, opened: Opened) -> tuple[int, int] | str:
    """The bytes that a request asks for, from the first up to and without the second.

    Or why they cannot be had.
    """
    start, end = 0, opened.size
    if "range" in head.fields:
        match = _RANGE.fullmatch(head.fields["range"])
        if match is None:
            return "ask for one range, as bytes=<first>-<last>"
        start, end = int(match[1]), min(int(match[2]) + 1, opened.size)
        if start >= end:
            return f"the range is not one of the file, which has {opened.size} bytes"
    if opened.pieces is not None and start < end:
        step = piece_bytes(opened.size)
        first, last = start // step, (end - 1) // step
        missing = ((1 << last - first + 1) - 1 << first) & ~opened.pieces
        if missing:
            return f"piece {first_of(missing)} of the file is not here yet"
    return start, end
