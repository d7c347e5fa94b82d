"""A web server and an S3 server on loopback, which can misbehave as a test requires."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_CONNECT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append((self.command, path, dict(self.headers)))  # type: ignore[attr-defined]
        try:
            self.server.answer(self, path)  # type: ignore[attr-defined]
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send the status and the headers of a response."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def hang_up(self) -> None:
        """Close the connection with a FIN."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Close the connection with a RST, as a router does that has lost its state."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # The backlog: tests open many connections at once.
    request_queue_size = 128

    def __init__(
        self, answer: Callable[[Handler, str], None], address: str, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__((address, 0), Handler)
        self.answer = answer
        self.scheme = "https" if tls else "http"
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        if tls:
            # The handshake is done in each connection's thread: a client that refuses the
            # certificate must not block other clients.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.server_address[0]!s}:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Ignore the error: a client may close its connection at any time."""


@contextmanager
def serving(
    answer: Callable[[Handler, str], None],
    address: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Iterator[Server]:
    server = Server(answer, address, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Span:
    """The requested range of a file of `size` bytes; `end` is exclusive."""

    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.end - 1}/{self.size}"

    @property
    def length(self) -> int:
        return self.end - self.start


def span_of(handler: Handler, size: int) -> Span | None:
    """The range in a request's Range header; None without that header."""
    asked = _RANGE.fullmatch(handler.headers.get("Range", ""))
    if asked is None:
        return None
    return Span(int(asked[1]), min(int(asked[2] or size - 1) + 1, size), size)


@dataclass
class WebFiles:
    """Serves files by path, with ETags and ranges, as the HTTP standard says."""

    files: dict[str, bytes]
    # Each response waits for the gate after half of its body, except that of one byte.
    gate: threading.Event | None = None

    def __call__(self, handler: Handler, path: str) -> None:
        data = self.files.get(path)
        if data is None:
            return handler.reply(404)
        if handler.headers.get("If-Match", etag(data)) != etag(data):
            return handler.reply(412)
        span = span_of(handler, len(data))
        if span is not None and span.start >= len(data):
            return handler.reply(416, headers={"Content-Range": f"bytes */{len(data)}"})
        headers = {"ETag": etag(data)}
        if span is not None:
            headers["Content-Range"] = span.content_range
            data = data[span.start : span.end]
        handler.begin(206 if span else 200, headers | {"Content-Length": str(len(data))})
        if handler.command == "HEAD":
            return None
        half = len(data) // 2
        handler.wfile.write(data[:half])
        if self.gate is not None and half:
            handler.wfile.flush()
            self.gate.wait(10)
        handler.wfile.write(data[half:])
        return None


@dataclass
class Buckets:
    """An S3 server: ListObjectsV2 in pages of `page` keys, GetObject and HeadObject."""

    objects: dict[str, dict[str, bytes]]
    page: int = 1000
    # Status and error code of every response, if set.
    refuse: tuple[int, str] | None = None
    # Called before each GET of an object.
    before_get: Callable[[Handler, str], bool] = field(default=lambda _h, _k: True)
    # Whether listing buckets is denied, while objects can be read.
    unlisted: bool = False
    # Whether the bucket is in the host name instead of the path.
    virtual: bool = False
    # Algorithm and base64 checksum, by key.
    checksums: dict[str, tuple[str, str]] = field(default_factory=dict)
    # Whether objects are encrypted with KMS, so that their ETags are no MD5 of the content.
    sealed: bool = False

    def __call__(self, handler: Handler, path: str) -> None:
        if self.virtual:
            path = f"/{handler.headers['Host'].partition('.')[0]}{path}"
        bucket, _, key = path.lstrip("/").partition("/")
        if self.refuse is not None:
            return self._error(handler, *self.refuse)
        if bucket not in self.objects:
            return self._error(handler, 404, "NoSuchBucket")
        if not key:
            return self._list(handler, bucket)
        data = self.objects[bucket].get(key)
        if data is not None and handler.command == "HEAD":
            return handler.reply(200, data, self._described(key, data))
        if not self.before_get(handler, key):
            return None
        return self._get(handler, self.objects[bucket].get(key))

    def _described(self, key: str, data: bytes) -> dict[str, str]:
        found = {"ETag": etag(data)}
        if self.sealed:
            found["x-amz-server-side-encryption"] = "aws:kms"
        if key not in self.checksums:
            return found
        algorithm, value = self.checksums[key]
        return found | {
            f"x-amz-checksum-{algorithm.lower()}": value,
            "x-amz-checksum-type": "FULL_OBJECT",
        }

    def _list(self, handler: Handler, bucket: str) -> None:
        if self.unlisted:
            return self._error(handler, 403, "AccessDenied")
        query = {name: values[0] for name, values in parse_qs(urlsplit(handler.path).query).items()}
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        limit = min(self.page, int(query.get("max-keys", "1000")))
        keys = [k for k in sorted(self.objects[bucket]) if k.startswith(prefix) and k > after]
        shown = keys[:limit]
        entries = "".join(self._entry(key, self.objects[bucket][key]) for key in shown)
        more = len(keys) > len(shown)
        token = (
            f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if more else ""
        )
        return handler.reply(
            200,
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}"
            "</ListBucketResult>".encode(),
            {"Content-Type": "application/xml"},
        )

    def _entry(self, key: str, data: bytes) -> str:
        checksum = ""
        if key in self.checksums:
            checksum = (
                f"<ChecksumAlgorithm>{self.checksums[key][0]}</ChecksumAlgorithm>"
                "<ChecksumType>FULL_OBJECT</ChecksumType>"
            )
        return (
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
            f"<ETag>{etag(data)}</ETag>{checksum}</Contents>"
        )

    def _get(self, handler: Handler, data: bytes | None) -> None:
        if data is None:
            return self._error(handler, 404, "NoSuchKey")
        if handler.headers.get("If-Match", etag(data)) != etag(data):
            return self._error(handler, 412, "PreconditionFailed")
        span = span_of(handler, len(data))
        if span is None:
            return handler.reply(200, data, {"ETag": etag(data)})
        if span.start >= len(data):
            return self._error(handler, 416, "InvalidRange")
        return handler.reply(
            206,
            data[span.start : span.end],
            {"ETag": etag(data), "Content-Range": span.content_range},
        )

    def _error(self, handler: Handler, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        handler.reply(status, body, {"Content-Type": "application/xml"})
