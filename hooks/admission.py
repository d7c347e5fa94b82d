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
from hooks.room import MODELS_BYTES, PLAN_BYTES, json_bytes, model_bytes, spec_excess

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from crds.base import Identity
    from crds.nodegroup import LocalModelNodeGroup, RejectedModel
    from crds.placement import LocalModelPlacementSpec, PlacedModel
    from hooks.observed import Cache, Node
    from hooks.plan import GroupPlan

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
class AdmissionInput:
    """What counts for admission beside the specs.

    sizes: bytes of the files that a node told of a model, to the cache that asked: others' sources
    may tell others of the same folder. held: the models that are in already.
    """

    sizes: Mapping[Identity, int]
    held: AbstractSet[Identity]

    def size(self, cache: Cache) -> int:
        """Bytes that a model counts with."""
        real = self.sizes.get(cache.identity)
        return cache.spec.declared_bytes if real is None else real

    def kept_size(self, model: PlacedModel) -> int:
        """Bytes that a model counts with which stays as the plan had it."""
        real = self.sizes.get(model.identity)
        return parse_quantity(model.model_size) if real is None else real


def admission_input(
    group: LocalModelNodeGroup,
    plan: GroupPlan,
    caches: Iterable[Cache],
    nodes: Sequence[Node],
    stored: LocalModelPlacementSpec | None,
) -> AdmissionInput:
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
    return AdmissionInput(sizes=_sizes(group, caches, nodes), held=held)


def _held_by(node: Node, group: str, asked: Mapping[Identity, Cache]) -> set[Identity]:
    """The models that a node lists for the group, or has for no group that it lists."""
    listed: set[Identity] = set()
    others: set[Identity] = set()
    for model in node.spec.local_models:
        (listed if model.node_group == group else others).add(model.identity)
    return listed | (on_disk(node, asked) - (others - listed))


def _sizes(
    group: LocalModelNodeGroup, caches: Iterable[Cache], nodes: Sequence[Node]
) -> dict[Identity, int]:
    """Bytes of the models' files: of what nodes tell now, or told last.

    What was told must not be forgotten when the copies go: a model that is too large would come in
    again. The cache's status keeps it, and the group's own until the cache's is written.
    """
    now = _largest((one.identity, one.size) for node in nodes for one in node.status.models)
    last = _largest(
        [
            *((cache.identity, cache.status.size) for cache in caches),
            *((one.identity, one.size) for one in group.status.models),
            *((one.identity, one.size) for one in group.status.rejected),
        ]
    )
    return last | now


def _largest(told: Iterable[tuple[Identity, int | None]]) -> dict[Identity, int]:
    sizes: dict[Identity, int] = {}
    for identity, size in told:
        if size is not None:
            sizes[identity] = max(sizes.get(identity, 0), size)
    return sizes


def admit_by_size(
    plan: GroupPlan, group: LocalModelNodeGroup, observed: AdmissionInput
) -> GroupPlan:
    """The plan without the models that do not fit, by the group's eviction policy.

    None: what is in stays in, whatever the others, the limit or its real size become, until its
    cache goes or no longer names the group. What is new comes in by priority, then age, where it
    fits next to all that is in. One that does not fit keeps no smaller one out: the space would
    stay empty until somebody acts.

    LRU: all come in, since agents make room, but for one that is larger than the limit by itself.
    A cache that is being deleted stays in, if it is: a pod may still read through its claim.
    """
    if group.spec.eviction_settings.policy is EvictionPolicy.LRU:
        return _admit_with_eviction(plan, group, observed)
    return _admit_without_eviction(plan, group, observed)


class _Folders:
    """What models take together: a folder takes what the largest of its models says."""

    def __init__(self, observed: AdmissionInput, kept: Iterable[PlacedModel] = ()) -> None:
        self.bytes = 0
        self._observed = observed
        self._folders: dict[str, int] = {}
        for model in kept:
            self._take(model.key, observed.kept_size(model))

    def more(self, cache: Cache) -> int:
        """Bytes that a model would take beside them."""
        return self._more(cache.spec.key, self._observed.size(cache))

    def add(self, *caches: Cache) -> None:
        for cache in caches:
            self._take(cache.spec.key, self._observed.size(cache))

    def _more(self, key: str, size: int) -> int:
        return max(size - self._folders.get(key, 0), 0)

    def _take(self, key: str, size: int) -> None:
        more = self._more(key, size)
        self.bytes += more
        self._folders[key] = self._folders.get(key, 0) + more


