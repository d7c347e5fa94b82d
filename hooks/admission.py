"""Which models a group takes by their size, and whether it has more than its storageLimit.

A model counts with its real size once a node has told it, and with spec.modelSize till then. Models
with one URI share a folder, which counts once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crds.conditions import Finding
from crds.eviction import EvictionPolicy, Retention
from crds.quantity import format_quantity, parse_quantity
from hooks import reasons
from hooks.copies import on_disk
from hooks.plan import reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from crds.base import Identity
    from crds.nodegroup import LocalModelNodeGroup, RejectedModel
    from crds.placement import LocalModelPlacementSpec
    from hooks.observed import Cache, Node
    from hooks.plan import Plan

# Copies of all models of a group, together: of 1.5 MiB, its nodes' names and more take the rest.
COPIES_MAX = 1_000_000

# Reasons of a group's Ready before its nodes are known.
_NODES_UNKNOWN = (reasons.PLAN_PENDING, reasons.FINDING_NODES, reasons.NO_NODES)

# What exceeds the limit, what comes of it, and what to do beside raising the limit.
_OVER_LIMIT = {
    reasons.ADMITTED_EXCEED_LIMIT: (
        "admitted models",
        "they stay, and no other comes in",
        "or delete a cache",
    ),
    reasons.PINNED_EXCEED_LIMIT: (
        "pinned models",
        "no node has room for all of them, nor for any other",
        "or set retention: Evictable on one",
    ),
}


@dataclass(frozen=True)
class Observed:
    """What counts for admission beside the specs.

    sizes: bytes of the files that a node told, by key. held: the models that are in already.
    """

    sizes: Mapping[str, int]
    held: AbstractSet[Identity]

    def size(self, cache: Cache) -> int:
        """Bytes that a model counts with."""
        real = self.sizes.get(cache.spec.key)
        return cache.spec.declared_bytes if real is None else real


def observe(
    group: LocalModelNodeGroup,
    plan: Plan,
    caches: Iterable[Cache],
    nodes: Sequence[Node],
    stored: LocalModelPlacementSpec | None,
) -> Observed:
    """What counts for admission, from what the group's hook sees.

    plan: what is to be admitted. caches: all of the cluster. stored: the plan as it is written.

    While there is none, and while the nodes of a new group are still joining, the copies that
    nodes have count as admitted too: of a group that took over from another controller, or whose
    LocalModelPlacement somebody deleted.
    """
    held = {model.identity for model in stored.models} if stored else set()
    was = next((one for one in group.status.conditions if one.type == reasons.READY), None)
    if stored is None or was is None or was.reason in _NODES_UNKNOWN:
        asked = {cache.identity: cache for cache in plan.admitted}
        for node in nodes:
            held |= _held_by(node, group.metadata.name, asked)
    return Observed(sizes=_sizes(group, caches, nodes), held=held)


def _held_by(node: Node, group: str, asked: Mapping[Identity, Cache]) -> set[Identity]:
    """The models that a node lists for the group, or has for no group that it lists."""
    listed: set[Identity] = set()
    others: set[Identity] = set()
    for model in node.spec.local_models:
        (listed if model.node_group == group else others).add(model.identity)
    return listed | (on_disk(node, asked) - (others - listed))


def _sizes(
    group: LocalModelNodeGroup, caches: Iterable[Cache], nodes: Sequence[Node]
) -> dict[str, int]:
    """Bytes of the models' files, by key: of what nodes tell now, or told last.

    What was told must not be forgotten when the copies go: a model that is too large would come in
    again. The cache's status keeps it, and the group's own until the cache's is written.
    """
    now = _largest((one.key, one.size) for node in nodes for one in node.status.models)
    last = _largest(
        [
            *((cache.spec.key, cache.status.size) for cache in caches),
            *((one.key, one.size) for one in group.status.models),
            *((one.key, one.size) for one in group.status.rejected),
        ]
    )
    return last | now


def _largest(told: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for key, size in told:
        if size is not None:
            sizes[key] = max(sizes.get(key, 0), size)
    return sizes


def admit(plan: Plan, group: LocalModelNodeGroup, observed: Observed) -> Plan:
    """The plan without the models that do not fit, by the group's eviction policy.

    None: what is in stays in, whatever the others, the limit or its real size become, until its
    cache goes or no longer names the group. What is new comes in by priority, then age, where it
    fits next to all that is in. One that does not fit keeps no smaller one out: the space would
    stay empty until somebody acts.

    LRU: all come in, since agents make room, but for one that is larger than the limit by itself.
    A cache that is being deleted stays in, if it is: a pod may still read through its claim.
    """
    if group.spec.eviction_settings.policy is EvictionPolicy.LRU:
        return _but_too_large(plan, group, observed)
    return _what_fits(plan, group, observed)


class _Folders:
    """What models take together: a folder takes what the largest of its models says."""

    def __init__(self, observed: Observed) -> None:
        self.bytes = 0
        self._observed = observed
        self._folders: dict[str, int] = {}

    def more(self, cache: Cache) -> int:
        """Bytes that a model would take beside them."""
        return max(self._observed.size(cache) - self._folders.get(cache.spec.key, 0), 0)

    def add(self, *caches: Cache) -> None:
        for cache in caches:
            more = self.more(cache)
            self.bytes += more
            self._folders[cache.spec.key] = self._folders.get(cache.spec.key, 0) + more


def within_status(
    plan: Plan, group: LocalModelNodeGroup, nodes: int, held: AbstractSet[Identity]
) -> Plan:
    """The plan without the newcomers for which the group's status has no room.

    It holds a letter for each copy. An object of more than 1.5 MiB cannot be stored, and then no
    cache of the group would ever be told of anything again. What is in stays in.
    """
    room = COPIES_MAX // max(nodes, 1)
    if len(plan.admitted) <= room:
        return plan
    free = max(room - sum(cache.identity in held for cache in plan.admitted), 0)
    newcomers = [cache.identity for cache in plan.admitted if cache.identity not in held]
    out = frozenset(newcomers[free:])
    return replace(
        plan,
        admitted=tuple(cache for cache in plan.admitted if cache.identity not in out),
        rejected=(
            *plan.rejected,
            *(
                reject(
                    cache,
                    reasons.GROUP_TOO_LARGE,
                    f"LocalModelNodeGroup {group.metadata.name} has {nodes} nodes, and room for "
                    f"{room} models on so many: make two groups of it, by a label of their nodes",
                )
                for cache in plan.admitted
                if cache.identity in out
            ),
        ),
    )


def _what_fits(plan: Plan, group: LocalModelNodeGroup, observed: Observed) -> Plan:
    limit = parse_quantity(group.spec.storage_limit)
    folders = _Folders(observed)
    folders.add(*(cache for cache in plan.admitted if cache.identity in observed.held))
    admitted: list[Cache] = []
    left_out: list[Cache] = []
    for cache in plan.admitted:
        more = folders.more(cache)
        if cache.identity in observed.held or not more or folders.bytes + more <= limit:
            folders.add(cache)
            admitted.append(cache)
        else:
            left_out.append(cache)
    return replace(
        plan,
        admitted=tuple(admitted),
        rejected=(
            *plan.rejected,
            *(_does_not_fit(cache, group, folders, observed) for cache in left_out),
        ),
        over_limit=_over_limit(group, folders.bytes, reasons.ADMITTED_EXCEED_LIMIT),
    )


def _but_too_large(plan: Plan, group: LocalModelNodeGroup, observed: Observed) -> Plan:
    limit = parse_quantity(group.spec.storage_limit)
    admitted: list[Cache] = []
    too_large: list[Cache] = []
    for cache in plan.admitted:
        going = cache.deleting and cache.identity in observed.held
        fits = going or observed.size(cache) <= limit
        (admitted if fits else too_large).append(cache)
    pinned = _Folders(observed)
    pinned.add(*(cache for cache in admitted if cache.spec.retention is Retention.PINNED))
    return replace(
        plan,
        admitted=tuple(admitted),
        rejected=(*plan.rejected, *(_too_large(cache, group, observed) for cache in too_large)),
        over_limit=_over_limit(group, pinned.bytes, reasons.PINNED_EXCEED_LIMIT),
    )


def _does_not_fit(
    cache: Cache, group: LocalModelNodeGroup, folders: _Folders, observed: Observed
) -> RejectedModel:
    limit = parse_quantity(group.spec.storage_limit)
    more = folders.more(cache)
    left = format_quantity(max(limit - folders.bytes, 0))
    missing = format_quantity(folders.bytes + more - limit)
    return reject(
        cache,
        reasons.STORAGE_LIMIT_EXCEEDED,
        f"needs {_needs(cache, more, observed)}, and {left} of storageLimit "
        f"{group.spec.storage_limit} are left in LocalModelNodeGroup {group.metadata.name} "
        f"({missing} are missing): raise storageLimit, delete a cache, or name another group",
        observed.sizes.get(cache.spec.key),
    )


def _too_large(cache: Cache, group: LocalModelNodeGroup, observed: Observed) -> RejectedModel:
    size = observed.size(cache)
    missing = format_quantity(size - parse_quantity(group.spec.storage_limit))
    return reject(
        cache,
        reasons.MODEL_TOO_LARGE,
        f"needs {_needs(cache, size, observed)}, and storageLimit of LocalModelNodeGroup "
        f"{group.metadata.name} is {group.spec.storage_limit} ({missing} are missing): raise "
        "storageLimit, or name another group",
        observed.sizes.get(cache.spec.key),
    )


def _needs(cache: Cache, size: int, observed: Observed) -> str:
    known = cache.spec.key in observed.sizes
    return format_quantity(size) + ("" if known else " by its modelSize")


def _over_limit(group: LocalModelNodeGroup, taken: int, reason: str) -> Finding | None:
    limit = parse_quantity(group.spec.storage_limit)
    if taken <= limit:
        return None
    what, then, instead = _OVER_LIMIT[reason]
    return Finding(
        reasons.OVER_LIMIT,
        "True",
        reason,
        f"the {what} take {format_quantity(taken)} on each node, {format_quantity(taken - limit)} "
        f"more than storageLimit {group.spec.storage_limit}: {then}; raise storageLimit, {instead}",
    )
