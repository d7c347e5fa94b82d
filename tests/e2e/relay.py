"""A relay in front of an origin, which counts what the origin sends, and can slow it or cut it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

CHUNK = 64 << 10


class Relay:
    """Connects each client to a port of this machine. `sent` is in bytes, of all connections."""

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.sent = 0
        # All connections together; 0: no limit.
        self.bytes_per_second = 0.0
        # Whether no connection is possible now.
        self.is_cut = False
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where clients find the origin."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, size: int) -> None:
        """Count bytes, and wait as long as they take at the origin's rate."""
        with self._lock:
            self.sent += size
            if not self.bytes_per_second:
                return
            begin = max(time.monotonic(), self._free_at)
            self._free_at = begin + size / self.bytes_per_second
            wait = self._free_at - time.monotonic()
        time.sleep(max(0.0, wait))

    def close(self) -> None:
        """Stop the relay."""
        self.is_cut = True
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, *_: object) -> None:
        """Ignore the error: both ends may close at any time."""


class _Connection(BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        relay = self.server.relay
        if relay.is_cut:
            return
        with closing(socket.create_connection(relay.target)) as origin:
            up = threading.Thread(target=_copy, args=(self.request, origin), daemon=True)
            up.start()
            with suppress(OSError):
                while not relay.is_cut and (piece := origin.recv(CHUNK)):
                    relay.count(len(piece))
                    self.request.sendall(piece)
            for end in (self.request, origin):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            up.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(CHUNK):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
