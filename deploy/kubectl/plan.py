"""What would happen if some caches and groups were applied or deleted. Pure.

simulation.py runs the hooks, node_forecast.py the agents' arithmetic of capacity. Nothing here
knows where the objects come from: plan_input.py reads and checks them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from crds.quantity import format_quantity
from deploy.kube import meta
from deploy.kube.kinds import (
    CACHES,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    PLACEMENTS,
    Kind,
    KubeObject,
)
from deploy.kubectl.node_forecast import (
    Download,
    Eviction,
    NodeForecast,
    Removal,
    Wait,
    copies_of,
    forecast,
)
from deploy.kubectl.simulation import Claims, Foreign, Simulation, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from deploy.kubectl.snapshot import Snapshot
    from hooks.settings import Settings

KINDS = (CACHES, NAMESPACE_CACHES, GROUPS)

# Conditions of a group that say that something is wrong with it.
_OVER_LIMIT = "OverLimit"
# The reason of a document that the API server would not store.
REFUSED = "Refused"


class Action(StrEnum):
    """What a document does to the object that it names."""

    CREATE = "create"
    CHANGE = "change"
    NOTHING = "nothing"
    DELETE = "delete"


@dataclass(frozen=True)
class Change:
    """One document of the file: the object as it would be stored.

    refusal: why the API server would not store it; empty: it would.
    """

    kind: Kind
    obj: KubeObject
    action: Action
    refusal: str = ""

    @property
    def name(self) -> str:
        """Name of the object."""
        return meta.name(self.obj)

    @property
    def namespace(self) -> str:
        """Namespace of the object; empty for a cluster-scoped one."""
        return meta.namespace(self.obj)


class Outcome(Struct, frozen=True, rename="camel"):
    """What would become of one document.

    admitted: whether it is stored and, for a cache, in the plans of all of its groups; None for
    what is deleted. reason and message: those of Admitted that the hook would write; of a group,
    those of OverLimit or Ready. ready_reason, ready_message: those of Ready. nodes: how many nodes
    would list the model, or are in the group.
    """

    kind: str
    name: str
    namespace: str
    action: Action
    admitted: bool | None
    reason: str
    message: str
    ready_reason: str = ""
    ready_message: str = ""
    nodes: int = 0
    claims_made: tuple[str, ...] = ()
    claims_deleted: tuple[str, ...] = ()


class Shift(Struct, frozen=True, rename="camel"):
    """Another cache whose admission would change. admitted: whether it is admitted then."""

    name: str
    group: str
    admitted: bool
    reason: str
    message: str


class Plan(Struct, frozen=True, rename="camel"):
    """All that would happen, and what the plan could not take into account."""

    outcomes: tuple[Outcome, ...]
    downloads: tuple[Download, ...] = ()
    evictions: tuple[Eviction, ...] = ()
    waits: tuple[Wait, ...] = ()
    removals: tuple[Removal, ...] = ()
    shifts: tuple[Shift, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def all_admitted(self) -> bool:
        """Whether the API server takes each document, and each cache is admitted."""
        return all(one.admitted is not False for one in self.outcomes)


def make_plan(
    snapshot: Snapshot,
    changes: Sequence[Change],
    foreign: Foreign,
    settings: Settings,
    notes: Iterable[str] = (),
) -> Plan:
    """The plan for these changes of the objects in the snapshot."""
    simulation = _simulation(snapshot, foreign, settings, snapshot.at)
    valid = [change for change in changes if not change.refusal]
    groups = _touched(snapshot, valid)
    before = {name: _group_of(simulation, name) for name in groups}
    for change in valid:
        if change.action is Action.DELETE:
            simulation.delete(change.kind, change.name, change.namespace)
        elif change.action is not Action.NOTHING:
            simulation.apply(change.kind, change.obj)
    simulation.run(groups)
    for change in valid:
        if change.kind != GROUPS and change.action is not Action.DELETE:
            simulation.run_cache(change.kind, _key(change))
    nodes = _forecasts(snapshot, simulation)
    asked = {(change.namespace, change.name) for change in changes if change.kind != GROUPS}
    return Plan(
        outcomes=tuple(_outcome(change, simulation) for change in changes),
        downloads=tuple(one for node in nodes for one in node.downloads),
        evictions=tuple(one for node in nodes for one in node.evictions),
        waits=tuple(one for node in nodes for one in node.waits),
        removals=tuple(one for node in nodes for one in node.removals),
        shifts=tuple(_shifts(before, simulation, asked)),
        notes=tuple(notes),
    )


def _simulation(
    snapshot: Snapshot, foreign: Foreign, settings: Settings, now: datetime
) -> Simulation:
    found = {
        CACHES: snapshot.caches,
        NAMESPACE_CACHES: snapshot.namespace_caches,
        GROUPS: snapshot.groups,
        PLACEMENTS: snapshot.placements,
        LOCAL_MODEL_NODES: snapshot.local_model_nodes,
    }
    return Simulation(
        settings,
        now,
        {kind: {_key_of(obj): Stored(obj) for obj in objects} for kind, objects in found.items()},
        {meta.name(node): Stored(node) for node in snapshot.nodes},
        foreign,
    )


def _touched(snapshot: Snapshot, changes: Iterable[Change]) -> set[str]:
    """The groups whose plans may change: also those of other caches with the same URI."""
    found: set[str] = set()
    uris: set[str] = set()
    for change in changes:
        if change.kind == GROUPS:
            found.add(change.name)
            continue
        stored = snapshot.cache_by_name.get((change.namespace, change.name), {})
        for cache in (change.obj, stored):
            found |= groups_named(cache)
            uris.add(str((cache.get("spec") or {}).get("sourceModelUri") or ""))
    for cache in snapshot.cache_by_name.values():
        if (cache.get("spec") or {}).get("sourceModelUri") in uris:
            found |= groups_named(cache)
    return found


def groups_named(cache: KubeObject) -> set[str]:
    """The names of a cache's groups."""
    spec = cache.get("spec") or {}
    names = (*(spec.get("nodeGroups") or ()), spec.get("nodeGroup"))
    return {str(name) for name in names if name}


