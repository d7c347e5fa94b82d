"""Which copies go because somebody requested it, and why the others stay. Pure.

A request changes when a copy goes, and not whether it may: see Ledger.is_evictable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.capacity.download_queue import Victim
from agent.structs.sizes import EvictionReason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent.control.rows import Row, Table


@dataclass(frozen=True)
class Kept:
    """Why a copy stays although its eviction was requested at `asked`.

    `public` says the same without what a cache of another namespace must not learn.
    """

    asked: datetime
    why: str
    public: str


def requested_evictions(table: Table) -> tuple[tuple[Victim, ...], Mapping[str, Kept]]:
    """The copies to evict by request, the oldest request first, and those that stay, by key."""
    go: list[tuple[datetime, str]] = []
    kept: dict[str, Kept] = {}
    for row in table.rows.values():
        asked = row.eviction_asked
        if asked is None:
            continue
        reason = _hindrance(row, table)
        if reason is None:
            go.append((asked, row.key))
        else:
            kept[row.key] = Kept(asked, *reason)
    victims = tuple(Victim(key, EvictionReason.REQUESTED) for _, key in sorted(go))
    return victims, kept


def _hindrance(row: Row, table: Table) -> tuple[str, str] | None:
    """Why a copy may not go now: see the fields of Kept. None: nothing hinders it."""
    if not table.pods_known or row.pods is None:
        return _both("it is not known what the node's pods mount: see the agent's log")
    if row.is_mounted:
        more = len(row.pods) - 1
        others = f" and {more} more" if more else ""
        return f"{row.referrer}{others} uses it: end the pods", "a pod uses it: end the pods"
    holding = row.holding
    if holding.pinned:
        return _both("a cache of the model has retention: Pinned: set it to Evictable")
    keeping = sorted(
        name
        for name in holding.groups
        if name not in table.ledger.groups or not table.ledger.groups[name].evicts
    )
    if keeping or not holding.groups:
        group = f"the group {keeping[0]}" if keeping and keeping[0] else "a group of the model"
        return _both(f"{group} evicts nothing: set its eviction.policy to LRU, or delete the cache")
    if not table.ledger.is_evictable(row.key):
        return _both("the agent downloads, repairs or checks the copy: it goes afterwards")
    return None


def _both(why: str) -> tuple[str, str]:
    return why, why
