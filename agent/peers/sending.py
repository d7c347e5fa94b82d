"""Sends parts of files to peers, within the limits that an administrator has set."""

from __future__ import annotations

import os
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.structs.counts import NO_COUNTS
from agent.structs.token_bucket import TokenBucket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from agent.structs.counts import Counts

# What is sent at a time. The next part has to wait for the limit in bytes per second.
_PLAIN_BYTES = 1 << 20
_TLS_BYTES = 256 << 10
_LEAST_BYTES = 16 << 10


@dataclass(frozen=True)
class UploadLimits:
    """The limits of what peers may take.

    `transfers` get content at a time, of `connections` that may be open: each has a thread.
    `bytes_per_second` counts for all together; None: no limit.
    """

    transfers: int = 16
    # A seed has up to 47 neighbours, each with up to three connections: see hooks.exchange.
    connections: int = 256
    bytes_per_second: int | None = None


class Uploads:
    """All transfers of content to peers. Any thread may call it."""

    def __init__(self, limits: UploadLimits, counts: Counts = NO_COUNTS) -> None:
        self._slots = threading.BoundedSemaphore(limits.transfers)
        self._bucket = TokenBucket(limits.bytes_per_second)
        # A small part of a second's, so that no transfer waits long for those of the others.
        self._at_a_time = max(_LEAST_BYTES, (limits.bytes_per_second or 1 << 40) // 64)
        self._counts = counts
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def close(self) -> None:
        """End transfers that wait for the limit."""
        self._closing.set()

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """A place for a transfer; False: all are taken."""
        taken = self._slots.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken:
                self._slots.release()

    def send_file(
        self,
        connection: socket.socket,
        descriptor: int,
        start: int,
        end: int,
        going: Callable[[], None],
    ) -> None:
        """Send the bytes of a file from `start` up to and without `end`.

        `going` is called before each part. Raises OSError, also if the file ends earlier.
        """
        send = _Encrypted() if isinstance(connection, ssl.SSLSocket) else _Plain()
        sent = start
        try:
            while sent < end:
                count = min(send.at_a_time, self._at_a_time, end - sent)
                self._pace(count)
                going()
                sent += send(connection, descriptor, sent, count)
        finally:
            self._counts.sent_to_peers(sent - start)

    def _pace(self, count: int) -> None:
        with self._lock:
            seconds = self._bucket.take(count, time.monotonic())
        if seconds and self._closing.wait(seconds):
            raise ConnectionAbortedError("the server closes")


class _Plain:
    """Sends without a copy of the bytes in this process."""

    at_a_time = _PLAIN_BYTES

    def __call__(self, connection: socket.socket, descriptor: int, offset: int, count: int) -> int:
        sent = os.sendfile(connection.fileno(), descriptor, offset, count)
        if not sent:
            raise ConnectionAbortedError("the file has become shorter")
        return sent


class _Encrypted:
    """Sends through one buffer: a new one for each part would take twice the time."""

    at_a_time = _TLS_BYTES

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_TLS_BYTES))

    def __call__(self, connection: socket.socket, descriptor: int, offset: int, count: int) -> int:
        got = os.preadv(descriptor, [self._buffer[:count]], offset)
        if not got:
            raise ConnectionAbortedError("the file has become shorter")
        connection.sendall(self._buffer[:got])
        return got
