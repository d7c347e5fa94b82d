"""Which copies give way to which downloads. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Standing(IntEnum):
    """Whose a model is, in the order in which copies of one priority go: see shares.py."""

    OVER_SHARE = 0
    WITHIN_SHARE = 1
    ADMINISTRATOR = 2


class Rank(NamedTuple):
    """What of a model says which copies give way to it, and to which it does.

    `owners` are the namespaces whose caches want it, or empty: it is the administrator's, or
    anybody's who has this standing.
    """

    referenced: bool
    priority: int
    standing: Standing = Standing.ADMINISTRATOR
    owners: frozenset[str] = frozenset()

    @property
    def of_anybody(self) -> Rank:
        """The same of any namespace."""
        return self._replace(owners=frozenset())


def gives_way(victim: Rank, newcomer: Rank) -> bool:
    """Whether a copy may go for a download.

    Never for one of a lower priority. One that something refers to goes only for one that something
    refers to and that has a higher priority. So two models never take turns: of each pair, one at
    most gives way, or has to be new.

    Of one priority, what nothing refers to makes room for what something refers to, and for what
    the administrator wants. For anything else of a namespace its own copies go, and those that are
    above the share of others, if it keeps to its own: so nobody's many models, or large ones, drive
    out what others have.
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
