"""How long origins are waited for.

All that an origin is asked for ends after some time, whatever it sends and however slowly, and at
once where nobody wants it any more. Timeouts of sockets do not do that: each byte begins them anew.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localmodel.agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A listing with all its pages, one request of it with its answer, and the head of a range's answer.
LISTING_SECONDS = 600.0
CALL_SECONDS = 120.0
HEAD_SECONDS = 60.0
# All pages of a listing together: what comes of them is in memory as long as a download runs.
LISTING_BYTES = 48 << 20
# For a namespace: listings of many are in memory at once.
NAMESPACE_LISTING_BYTES = 8 << 20

TICK_SECONDS = 0.1


@dataclass(eq=False)
class Wait:
    """What one thread waits for. `until` is monotonic seconds; `left` bytes may still come."""

    until: float
    left: int
    is_over: Callable[[], bool]
    outer: Wait | None = None
    # The connection on which an answer comes.
    connected: socket.socket | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it has taken too long, or is not wanted any more."""
        return self.is_over() or time.monotonic() >= self.until

    def check(self, where: str) -> None:
        """Raises DownloadError if it has ended. `where` names in messages what was asked."""
        if self.has_ended:
            raise DownloadError(
                FailureKind.UNREACHABLE,
                f"{where} takes too long to answer, and was given up: check the origin and the "
                "network of the node, it is tried again by itself",
            )

    def take(self, count: int, where: str) -> None:
        """Take in that so many bytes have come. Raises DownloadError if it is too much."""
        wait: Wait | None = self
        while wait is not None:
            wait.left -= count
            if wait.left < 0:
                raise too_large(where)
            wait = wait.outer

    def break_off(self) -> None:
        """Make what reads from its connection see the end of it."""
        connected = self.connected
        if connected is not None:
            # Not SSLSocket's: it takes the state of TLS from under the thread that reads.
            with suppress(OSError, TypeError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


_current: ContextVar[Wait | None] = ContextVar("wait", default=None)


def current() -> Wait | None:
    """What this thread waits for now."""
    return _current.get()


def resume(wait: Wait | None) -> None:
    """Let this thread be a helper of one that waits."""
    _current.set(wait)


def listing_bytes(namespace: str) -> int:
    """What a listing may have that is asked for caches of a namespace; empty: LocalModelCaches."""
    return NAMESPACE_LISTING_BYTES if namespace else LISTING_BYTES


@contextmanager
def waiting(
    seconds: float, is_over: Callable[[], bool] = lambda: False, *, size: int = LISTING_BYTES
) -> Iterator[Wait]:
    """What this thread asks of origins within this ends after so many seconds, or when it is over.

    It brings at most `size` bytes of what is not written to the disk. One within another ends with
    it too.
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
    """The failure for an answer that is no listing of a model."""
    return DownloadError(
        FailureKind.UNSUPPORTED,
        f"{where} answers with more than a model's listing has: check sourceModelUri and the "
        "endpoint, or put the model's files into fewer and larger ones",
    )


class _Watch:
    """Breaks off what has ended. Its thread is there while anything is waited for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One for each listing, request or read that is under way.
        self._waits: set[Wait] = set()
        self._runs = False

    def add(self, wait: Wait) -> None:
        with self._lock:
            self._waits.add(wait)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="waits", daemon=True).start()

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
