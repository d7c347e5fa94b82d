"""A peer that answers as a test says, over real sockets: right, wrong, half, or not at all."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.structs.exchange import Peer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True)
class Heard:
    """A request. The names of `fields` are in lower case."""

    method: str
    path: str
    fields: Mapping[str, str]
    body: bytes
    # Which connection it came on.
    connection: int


class Cut(bytes):
    """The start of an answer, after which the peer hangs up."""


def reply(status: int, body: bytes = b"", **fields: str) -> bytes:
    named = {"Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in fields.items()
    }
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in named.items())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body


class FakePeer:
    """Serves each connection in a thread. `answer` may wait for `closing`."""

    def __init__(self, answer: Callable[[Heard], bytes], context: ssl.SSLContext | None) -> None:
        self.answer = answer
        self.heard: list[Heard] = []
        self.closing = threading.Event()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def peer(self, fingerprint: str | None = None, node: str = "other") -> Peer:
        return Peer(node, f"127.0.0.1:{self._listener.getsockname()[1]}", fingerprint)

    def close(self) -> None:
        self.closing.set()
        # A listener that another thread accepts on is not closed by close() alone.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                number = len(self._connections)
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        with suppress(OSError, ValueError):
            connection = (
                self._context.wrap_socket(plain, server_side=True) if self._context else plain
            )
            with connection, connection.makefile("rb") as reader:
                while line := reader.readline():
                    method, path, _ = line.decode().split()
                    fields = {}
                    while (field := reader.readline().decode().strip()) != "":
                        name, _, value = field.partition(":")
                        fields[name.lower()] = value.strip()
                    body = reader.read(int(fields.get("content-length", "0")))
                    heard = Heard(method, path, fields, body, number)
                    self.heard.append(heard)
                    answer = self.answer(heard)
                    connection.sendall(answer)
                    if isinstance(answer, Cut):
                        return


@contextmanager
def fake_peer(
    answer: Callable[[Heard], bytes], context: ssl.SSLContext | None = None
) -> Iterator[FakePeer]:
    peer = FakePeer(answer, context)
    try:
        yield peer
    finally:
        peer.close()


def wait_for(check: Callable[[], object]) -> None:
    """Wait until something holds; the limit is far above what it takes."""
    deadline = time.monotonic() + 25
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)
