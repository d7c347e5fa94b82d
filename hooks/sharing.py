"""Whether a cache gets a new claim on a folder that caches of others have too.

A folder is named after its URI alone, on every group. Agents tell a copy as a cache's own once it
comes from that cache's source, or this source has accepted its credentials. Before that, no claim
is made for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.base import namespaces_by_key
from crds.keys import model_key
from crds.states import CopyState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from crds.base import Identity
    from hooks.observed import Cache
    from hooks.reading import Unreadable


class Owners:
    """Whose caches name each URI: those of all groups, since a node may be in several."""

    def __init__(self, caches: Iterable[Cache], unreadable: Iterable[Unreadable] = ()) -> None:
        identities = [cache.identity for cache in caches]
        for one in unreadable:
            _, uri = one.asks_for()
            if uri is not None:
                identities.append((model_key(uri), one.namespace, one.name))
        self._namespaces = namespaces_by_key(identities)

    def share(self, identity: Identity) -> bool:
        """Whether caches of another namespace, or of none, have the model's folder too."""
        key, namespace, _ = identity
        return not self._namespaces.get(key, set()) <= {namespace}


NOBODY = Owners(())


def is_withheld(states: Collection[str], *, shared: bool) -> bool:
    """Whether a cache must wait for its first copy. states: of its own copies."""
    return shared and CopyState.AVAILABLE not in states
