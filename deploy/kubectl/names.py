"""The names of models and nodes in arguments. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from deploy.kubectl.snapshot import CacheName, Snapshot

_NEAR = 3


class UnknownNameError(Exception):
    """No object has the name of an argument. The message says what to do."""


def cache_of(snapshot: Snapshot, argument: str, namespace: str = "") -> CacheName:
    """The cache that an argument names: `name`, or `namespace/name`.

    A name alone is that of a cache in `namespace`, of a LocalModelCache, or of the only
    LocalModelNamespaceCache of this name. Raises UnknownNameError.
    """
    caches = snapshot.cache_by_name
    where, slash, name = argument.rpartition("/")
    if slash or namespace:
        cache = (where or namespace, name)
        if cache in caches:
            return cache
        kind, known = "LocalModelNamespaceCache", [title(one) for one in caches if one[0]]
        raise UnknownNameError(_unknown(kind, title(cache), known, snapshot))
    if ("", name) in caches:
        return ("", name)
    same = [one for one in caches if one[1] == name]
    if len(same) > 1:
        names = ", ".join(title(one) for one in sorted(same))
        raise UnknownNameError(f"several caches have the name {name}: name one of {names}")
    if same:
        return same[0]
    raise UnknownNameError(_unknown("cache", name, [title(one) for one in caches], snapshot))


def node_of(snapshot: Snapshot, argument: str) -> str:
    """The node that an argument names. Raises UnknownNameError."""
    known = {*snapshot.node_by_name, *snapshot.local_model_node_by_name}
    if argument in known:
        return argument
    raise UnknownNameError(_unknown("node", argument, known, snapshot))


def title(cache: CacheName) -> str:
    """`name` or `namespace/name`."""
    return "/".join(filter(None, cache))


def _unknown(kind: str, name: str, known: Collection[str], snapshot: Snapshot) -> str:
    near = get_close_matches(name, sorted(known), n=_NEAR)
    if near:
        return f"there is no {kind} {name}; did you mean {' or '.join(near)}?"
    hidden = f"; {next(iter(snapshot.forbidden.values()))}" if snapshot.forbidden else ""
    return f"there is no {kind} {name}; kubectl localmodel status lists all{hidden}"
