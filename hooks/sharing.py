"""Whose a folder is that caches of several owners have: the administrator's, and namespaces'.

A folder is named after its URI alone, on every group. Agents tell a copy as a cache's own once it
comes from that cache's source, or this source has accepted its credentials. Before that, no claim
is made for it.
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
    """Whose caches name each URI: those of all groups, since a node may be in several.

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
        # Where there is one alone, nothing is to be said.
        self._in_order = {
            key: sorted(owners, key=lambda owner: (owner != "", owners[owner], owner))
            for key, owners in found.items()
            if len(owners) > 1
        }

    def share(self, identity: Identity) -> bool:
        """Whether another owner has the model's folder too."""
        return identity[0] in self._in_order

    def precedence(self, identity: Identity) -> int:
        """Which of its folder's owners a model's is: 0 for LocalModelCaches, then by age."""
        key, namespace, _ = identity
        return self._in_order[key].index(namespace) if key in self._in_order else 0


def _note(found: dict[str, dict[str, str]], key: str, owner: str, created: str) -> None:
    """An owner is as old as the first of its caches."""
    owners = found.setdefault(key, {})
    owners[owner] = min(owners.get(owner, created), created)


NO_OWNERS = Owners(())


class ForeignCopies:
    """Which nodes have whose copies of folders that several owners have, or had.

    A claim leads to all nodes of its group. So it waits for each Ready one that has a copy there
    which is another owner's, also of one whose cache is gone, and not this cache's too.
    """

    def __init__(self, nodes: Sequence[Node], caches: Iterable[Cache], owners: Owners) -> None:
        self._owners = owners
        alone = {cache.identity for cache in caches if not owners.share(cache.identity)}
        self._held: dict[str, list[tuple[int, str]]] = {}
        for index, node in enumerate(nodes):
            if not node.ready:
                continue
            for identity in node.reports.keys() - alone:
                if node.reports[identity].cached:
                    key, owner, _ = identity
                    self._held.setdefault(key, []).append((index, owner))

    def blocks_claims(self, cache: Cache, copies: Copies) -> bool:
        """Whether no new claim is made for a cache yet. copies: its own, in the nodes' order."""
        key, namespace, _ = cache.identity
        if self._owners.share(cache.identity) and CopyState.AVAILABLE not in copies.states:
            return True
        return any(
            owner != namespace and not ((mine := copies.reports[index]) and mine.cached)
            for index, owner in self._held.get(key, ())
        )
