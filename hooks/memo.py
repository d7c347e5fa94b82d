"""What is made of bytes that come again and again, kept as long as it is small together."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

# Of all that is kept in one place; what is made of it takes some times as much. A tenant decides
# how large plans are, and how often they change.
KEPT_BYTES = 8 << 20

_Made = TypeVar("_Made")


class Memo(Generic[_Made]):
    """Makes each value once, and forgets what was asked for longest ago."""

    def __init__(self, make: Callable[[bytes], _Made], most: int = KEPT_BYTES) -> None:
        self._make = make
        self._most = most
        self._kept: OrderedDict[bytes, _Made] = OrderedDict()
        self._size = 0
        # gunicorn's threads share a Memo.
        self._lock = Lock()

    def __call__(self, raw: bytes) -> _Made:
        """What is made of these bytes. Raises what `make` raises."""
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
