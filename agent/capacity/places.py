"""Which downloads may run at once, so that nobody's origins keep the places from others. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# A download has its place to itself for so long, for longer the more it brings, and no longer than
# the last.
FIRST_SECONDS = 10.0
BYTES_PER_SECOND = 4 << 20
LAST_SECONDS = 600.0
# What namespaces may have beyond the usual number, together.
EXTRA_PLACES = 8

_NOBODY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Hold:
    """The place of a download that runs.

    `owner` is the namespace for which it is, empty for LocalModelCaches. `had_its_time` is whether
    others need not wait for it any more. One that is not `wanted` is about to end.
    """

    owner: str = ""
    had_its_time: bool = False
    wanted: bool = True


def had_its_time(elapsed: float, came: int) -> bool:
    """Whether a download that has brought so many bytes in so many seconds has had its time."""
    return elapsed > min(FIRST_SECONDS + came / BYTES_PER_SECOND, LAST_SECONDS)


class Places:
    """The places for downloads: `most` are for all, and are filled in the order of the candidates.

    Where these are taken, each namespace without a download gets one more place, and
    LocalModelCaches so many as there are in all, as soon as downloads that have had their time hold
    them. `owners` are those of the candidates.
    """

    def __init__(
        self, most: int, held: Collection[Hold] = (), owners: Mapping[str, str] = _NOBODY
    ) -> None:
        self._most = most
        self._owners = owners
        self._running = len(held)
        wanted = [hold for hold in held if hold.wanted]
        self._running_of = Counter(hold.owner for hold in wanted)
        self._in_their_time = sum(not hold.had_its_time for hold in wanted)

    def has(self, key: str) -> bool:
        """Whether there is one for this candidate."""
        if self._running < self._most:
            return True
        owner = self._owners.get(key, "")
        own, limit = (1, self._most + EXTRA_PLACES) if owner else (self._most, None)
        return (
            self._running_of[owner] < own
            and self._in_their_time < self._most
            and (limit is None or self._running < limit)
        )

    def take(self, key: str) -> None:
        """A candidate begins."""
        self._running += 1
        self._running_of[self._owners.get(key, "")] += 1
        self._in_their_time += 1
