"""Whether a cache gets a new claim on a folder that caches of others have too.

A folder is named after its URI alone. Agents tell a copy as a cache's own once its source has
accepted that cache's credentials, and a claim is made for no cache before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.states import CopyState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from collections.abc import Set as AbstractSet

    from crds.base import Identity


def is_withheld(
    identity: Identity, sharers: Mapping[str, AbstractSet[str]], states: Collection[str]
) -> bool:
    """Whether a namespace's cache must wait for its first copy.

    sharers: the namespaces whose models share a folder, by key; states: of the cache's own copies.
    """
    key, namespace, _ = identity
    if not namespace or CopyState.AVAILABLE in states:
        return False
    return not sharers.get(key, frozenset()) <= {namespace}
