"""The share of each namespace in a group, and the copies that are above it. Pure.

The share is the group's limit, or the disk if that is smaller, divided by the number of namespaces
that have models in the group. A namespace may use room that no other namespace takes: copies above
a share are only evicted first. Of a namespace's copies, those that it would keep longest count
first.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agent.capacity.holdings import Holding


class Shares:
    """The shares of the owners of these models.

    `idle` are the keys of the evictable copies that no service or pod refers to, `rooms` the bytes
    that the models of each group may take together.
    """

    def __init__(
        self, holdings: Mapping[str, Holding], idle: Collection[str], rooms: Mapping[str, int]
    ) -> None:
        self._holdings = holdings
        self._idle = idle
        self._rooms = rooms

    def fits(self, holding: Holding) -> bool:
        """Whether a download keeps to its owners' shares, if their idle copies go. It has none."""
        return all(
            self._kept.get((owner, group), 0) - holding.of_limit + holding.size
            <= self._share(group)
            for owner in holding.owners
            for group in holding.groups
        )

    @cached_property
    def above(self) -> frozenset[str]:
        """The copies that are above the shares of all of their owners."""
        taken = dict(self._kept)
        found = set()
        by_worth = sorted(
            (self._holdings[key].priority, self._holdings[key].last_used, key) for key in self._idle
        )
        for _, _, key in reversed(by_worth):
            holding = self._holdings[key]
            _count(taken, holding)
            if holding.owners and all(
                self._is_above(owner, holding, taken) for owner in holding.owners
            ):
                found.add(key)
        return frozenset(found)

    def _is_above(self, owner: str, holding: Holding, taken: Mapping[tuple[str, str], int]) -> bool:
        return any(taken[owner, group] > self._share(group) for group in holding.groups)

    @cached_property
    def _kept(self) -> dict[tuple[str, str], int]:
        """The bytes that each namespace takes of each group, without its idle copies."""
        found: dict[tuple[str, str], int] = {}
        for key, holding in self._holdings.items():
            if key not in self._idle:
                _count(found, holding)
        return found

    def _share(self, group: str) -> int:
        return self._rooms.get(group, 0) // max(1, len(self._namespaces.get(group, ())))

    @cached_property
    def _namespaces(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for holding in self._holdings.values():
            for group in holding.groups:
                found.setdefault(group, set()).update(holding.owners)
        return found


def _count(taken: dict[tuple[str, str], int], holding: Holding) -> None:
    for owner in holding.owners:
        for group in holding.groups:
            taken[owner, group] = taken.get((owner, group), 0) + holding.of_limit