def _forecasts(snapshot: Snapshot, simulation: Simulation) -> list[NodeForecast]:
    """What the nodes do whose list of models or groups has changed, by name."""
    sizes: dict[str, int] = {}
    for node in snapshot.local_model_nodes:
        for key, copy in copies_of(node).items():
            if copy.size is not None:
                sizes[key] = max(copy.size, sizes.get(key, 0))
    found = []
    for name, stored in sorted(simulation.objects[LOCAL_MODEL_NODES].items()):
        before = snapshot.local_model_node_by_name.get(name)
        if before is None or before.get("spec") != stored.obj.get("spec"):
            found.append(forecast(before, stored.obj, sizes))
    return found


def _outcome(change: Change, simulation: Simulation) -> Outcome:
    head = (change.kind.name, change.name, change.namespace, change.action)
    if change.refusal:
        return Outcome(*head, admitted=False, reason=REFUSED, message=change.refusal)
    if change.action is Action.DELETE:
        return Outcome(*head, admitted=None, reason="Deleted", message=_deletion(change))
    obj = simulation.objects[change.kind][_key(change)].obj
    conditions = {one["type"]: one for one in (obj.get("status") or {}).get("conditions") or ()}
    ready = _words(conditions.get("Ready"))
    if change.kind == GROUPS:
        over = conditions.get(_OVER_LIMIT)
        reason, message = _words(over) if over and over["status"] == "True" else ready
        status = obj.get("status") or {}
        return Outcome(*head, True, reason, message, *ready, len(status.get("nodes") or ()))
    admitted = conditions.get("Admitted") or {}
    is_admitted = admitted.get("status") == "True"
    claims = simulation.claims.get((change.namespace, change.name), Claims())
    return Outcome(
        *head,
        is_admitted,
        *_words(admitted),
        *ready,
        nodes=_listing(simulation, change),
        claims_made=tuple(sorted(claims.wanted - claims.present)),
        claims_deleted=tuple(sorted(claims.present - claims.wanted)),
    )


def _deletion(change: Change) -> str:
    status = change.obj.get("status") or {}
    if change.kind == GROUPS:
        return "all of its models are removed from its nodes"
    pods = int(status.get("pods") or 0)
    if not pods:
        return "its claims are deleted, and its copies go after the agents' grace period"
    noun = "pod that uses it has" if pods == 1 else "pods that use it have"
    return f"it stays with its claims until the {pods} {noun} ended; then its copies go"


def _listing(simulation: Simulation, change: Change) -> int:
    """How many nodes list a cache."""
    return sum(
        any(
            (entry.get("namespace") or "", entry["modelName"]) == (change.namespace, change.name)
            for entry in (node.obj.get("spec") or {}).get("localModels") or ()
        )
        for node in simulation.objects[LOCAL_MODEL_NODES].values()
    )


def _group_of(simulation: Simulation, name: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Reason and message of each cache that a group rejects, by namespace and name."""
    group = simulation.objects[GROUPS].get(name)
    status: Mapping[str, Any] = (group.obj.get("status") if group else None) or {}
    return {
        (one.get("namespace") or "", one["name"]): (one["reason"], one["message"])
        for one in status.get("rejected") or ()
    }


def _shifts(
    before: Mapping[str, dict[tuple[str, str], tuple[str, str]]],
    simulation: Simulation,
    asked: set[tuple[str, str]],
) -> Iterable[Shift]:
    for group, was in sorted(before.items()):
        now = _group_of(simulation, group)
        for cache in sorted((was.keys() ^ now.keys()) - asked):
            name = "/".join(part for part in cache if part)
            reason, message = now.get(cache, ("Placed", f"in the plan of {group}"))
            exists = any(name in simulation.objects[kind] for kind in (CACHES, NAMESPACE_CACHES))
            if exists:
                yield Shift(name, group, cache not in now, reason, message)


def _words(condition: Mapping[str, Any] | None) -> tuple[str, str]:
    found = condition or {}
    return str(found.get("reason", "")), str(found.get("message", ""))


def _key(change: Change) -> str:
    return _key_of(change.obj)


def _key_of(obj: KubeObject) -> str:
    return "/".join(part for part in (meta.namespace(obj), meta.name(obj)) if part)


def summary(plan: Plan) -> str:
    """One sentence on what would happen on the nodes."""
    parts = []
    if plan.downloads:
        nodes = len({one.node for one in plan.downloads})
        size = format_quantity(sum(one.bytes for one in plan.downloads))
        parts.append(f"{size} are downloaded to {_count(nodes, 'node')}")
    if plan.evictions:
        size = format_quantity(sum(one.bytes for one in plan.evictions))
        copies = _count(len(plan.evictions), "copy", "copies")
        parts.append(f"{copies} of {size} evicted")
    if plan.waits:
        models = Counter(one.key for one in plan.waits)
        parts.append(f"{_count(len(models), 'model')} without room on some nodes")
    if plan.removals:
        parts.append(f"{_count(len(plan.removals), 'copy', 'copies')} removed")
    return "; ".join(parts) or "nothing changes on the nodes"


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
