"""A work queue of keys, with delays and backoff; a key is queued once, and synced by one worker."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K", bound=Hashable)

BASE_SECONDS = 0.005
MAX_SECONDS = 1000.0
RETRIES_PER_SECOND = 10.0
RETRIES_BURST = 100.0


class RateLimiter(Generic[K]):
    """The delay of a failed key: exponential by its failures, and from a token bucket of all keys.

    The constants are those of client-go's default controller rate limiter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[K, int] = {}
        self._tokens = RETRIES_BURST
        self._filled = clock()

    def delay(self, key: K) -> float:
        """Count a failure of a key, and return its delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # 2.0 ** 1024 would overflow.
        backoff = min(BASE_SECONDS * 2.0 ** min(failures, 64), MAX_SECONDS)
        now = self._clock()
        refilled = self._tokens + (now - self._filled) * RETRIES_PER_SECOND
        self._tokens = min(refilled, RETRIES_BURST) - 1
        self._filled = now
        return max(backoff, -self._tokens / RETRIES_PER_SECOND)

    def forget(self, key: K) -> None:
        """Reset a key that succeeded: its next failure has the shortest delay."""
        self._failures.pop(key, None)


class WorkQueue(Generic[K]):
    """Keys to sync. All methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limiter: RateLimiter[K] = RateLimiter(clock)
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = itertools.count()
        self._closed = False

    def add(self, key: K) -> None:
        """Queue a key, unless it is queued. A key that a worker syncs is queued after `done`."""
        with self._changed:
            self._add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Queue a key after a delay. Of several delays of a key the earliest counts."""
        with self._changed:
            if seconds <= 0:
                self._add(key)
            elif not self._closed:
                due = self._clock() + seconds
                if due < self._due.get(key, math.inf):
                    self._due[key] = due
                    heapq.heappush(self._heap, (due, next(self._sequence), key))
                    self._changed.notify()

    def add_rate_limited(self, key: K) -> None:
        """Queue a key that failed, after its backoff."""
        with self._changed:
            delay = self._limiter.delay(key)
        self.add_after(key, delay)

    def forget(self, key: K) -> None:
        """Reset the backoff of a key."""
        with self._changed:
            self._limiter.forget(key)

    def get(self) -> K | None:
        """Wait for a key, for which the caller then calls `done`; None after `shut_down`."""
        with self._changed:
            while not self._closed:
                wait = self._ripen()
                if self._ready:
                    key = self._ready.popleft()
                    self._dirty.discard(key)
                    self._processing.add(key)
                    return key
                self._changed.wait(wait)
            return None

    def done(self, key: K) -> None:
        """Mark a key from `get` as finished."""
        with self._changed:
            self._processing.discard(key)
            if key in self._dirty:
                self._ready.append(key)
                self._changed.notify()

    def shut_down(self) -> None:
        """Drop all queued keys, and let every `get` return None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _add(self, key: K) -> None:
        if self._closed or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.append(key)
            self._changed.notify()

    def _ripen(self) -> float | None:
        """Queue the delayed keys that are due, and return the seconds until the next one."""
        now = self._clock()
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) != due:  # an earlier delay replaced this one
                heapq.heappop(self._heap)
            elif due <= now:
                heapq.heappop(self._heap)
                del self._due[key]
                self._add(key)
            else:
                return due - now
        return None
