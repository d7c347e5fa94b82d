"""Which copies give way to which downloads. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Standing(IntEnum):
    """Who owns a model, in the order of eviction among copies of one priority: see shares.py."""

    OVER_SHARE = 0
    WITHIN_SHARE = 1
    ADMINISTRATOR = 2


class Rank(NamedTuple):
    """The properties of a model that decide which copies give way to it, and to which it gives way.

    `owners` are the namespaces whose caches want the model. They are empty for models of the
    administrator, and where a rank stands for all owners of this standing.
    """

    referenced: bool
    priority: int
    standing: Standing = Standing.ADMINISTRATOR
    owners: frozenset[str] = frozenset()

    @property
    def of_anybody(self) -> Rank:
        """This rank for any owners."""
        return self._replace(owners=frozenset())


def gives_way(victim: Rank, newcomer: Rank) -> bool:
    """Whether a copy may be evicted for a download.

    A copy never gives way to a lower priority. A referenced copy (by a service or pod) gives way
    only to a referenced model of a higher priority. So two models cannot evict each other in turns:
    at most one of each pair gives way to the other, unless the other one is new.

    Among equal priorities, an unreferenced copy gives way to referenced models and to models of the
    administrator. To other models it gives way if it has the same owners, or if it is above its
    owner's share and the download is within its own: no namespace can drive out the copies of
    another one by many or large models.
    """
    if victim.referenced:
        return newcomer.referenced and victim.priority < newcomer.priority
    if victim.priority != newcomer.priority:
        return victim.priority < newcomer.priority
    if newcomer.referenced or newcomer.standing is Standing.ADMINISTRATOR:
        return True
    if newcomer.owners and victim.owners == newcomer.owners:
        return True
    return victim.standing is Standing.OVER_SHARE and newcomer.standing is Standing.WITHIN_SHARE
