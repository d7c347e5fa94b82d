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
    from collections.abc import Collection, Iterable

    from crds.base import Identity
    from hooks.observed import Cache
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


NOBODY = Owners(())


def is_withheld(states: Collection[str], *, shared: bool) -> bool:
    """Whether a cache must wait for its first copy. states: of its own copies."""
    return shared and CopyState.AVAILABLE not in states
