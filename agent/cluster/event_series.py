"""The Events that the agent has written, by which an event that repeats finds its first Event."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

# An event that repeats within this time changes its first Event.
SERIES_SECONDS = 600.0
# The most Events whose repetitions are counted.
MAX_SERIES = 1000

K = TypeVar("K")


@dataclass
class _Series:
    """An Event on the API server, and how often it occurred. seen: monotonic seconds."""

    name: str
    count: int
    seen: float


class EventSeries(Generic[K]):
    """The names and counts of written Events, by what makes an event the same as another one."""

    def __init__(self) -> None:
        # Ordered by the last occurrence, the oldest first. Bounded by MAX_SERIES.
        self._written: OrderedDict[K, _Series] = OrderedDict()

    def __len__(self) -> int:
        return len(self._written)

    def write(self, key: K, create: Callable[[], str], update: Callable[[str, int], bool]) -> None:
        """Create the Event of a key, or update it if it was written within SERIES_SECONDS.

        `create` returns the Event's name. `update` gets that and the new count, and returns False
        if the Event does not exist any more. What they raise is raised, and nothing is recorded.
        """
        now = time.monotonic()
        while self._written and (
            len(self._written) >= MAX_SERIES or now - self._first().seen >= SERIES_SECONDS
        ):
            self._written.popitem(last=False)
        series = self._written.get(key)
        if series is not None and update(series.name, series.count + 1):
            series.count, series.seen = series.count + 1, now
        else:
            self._written[key] = _Series(create(), 1, now)
        self._written.move_to_end(key)

    def _first(self) -> _Series:
        return next(iter(self._written.values()))
