"""Time limits for requests to origins.

Every request ends after some time, whatever an origin sends and however slowly, and at once when
its download is cancelled. The timeouts of sockets do not do that: each byte starts them again.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The limits of a listing with all pages, of one request with its answer, and of the headers of a
# range's answer.
LISTING_SECONDS = 600.0
CALL_SECONDS = 120.0
HEAD_SECONDS = 60.0
# All pages of a listing together: the files are in memory as long as a download runs.
LISTING_BYTES = 48 << 20
# The same for a cache of a namespace: the listings of many are in memory at once.
NAMESPACE_LISTING_BYTES = 8 << 20

TICK_SECONDS = 0.1


@dataclass(eq=False)
class Wait:
    """The limits of what one thread waits for.

    `until` is in monotonic seconds, `left` is how many bytes may still come, `is_over` is whether
    the request is not needed any more. A wait inside `outer` ends with it.
    """

    until: float
    left: int
    is_over: Callable[[], bool]
    outer: Wait | None = None
    # The connection of the request.
    connected: socket.socket | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the wait has taken too long, or is not needed any more."""
        return self.is_over() or time.monotonic() >= self.until

    def check(self, where: str) -> None:
        """Raises DownloadError if the wait has ended. `where` names the request in messages."""
        if self.has_ended:
            raise DownloadError(
                FailureKind.UNREACHABLE,
                f"{where} takes too long to answer, and was given up: check the origin and the "
                "network of the node, it is tried again by itself",
            )

    def take(self, count: int, where: str) -> None:
        """Count bytes that have come. Raises DownloadError if they are too many."""
        wait: Wait | None = self
        while wait is not None:
            wait.left -= count
            if wait.left < 0:
                raise too_large(where)
            wait = wait.outer

    def break_off(self) -> None:
        """Shut the connection down, so that a read on it ends."""
        if self.connected is not None:
            break_off(self.connected)


def break_off(connected: socket.socket) -> None:
    """Shut a connection down, so that a read on it in another thread ends."""
    # Not SSLSocket's shutdown: it discards the state of TLS while another thread reads.
    with suppress(OSError, TypeError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


_current: ContextVar[Wait | None] = ContextVar("wait", default=None)


def current() -> Wait | None:
    """The wait of this thread."""
    return _current.get()


def resume(wait: Wait | None) -> None:
    """Give this thread the wait of the thread that it helps."""
    _current.set(wait)


def listing_bytes(namespace: str) -> int:
    """The most bytes of a listing for caches of a namespace; empty: for LocalModelCaches."""
    return NAMESPACE_LISTING_BYTES if namespace else LISTING_BYTES


@contextmanager
def waiting(
    seconds: float, is_over: Callable[[], bool] = lambda: False, *, size: int = LISTING_BYTES
) -> Iterator[Wait]:
    """Limits this thread's requests inside the context to some seconds, and until `is_over`.

    At most `size` bytes of answers come that are not written to the disk. A wait inside another
    ends with the outer one too.
    """
    outer = _current.get()
    until = time.monotonic() + seconds
    if outer is None:
        wait = Wait(until, size, is_over)
    else:
        wait = Wait(
            min(until, outer.until), size, lambda: is_over() or outer.has_ended, outer=outer
        )
    token = _current.set(wait)
    _WATCH.add(wait)
    try:
        yield wait
    finally:
        _WATCH.remove(wait)
        _current.reset(token)


def too_large(where: str) -> DownloadError:
    """The failure for an answer that is larger than any listing of a model."""
    return DownloadError(
        FailureKind.UNSUPPORTED,
        f"{where} answers with more than a model's listing has: check sourceModelUri and the "
        "endpoint, or put the model's files into fewer and larger ones",
    )


class _Watch:
    """Breaks off waits that have ended. Its thread runs while there is a wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One for each listing, request or read that is under way.
        self._waits: set[Wait] = set()
        self._runs = False

    def add(self, wait: Wait) -> None:
        with self._lock:
            self._waits.add(wait)
            if not self._runs:
                threading.Thread(target=self._run, name="waits", daemon=True).start()
                # Last: where no thread can be started now, the next wait tries again.
                self._runs = True

    def remove(self, wait: Wait) -> None:
        with self._lock:
            self._waits.discard(wait)

    def _run(self) -> None:
        idle = 0
        while True:
            time.sleep(TICK_SECONDS)
            with self._lock:
                waits = tuple(self._waits)
                idle = 0 if waits else idle + 1
                if idle > 1 / TICK_SECONDS:
                    self._runs = False
                    return
            for wait in waits:
                if wait.has_ended:
                    wait.break_off()


_WATCH = _Watch()
