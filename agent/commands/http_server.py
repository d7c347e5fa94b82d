"""A small HTTP server for metrics and probes, which slow or many clients cannot stop.

Each connection is for one request, has a thread, and ends after CONNECTION_SECONDS at the latest.
While MAX_CONNECTIONS are open, a new connection ends the oldest one: kubelet's probe, which takes
milliseconds, is always answered.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

from agent.commands.listening import listen
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_CONNECTIONS = 16
CONNECTION_SECONDS = 10.0
# How long a new connection waits for a thread whose connection was ended for it.
ROOM_SECONDS = 1.0
POLL_SECONDS = 0.5
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """A status, and a body with its type."""

    status: HTTPStatus
    body: bytes
    content_type: str = PLAIN


class Server(HTTPServer):
    """Answers GET requests of `routes`, by path. Raises BindError.

    An empty host means all addresses, port 0 a free port.
    """

    def __init__(
        self, address: tuple[str, int], routes: Mapping[str, Callable[[], Answer]]
    ) -> None:
        super().__init__(address, _Handler, bind_and_activate=False)
        self.routes = routes
        self.socket.close()
        self.socket = listen(address, "--http-bind-address", backlog=MAX_CONNECTIONS)
        self.server_address = self.socket.getsockname()
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        # The open connections and when they began (monotonic), the oldest first.
        self._open: dict[socket.socket, float] = {}

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Serve in a thread, until the process ends or `shutdown`."""
        threading.Thread(
            target=self.serve_forever, args=(POLL_SECONDS,), name="http", daemon=True
        ).start()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Answer in a thread of its own; end the oldest connection if there are too many."""
        if not self._slots.acquire(blocking=False):
            with self._lock:
                _end(next(iter(self._open), None))
            if not self._slots.acquire(timeout=ROOM_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = time.monotonic()
        thread = threading.Thread(
            target=self._answer, args=(request, client_address), name="http-answer", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            # The process may not have more threads now.
            self._forget(request)

    def _answer(self, request: socket.socket, client_address: object) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            # The client is gone, or was too slow.
            pass
        except Exception:
            log.exception("Answer of metrics or probes failed unexpectedly")
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
        self.shutdown_request(request)
        self._slots.release()

    def service_actions(self) -> None:
        """End the connections that have lasted too long."""
        with self._lock:
            limit = time.monotonic() - CONNECTION_SECONDS
            for request, began in self._open.items():
                if began < limit:
                    _end(request)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    # The time limit of each read and write.
    timeout = CONNECTION_SECONDS
    server_version = "localmodel-agent"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer by path; the query is ignored."""
        route = self.server.routes.get(self.path.partition("?")[0])
        answer = route() if route else Answer(HTTPStatus.NOT_FOUND, b"not found\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Log no requests: probes come every few seconds."""


def _end(request: socket.socket | None) -> None:
    if request is not None:
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)
