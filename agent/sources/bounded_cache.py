"""Things that are costly to make, kept while somebody uses them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# So long something is kept that nobody asks for: longer than any failed download waits.
IDLE_SECONDS = 600.0

_K = TypeVar("_K", bound="Hashable")
_V = TypeVar("_V")


@dataclass
class _Entry(Generic[_V]):
    value: _V
    # When it was asked for last, in seconds of the clock.
    asked: float


class BoundedCache(Generic[_K, _V]):
    """At most `most` of them: those that were asked for last. Calls may come from any thread.

    One that nobody has asked for during IDLE_SECONDS goes with the next call. `close` gets what
    goes, which somebody may still be using.
    """

    def __init__(
        self,
        most: int,
        close: Callable[[_V], None] = lambda _: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._close = close
        self._clock = clock
        self._lock = threading.Lock()
        # The one that was asked for longest ago is the first.
        self._entries: OrderedDict[_K, _Entry[_V]] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def get(self, key: _K, make: Callable[[], _V]) -> _V:
        """The value of a key, made once. Raises what `make` raises."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(make(), 0.0)
            entry.asked = self._clock()
            self._entries.move_to_end(key)
            self._drop()
            return entry.value

    def tidy(self) -> None:
        """Let go what nobody has asked for during IDLE_SECONDS."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        idle = self._clock() - IDLE_SECONDS
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if len(self._entries) <= self._most and oldest.asked > idle:
                return
            self._close(self._entries.popitem(last=False)[1].value)
