"""Whether a cache gets a new claim on a folder that caches of others have too.

A folder is named after its URI alone. Agents tell a copy as a cache's own once its source has
accepted that cache's credentials, and a claim is made for no cache before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.states import CopyState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crds.cache import AnyCache


def is_withheld(
    cache: AnyCache, planned: Iterable[tuple[str, str, str]], states: Iterable[str]
) -> bool:
    """Whether a namespace's cache must wait for its first copy.

    planned: key, namespace and name of each model in the group's plan; states: of its own copies.
    """
    key, namespace, _ = cache.identity
    if not namespace or CopyState.AVAILABLE in states:
        return False
    return any(other == key and whose != namespace for other, whose, _ in planned)
