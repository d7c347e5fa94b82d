"""A cache of values that are made from bytes, bounded by the length of all bytes together."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

# Bytes of all keys of one Memo. The values take a few times as much memory. Tenants influence how
# large plans are and how often they change.
KEPT_BYTES = 8 << 20

_Made = TypeVar("_Made")


class Memo(Generic[_Made]):
    """Makes each value once, and drops the least recently used ones. Threads may share it."""

    def __init__(self, make: Callable[[bytes], _Made], most: int = KEPT_BYTES) -> None:
        self._make = make
        self._most = most
        self._kept: OrderedDict[bytes, _Made] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def __call__(self, raw: bytes) -> _Made:
        """The value for these bytes. Raises what `make` raises, and does not keep it."""
        with self._lock:
            if raw in self._kept:
                self._kept.move_to_end(raw)
                return self._kept[raw]
        made = self._make(raw)
        with self._lock:
            if raw not in self._kept:
                self._kept[raw] = made
                self._size += len(raw)
            while self._size > self._most:
                gone, _ = self._kept.popitem(last=False)
                self._size -= len(gone)
        return made
