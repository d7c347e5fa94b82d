"""A bounded cache of objects that are costly to make and are shared while somebody uses them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# How long an entry is kept after its last use: longer than any failed download waits.
IDLE_SECONDS = 600.0
# How long an entry is kept at all. A client remembers what its library learns of every bucket.
LIFE_SECONDS = 3600.0

_K = TypeVar("_K", bound="Hashable")
_V = TypeVar("_V")


@dataclass
class _Entry(Generic[_V]):
    value: _V
    # When the entry was made and used last, in seconds of the clock.
    made: float
    used: float


class BoundedCache(Generic[_K, _V]):
    """The `most` entries that were used last, each for IDLE_SECONDS after its last use.

    An entry that is used is made anew after LIFE_SECONDS. `close` gets the value of a dropped
    entry, which a download may still be using. Calls may come from any thread.
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
        # Bounded by `most`; ordered by the last use, the longest ago first.
        self._entries: OrderedDict[_K, _Entry[_V]] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def get(self, key: _K, make: Callable[[], _V]) -> _V:
        """The value of a key, made if the cache has none. Raises what `make` raises."""
        with self._lock:
            now = self._clock()
            self._drop(now)
            entry = self._entries.get(key)
            if entry is None or now - entry.made >= LIFE_SECONDS:
                former, entry = entry, _Entry(make(), now, now)
                self._entries[key] = entry
                if former is not None:
                    self._close(former.value)
            entry.used = now
            self._entries.move_to_end(key)
            self._drop(now)
            return entry.value

    def tidy(self) -> None:
        """Drop the entries that nobody has used for IDLE_SECONDS."""
        with self._lock:
            self._drop(self._clock())

    def _drop(self, now: float) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if len(self._entries) <= self._most and oldest.used > now - IDLE_SECONDS:
                return
            self._close(self._entries.popitem(last=False)[1].value)
