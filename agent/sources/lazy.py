"""Values that are made when they are first asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_V = TypeVar("_V")


class Lazy(Generic[_V]):
    """A value that `make` makes once, when a thread first asks for it; the others wait for it.

    After a failure of `make`, which `get` raises, the next `get` tries again.
    """

    def __init__(self, make: Callable[[], _V]) -> None:
        self._make = make
        self._lock = threading.Lock()
        # The value, once it is made.
        self._made: list[_V] = []

    def get(self) -> _V:
        """The value."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]

    def use(self, call: Callable[[_V], object]) -> None:
        """Call with the value if it is made already."""
        for made in self._made:
            call(made)
