"""Folders that caches of several owners share. An owner is a namespace, or the administrator.

A folder is named after its URI alone, in all groups. Agents report a copy as cached for a cache
once the copy comes from the cache's own source, or that source has accepted the cache's
credentials. Until then, the cache gets no claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.keys import model_key
from crds.states import CopyState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crds.base import Identity
    from hooks.copies import Copies
    from hooks.observed import Cache, Node
    from hooks.reading import Unreadable


class Owners:
    """The owners of each URI, from caches of all groups, since a node may be in several groups.

    An owner is a namespace, or "" for all LocalModelCaches.
    """

    def __init__(self, caches: Iterable[Cache], unreadable: Iterable[Unreadable] = ()) -> None:
        found: dict[str, dict[str, str]] = {}
        for cache in caches:
            _note(found, cache.spec.key, cache.metadata.namespace, cache.metadata.created)
        for one in unreadable:
            _, uri = one.asks_for()
            if uri is not None:
                _note(found, model_key(uri), one.namespace, one.created)
        # Only folders with several owners.
        self._in_order = {
            key: sorted(owners, key=lambda owner: (owner != "", owners[owner], owner))
            for key, owners in found.items()
            if len(owners) > 1
        }

    def share(self, identity: Identity) -> bool:
        """Whether the model's folder has another owner too."""
        return identity[0] in self._in_order

    def precedence(self, identity: Identity) -> int:
        """Rank of the model's owner for its folder: 0 for LocalModelCaches, then by age."""
        key, namespace, _ = identity
        return self._in_order[key].index(namespace) if key in self._in_order else 0


def _note(found: dict[str, dict[str, str]], key: str, owner: str, created: str) -> None:
    """Record an owner of a key: it is as old as the oldest of its caches."""
    owners = found.setdefault(key, {})
    owners[owner] = min(owners.get(owner, created), created)


NO_OWNERS = Owners(())


class ForeignCopies:
    """Copies on Ready nodes, by owner, of folders that several owners have or had.

    A claim gives access to all nodes of its group. So it waits while a Ready node has a copy that
    is cached for another owner, even one whose caches are gone, and not for this cache.
    """

    def __init__(self, nodes: Sequence[Node], caches: Iterable[Cache], owners: Owners) -> None:
        self._owners = owners
        alone = {cache.identity for cache in caches if not owners.share(cache.identity)}
        # Of each key, the nodes that have copies: the owner of these; None: there are several.
        self._held: dict[str, dict[int, str | None]] = {}
        for index, node in enumerate(nodes):
            if not node.ready:
                continue
            for identity in node.reports.keys() - alone:
                if node.reports[identity].cached:
                    key, owner, _ = identity
                    held = self._held.setdefault(key, {})
                    held[index] = owner if held.get(index, owner) == owner else None

    def blocks_claims(self, cache: Cache, copies: Copies) -> bool:
        """Whether new claims of a cache wait. copies: those of the cache, in order of the nodes."""
        key, namespace, _ = cache.identity
        if self._owners.share(cache.identity) and CopyState.AVAILABLE not in copies.states:
            return True
        return any(
            owner != namespace and not ((mine := copies.reports[index]) and mine.cached)
            for index, owner in self._held.get(key, {}).items()
        )
