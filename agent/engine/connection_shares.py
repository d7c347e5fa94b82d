"""How many connections each owner of downloads may have. Pure; times are monotonic seconds.

An owner is a namespace. Owners that have something to fetch get equal shares of the connections.
Connections that an owner does not use go to the other owners. When it wants them back, connections
above a share end with their ranges, or are aborted after PATIENCE_SECONDS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# How long an owner may be above its share while another owner waits: most ranges end sooner.
PATIENCE_SECONDS = 5.0


def share(most: int, owners: int) -> int:
    """The connections of one owner when `owners` share `most`; at least 1."""
    return max(1, most // max(owners, 1))


@dataclass
class Shares:
    """The owners that are above their share, and since when."""

    # Only of the owners that are above their share now.
    _since: dict[str, float] = field(default_factory=dict)

    def excess(
        self, active: Mapping[str, int], wanting: Collection[str], most: int, now: float
    ) -> dict[str, int]:
        """How many connections of each owner to abort now.

        `active` are the connections of each owner, `wanting` the owners that could use one more.
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