def fit_into_objects(
    plan: GroupPlan,
    group: LocalModelNodeGroup,
    nodes: int,
    held: AbstractSet[Identity],
    had: Mapping[Identity, PlacedModel],
) -> GroupPlan:
    """The plan without what its object, or the group's status, has no room for.

    An object of more than 1.5 MiB cannot be stored, and then no cache of the group would ever be
    told of anything again, nor leave the nodes. What is in stays in: where it asks for more room
    than there is, as the plan had it. held: the models that are in; had: those that are in a plan.
    """
    told = sum(model_bytes(name, namespace, nodes) for _, namespace, name in plan.identities)
    excess = spec_excess(group.spec)
    models_bytes, plan_bytes = MODELS_BYTES - excess, PLAN_BYTES - excess
    placed = {cache.identity: json_bytes(cache.placed) for cache in plan.admitted}
    asked = sum(placed.values()) + sum(map(json_bytes, plan.kept))
    if told <= models_bytes and asked <= plan_bytes:
        return plan
    stored = {identity: json_bytes(model) for identity, model in had.items()}
    staying = [one for one in plan.admitted if one.identity in held]
    status_room = (
        models_bytes
        - sum(model_bytes(one.metadata.name, one.metadata.namespace, nodes) for one in staying)
        - sum(model_bytes(one.model_name, one.namespace, nodes) for one in plan.kept)
    )
    plan_room = (
        plan_bytes
        - sum(stored.get(one.identity, placed[one.identity]) for one in staying)
        - sum(map(json_bytes, plan.kept))
    )
    admitted: list[Cache] = []
    kept: list[PlacedModel] = []
    refused: list[RejectedModel] = []
    for cache in plan.admitted:
        identity, (_, namespace, name) = cache.identity, cache.identity
        stays = identity in held
        more = placed[identity] - (stored.get(identity, placed[identity]) if stays else 0)
        status_more = 0 if stays else model_bytes(name, namespace, nodes)
        if (more <= 0 or more <= plan_room) and (stays or status_more <= status_room):
            plan_room -= more
            status_room -= status_more
            admitted.append(cache)
            continue
        if stays:
            kept.append(had[identity])
        refused.append(reject(cache, reasons.GROUP_TOO_LARGE, _no_room(group, nodes, stays=stays)))
    return replace(
        plan,
        admitted=tuple(admitted),
        kept=(*plan.kept, *kept),
        rejected=(*plan.rejected, *refused),
    )


def _no_room(group: LocalModelNodeGroup, nodes: int, *, stays: bool) -> str:
    what = "what its spec asks for now" if stays else "it"
    then = "; the nodes keep what they have of it as it was" if stays else ""
    return (
        f"LocalModelNodeGroup {group.metadata.name} with its {nodes} nodes is as large as an "
        f"object can be, and has no room for {what}{then}: make two groups of it, by a label of "
        "their nodes, or make storage.parameters shorter"
        + (", or the group's own spec" if spec_excess(group.spec) else "")
    )


def _admit_without_eviction(
    plan: GroupPlan, group: LocalModelNodeGroup, observed: AdmissionInput
) -> GroupPlan:
    limit = parse_quantity(group.spec.storage_limit)
    folders = _Folders(observed, plan.kept)
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


def _admit_with_eviction(
    plan: GroupPlan, group: LocalModelNodeGroup, observed: AdmissionInput
) -> GroupPlan:
    limit = parse_quantity(group.spec.storage_limit)
    admitted: list[Cache] = []
    too_large: list[Cache] = []
    for cache in plan.admitted:
        going = cache.deleting and cache.identity in observed.held
        fits = going or observed.size(cache) <= limit
        (admitted if fits else too_large).append(cache)
    pinned = _Folders(observed, (one for one in plan.kept if one.retention is Retention.PINNED))
    pinned.add(*(cache for cache in admitted if cache.spec.retention is Retention.PINNED))
    return replace(
        plan,
        admitted=tuple(admitted),
        rejected=(*plan.rejected, *(_too_large(cache, group, observed) for cache in too_large)),
        over_limit=_over_limit(group, pinned.bytes, reasons.PINNED_EXCEED_LIMIT),
    )


def _does_not_fit(
    cache: Cache, group: LocalModelNodeGroup, folders: _Folders, observed: AdmissionInput
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
        observed.sizes.get(cache.identity),
    )


def _too_large(cache: Cache, group: LocalModelNodeGroup, observed: AdmissionInput) -> RejectedModel:
    size = observed.size(cache)
    missing = format_quantity(size - parse_quantity(group.spec.storage_limit))
    return reject(
        cache,
        reasons.MODEL_TOO_LARGE,
        f"needs {_needs(cache, size, observed)}, and storageLimit of LocalModelNodeGroup "
        f"{group.metadata.name} is {group.spec.storage_limit} ({missing} are missing): raise "
        "storageLimit, or name another group",
        observed.sizes.get(cache.identity),
    )


def _needs(cache: Cache, size: int, observed: AdmissionInput) -> str:
    known = cache.identity in observed.sizes
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
