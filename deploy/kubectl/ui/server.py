"""The server of the page, on loopback. It only reads, and answers only who knows its token.

What keeps others out: the server listens on 127.0.0.1; the token is a part of each path; a request
whose Host is not this machine is refused, so that no site can reach the server under its own name
(DNS rebinding); no answer allows another origin to read it; the page runs no script but its own.
The link that opens the browser works once, because other users see the arguments of a process.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.resources.abc import Traversable

    from deploy.kubectl.ui.feed import Feed

HOST = "127.0.0.1"
_HOSTS = {HOST, "localhost"}
# Connections at a time, and how many of them may be streams of events: a browser tab has one.
MOST_CONNECTIONS = 64
MOST_STREAMS = 16
# For the next request of a connection, and for a browser that does not read.
TIMEOUT_SECONDS = 30.0
# A stream has an event at least this often, so that a broken connection is noticed.
BEAT_SECONDS = 5.0
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Serves the page until `stop`. Raises OSError if the port is taken."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, feed: Feed, explain: Callable[[Mapping[str, str]], object], port: int
    ) -> None:
        self.feed = feed
        self.explain = explain
        self.page = _page()
        self.token = secrets.token_urlsafe(24)
        self._connections = threading.Semaphore(MOST_CONNECTIONS)
        self.streams = threading.Semaphore(MOST_STREAMS)
        self._link = ""
        self._linking = threading.Lock()
        super().__init__((HOST, port), Handler)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{HOST}:{self.server_port}"

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"{self.origin}/{self.token}/"

    def one_time_url(self) -> str:
        """An address that leads to the page once."""
        with self._linking:
            self._link = secrets.token_urlsafe(24)
            return f"{self.origin}/{self._link}"

    def takes_link(self, text: str) -> bool:
        """Whether this is the link that works once; from now on, it does not."""
        with self._linking:
            found = bool(self._link) and _equal(text, self._link)
            if found:
                self._link = ""
            return found

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, name="ui", daemon=True).start()

    def stop(self) -> None:
        """End all streams, and close the port."""
        self.feed.close()
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close one too many."""
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: browsers close connections at any time."""


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    server_version = "localmodel"
    sys_version = ""
    timeout = TIMEOUT_SECONDS
    server: Server
    _routes: ClassVar[frozenset[str]] = frozenset({"events", "why"})

    def log_message(self, *_: Any) -> None:
        """Log nothing: paths have the token."""

    def end_headers(self) -> None:
        """Add the headers that each answer has, errors too."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer, if the request is from this machine and has the token."""
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if name not in _HOSTS:
            self._text(HTTPStatus.FORBIDDEN, f"Use the host {HOST}.")
            return
        url = urlsplit(self.path)
        token, slash, path = url.path.removeprefix("/").partition("/")
        if not slash and self.command == "GET" and self.server.takes_link(token):
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Location", f"/{self.server.token}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif not slash or not _equal(token, self.server.token):
            message = (
                "Use the address that `kubectl localmodel ui` printed: it changes with each start."
            )
            self._text(HTTPStatus.NOT_FOUND, message)
        elif path == "events":
            self._stream()
        elif path == "why":
            self._why({name: values[0] for name, values in parse_qs(url.query).items()})
        else:
            self._file(path or "index.html")

    def _file(self, name: str) -> None:
        found = self.server.page.get(name)
        if found is None:
            self._text(HTTPStatus.NOT_FOUND, "There is no such file.")
        else:
            kind, data = found
            self._answer(HTTPStatus.OK, kind, data)

    def _why(self, parameters: Mapping[str, str]) -> None:
        try:
            answer = self.server.explain(parameters)
        except ValueError as error:
            self._text(HTTPStatus.NOT_FOUND, str(error))
        else:
            self._answer(HTTPStatus.OK, "application/json", msgspec.json.encode(answer))

    def _stream(self) -> None:
        """Send events until the browser goes."""
        if not self.server.streams.acquire(blocking=False):
            message = f"There are {MOST_STREAMS} pages open already: close some."
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, message)
            return
        try:
            self.close_connection = True
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(b"retry: 1000\n\n")
            reader = self.server.feed.reader(self.headers.get("Last-Event-ID", ""))
            with suppress(OSError):
                while (events := self.server.feed.wait(reader, BEAT_SECONDS)) is not None:
                    self.wfile.write(b"".join(event.encoded() for event in events))
        finally:
            self.server.streams.release()

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _page() -> dict[str, tuple[str, bytes]]:
    """The files of the page, with their types."""
    folder: Traversable = files(__package__) / "page"
    return {
        one.name: (_TYPES["." + one.name.rpartition(".")[2]], one.read_bytes())
        for one in folder.iterdir()
    }


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
