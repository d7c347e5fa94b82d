"""Which downloads may run at once. A namespace's slow origins must not take all places. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# A download keeps its place for FIRST_SECONDS, and longer by the bytes that it has received at this
# rate, but for LAST_SECONDS at most. Afterwards extra places may open beside it.
FIRST_SECONDS = 10.0
BYTES_PER_SECOND = 4 << 20
LAST_SECONDS = 600.0
# How many extra places all namespaces have together.
EXTRA_PLACES = 8

_NOBODY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Hold:
    """The place of a running download.

    `owner` is the requester's namespace, empty for LocalModelCaches. `had_its_time`: extra places
    may open beside it. A download that is not `wanted` is about to end. `awaited`: a pod waits for
    the model.
    """

    owner: str = ""
    had_its_time: bool = False
    wanted: bool = True
    awaited: bool = False


def had_its_time(elapsed: float, came: int) -> bool:
    """Whether a download that received `came` bytes in `elapsed` seconds has had its time."""
    return elapsed > min(FIRST_SECONDS + came / BYTES_PER_SECOND, LAST_SECONDS)


class Places:
    """The places for downloads. `most` places are filled in the order of the candidates.

    While all of them are taken, and a download among them has had its time, extra places open: one
    for each namespace that has no download, and `most` for LocalModelCaches. `owners` are the
    candidates' namespaces by key.

    Downloads that nobody waits for keep no place from the `awaited` candidates: as long as fewer
    than `most` models that a pod waits for are downloaded, another one begins at once, and also
    the first of each namespace. Pods come and go: twice `most` downloads in all bound that.
    """

    def __init__(
        self,
        most: int,
        held: Collection[Hold] = (),
        owners: Mapping[str, str] = _NOBODY,
        awaited: Collection[str] = frozenset(),
    ) -> None:
        self._most = most
        self._owners = owners
        self._awaited = awaited
        self._running = len(held)
        wanted = [hold for hold in held if hold.wanted]
        self._running_of = Counter(hold.owner for hold in wanted)
        self._in_their_time = sum(not hold.had_its_time for hold in wanted)
        self._awaited_of = Counter(hold.owner for hold in wanted if hold.awaited)

    def has(self, key: str) -> bool:
        """Whether this candidate gets a place."""
        if self._running < self._most:
            return True
        owner = self._owners.get(key, "")
        if key in self._awaited and self._running < 2 * self._most:
            running = self._awaited_of.total()
            if running < self._most or not self._awaited_of[owner]:
                return True
        own, limit = (1, self._most + EXTRA_PLACES) if owner else (self._most, None)
        return (
            self._running_of[owner] < own
            and self._in_their_time < self._most
            and (limit is None or self._running < limit)
        )

    def take(self, key: str) -> None:
        """Give a candidate its place."""
        self._running += 1
        owner = self._owners.get(key, "")
        self._running_of[owner] += 1
        self._in_their_time += 1
        if key in self._awaited:
            self._awaited_of[owner] += 1
