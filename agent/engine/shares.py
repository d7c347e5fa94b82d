"""How many connections each owner of downloads may have. Pure; times are monotonic seconds.

An owner is a namespace. Where several have something to fetch, each may have the same part. What
they leave is anybody's; what is over a part when others want theirs ends by itself, range by range,
or gives way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Ranges that come as they should have ended by then.
PATIENCE_SECONDS = 5.0


def share(most: int, owners: int) -> int:
    """How many of `most` connections one of so many owners may have."""
    return max(1, most // max(owners, 1))


@dataclass
class Shares:
    """Who has been over the share, and since when."""

    # Of the owners that are over their share now.
    _since: dict[str, float] = field(default_factory=dict)

    def excess(
        self, active: Mapping[str, int], wanting: Collection[str], most: int, now: float
    ) -> dict[str, int]:
        """How many connections each owner has to give up now, by the numbers that are active.

        `wanting` are those that could use one more now.
        """
        part = share(most, len(active.keys() | set(wanting)))
        over = {owner: count - part for owner, count in active.items() if count > part}
        if sum(active.values()) < most or not set(wanting).difference(over):
            self._since.clear()
            return {}
        self._since = {owner: self._since.get(owner, now) for owner in over}
        return {
            owner: count
            for owner, count in over.items()
            if now - self._since[owner] >= PATIENCE_SECONDS
        }
