"""Admission: which models a group takes by their size, and whether they exceed storageLimit.

A model counts with its real size once a node has reported it, and with spec.modelSize until then.
Models with the same URI share a folder, which counts once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crds.conditions import Finding
from crds.eviction import EvictionPolicy, Retention
from crds.quantity import format_quantity, parse_quantity
from hooks import reasons
from hooks.copies import on_disk
from hooks.object_size import MODELS_BYTES, json_bytes, model_bytes, plan_bytes, spec_excess
from hooks.plan import reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from crds.base import Identity
    from crds.models import PlacedModel
    from crds.nodegroup import LocalModelNodeGroup, RejectedModel
    from crds.placement import LocalModelPlacementSpec
    from hooks.observed import Cache, Node
    from hooks.plan import GroupPlan

# Reasons of a group's condition Ready before its nodes are known.
_NODES_UNKNOWN = (reasons.PLAN_PENDING, reasons.FINDING_NODES, reasons.NO_NODES)

# By reason: what exceeds the limit, the consequence, and an alternative to a higher limit.
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
    """Input of admission beside the specs.

    sizes: bytes of a model's files as nodes reported them, by identity: another cache's source may
    list other files for the same folder. held: the models that are admitted already.
    """

    sizes: Mapping[Identity, int]
    held: AbstractSet[Identity]

    def size(self, cache: Cache) -> int:
        """Bytes that count for a model."""
        real = self.sizes.get(cache.identity)
        return cache.spec.declared_bytes if real is None else real

    def kept_size(self, model: PlacedModel) -> int:
        """Bytes that count for a model that stays as it is in the stored plan."""
        real = self.sizes.get(model.identity)
        return parse_quantity(model.model_size) if real is None else real


def admission_input(
    group: LocalModelNodeGroup,
    plan: GroupPlan,
    caches: Iterable[Cache],
    nodes: Sequence[Node],
    stored: LocalModelPlacementSpec | None,
) -> AdmissionInput:
    """Collect the input of admission.

    plan: the models to admit. caches: all caches of the cluster. stored: the stored plan.

    While no plan is stored, and while the nodes of a new group are joining, copies on nodes count
    as admitted too: the group may have taken over from another controller, or somebody may have
    deleted its LocalModelPlacement.
    """
    held = {model.identity for model in stored.models} if stored else set()
    was = next((one for one in group.status.conditions if one.type == reasons.READY), None)
    if stored is None or was is None or was.reason in _NODES_UNKNOWN:
        asked = {cache.identity: cache for cache in plan.admitted}
        for node in nodes:
            held |= _held_by(node, group.metadata.name, asked)
    return AdmissionInput(sizes=_sizes(group, caches, nodes), held=held)


def _held_by(node: Node, group: str, asked: Mapping[Identity, Cache]) -> set[Identity]:
    """The models that a node lists for the group, or has on its disk and lists for no group."""
    listed: set[Identity] = set()
    others: set[Identity] = set()
    for model in node.spec.local_models:
        (listed if model.node_group == group else others).add(model.identity)
    return listed | (on_disk(node, asked) - (others - listed))


def _sizes(
    group: LocalModelNodeGroup, caches: Iterable[Cache], nodes: Sequence[Node]
) -> dict[Identity, int]:
    """Bytes of the models' files, as nodes report them now or reported them last.

    A size stays known when the copies are deleted: otherwise a model that is too large would be
    admitted again. It is stored in the status of the group, and later in that of the cache.
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


def _largest(reported: Iterable[tuple[Identity, int | None]]) -> dict[Identity, int]:
    sizes: dict[Identity, int] = {}
    for identity, size in reported:
        if size is not None:
            sizes[identity] = max(sizes.get(identity, 0), size)
    return sizes


def admit_by_size(
    plan: GroupPlan, group: LocalModelNodeGroup, observed: AdmissionInput
) -> GroupPlan:
    """The plan without the models that do not fit, by the group's eviction policy.

    None: an admitted model stays admitted until its cache is deleted or no longer names the group,
    even if priorities, the limit or its real size change. New models are admitted by priority, then
    age, if they fit beside the admitted ones. A model that does not fit keeps no smaller one out:
    the space would stay empty until somebody acts.

    LRU: every model is admitted, since agents evict, except one that is larger than the limit. An
    admitted model whose cache is being deleted stays: a pod may still read through its claim.
    """
    if group.spec.eviction_settings.policy is EvictionPolicy.LRU:
        return _admit_with_eviction(plan, group, observed)
    return _admit_without_eviction(plan, group, observed)


class _Folders:
    """Bytes of a set of models: a folder counts once, with the largest size of its models."""

    def __init__(self, observed: AdmissionInput, kept: Iterable[PlacedModel] = ()) -> None:
        self.bytes = 0
        self._observed = observed
        self._folders: dict[str, int] = {}
        for model in kept:
            self._take(model.key, observed.kept_size(model))

    def more(self, cache: Cache) -> int:
        """Bytes that a further model would add."""
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
    """The plan without the models for which the plan's object or the group's status has no room.

    The API server stores no object of more than 1.5 MiB: statuses of all caches of the group, and
    the models of its nodes, would then stay as they are for ever. Admitted models stay: if a
    changed one has no room, then as it was. nodes: their number. held: identities of the admitted
    models. had: entries of the stored plan.
    """
    listed = sum(model_bytes(name, namespace, nodes) for _, namespace, name in plan.identities)
    models_bytes = MODELS_BYTES - spec_excess(group.spec)
    room = plan_bytes(group.spec)
    placed = {cache.identity: json_bytes(cache.placed) for cache in plan.admitted}
    asked = sum(placed.values()) + sum(map(json_bytes, plan.kept))
    if listed <= models_bytes and asked <= room:
        return plan
    stored = {identity: json_bytes(model) for identity, model in had.items()}
    staying = [one for one in plan.admitted if one.identity in held]
    status_room = (
        models_bytes
        - sum(model_bytes(one.metadata.name, one.metadata.namespace, nodes) for one in staying)
        - sum(model_bytes(one.model_name, one.namespace, nodes) for one in plan.kept)
    )
    plan_room = (
        room
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
    what = "the changed spec of this cache" if stays else "this model"
    then = "; the nodes keep the model as it was" if stays else ""
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
