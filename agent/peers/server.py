"""The HTTP server that peers ask: by TLS where an Admission says who may, else by plain HTTP."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.peers.connection import Connection
from agent.peers.handler import Handler, Serving
from agent.peers.sending import UploadLimits, Uploads
from agent.structs.counts import NO_COUNTS
from agent.structs.log import log

if TYPE_CHECKING:
    from agent.peers.admission import Admission
    from agent.peers.shelf import Shelf
    from agent.structs.counts import Counts

# How often connections that are late are ended.
_LOOK_SECONDS = 1.0
# How long `close` waits for the threads of all connections.
_CLOSE_SECONDS = 5.0


class Server:
    """Serves a shelf on a socket that listens, and that it closes.

    `admission` None: by plain HTTP, to everybody who reaches the port.
    """

    def __init__(
        self,
        listener: socket.socket,
        shelf: Shelf,
        admission: Admission | None,
        limits: UploadLimits,
        counts: Counts = NO_COUNTS,
    ) -> None:
        self._listener = listener
        self._listener.settimeout(_LOOK_SECONDS)
        self.port = int(self._listener.getsockname()[1])
        self._limit = limits.connections
        self._closing = threading.Event()
        self._uploads = Uploads(limits, counts)
        self._serving = Serving(shelf, self._uploads, admission, self._closing)
        self._lock = threading.Lock()
        # The open connections, the oldest first.
        self._open: dict[Connection, threading.Thread] = {}
        self._accepting = threading.Thread(target=self._accept, name="peers", daemon=True)

    def start(self) -> None:
        """Serve in threads, until the process ends or `close`."""
        self._accepting.start()

    def close(self) -> None:
        """End all connections, and free the port."""
        self._closing.set()
        self._uploads.close()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._accepting.is_alive():
            self._accepting.join(_CLOSE_SECONDS)
        self._listener.close()
        with self._lock:
            left = dict(self._open)
        deadline = time.monotonic() + _CLOSE_SECONDS
        while left and time.monotonic() < deadline:
            # Again, as one may begin its encryption just now.
            for connection in left:
                connection.end()
            next(iter(left.values())).join(0.1)
            left = {one: thread for one, thread in left.items() if thread.is_alive()}

    def _accept(self) -> None:
        looked = time.monotonic()
        while not self._closing.is_set():
            try:
                accepted, _ = self._listener.accept()
            except TimeoutError:
                pass
            except OSError as error:
                if not self._closing.is_set():
                    # Such as too many open files: others may be closed soon.
                    log.warning("Could not accept a connection of a peer", error=str(error))
                    self._closing.wait(_LOOK_SECONDS)
            else:
                self._begin(accepted)
            now = time.monotonic()
            if now - looked >= _LOOK_SECONDS:
                looked = now
                with self._lock:
                    late = [connection for connection in self._open if connection.is_late(now)]
                for connection in late:
                    connection.end()

    def _begin(self, accepted: socket.socket) -> None:
        """Serve a connection; or end it, if there are too many that are in use."""
        connection = Connection(accepted)
        thread = threading.Thread(
            target=self._serve, args=(connection,), name="peers-answer", daemon=True
        )
        with self._lock:
            full = len(self._open) >= self._limit
            idle = next((one for one in self._open if one.is_idle), None) if full else None
            if idle is not None:
                del self._open[idle]
            if not full or idle is not None:
                self._open[connection] = thread
        if idle is not None:
            # Its thread ends at once, and closes it.
            idle.end()
        if full and idle is None:
            accepted.close()
            return
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread.start()
        except (OSError, RuntimeError):
            # The client is gone, or the process may not have more threads now.
            self._forget(connection)

    def _serve(self, connection: Connection) -> None:
        try:
            Handler(connection, self._serving).run()
        except OSError:
            # The peer is gone, was too slow, or has a certificate that is not known.
            pass
        except Exception:
            log.exception("Answer to a peer failed unexpectedly")
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._open.pop(connection, None)
        connection.end()
        connection.socket.close()
