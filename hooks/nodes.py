"""Hook of Node: the LocalModelNode with the models of the node's groups, and labels of the Node.

Labels name the cached models, and the groups that select nodes by name, whose volumes require them.

A missing LocalModelPlacement removes nothing: entries of its group stay in the LocalModelNode. Only
an existing plan removes entries.

A change of a plan runs this hook for every node. So the entries of a plan are made once for each
plan, as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import replace

from crds.base import API_VERSION
from crds.naming import ZONE_LABEL
from crds.node import LocalModel
from crds.states import ModelState
from hooks import naming
from hooks.envelope import (
    BadRequest,
    CustomizeRequest,
    CustomizeResponse,
    DecoratorRequest,
    DecoratorResponse,
    Object,
    RelatedRule,
)
from hooks.exchange import Neighbours
from hooks.memo import Memo
from hooks.object_size import NODE_BYTES
from hooks.observed import EvictionSettings, GroupRef
from hooks.reading import (
    NODE,
    PLACEMENT,
    listed_by,
    objects_of,
    parse_core_node,
    parse_node,
    parse_placement,
)
from hooks.selectors import selects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from crds.base import Identity
    from crds.models import PlacedModel
    from crds.volumes import NodeSelectorTerm
    from hooks.observed import ListedModel, Node


def customize(_request: CustomizeRequest) -> CustomizeResponse:
    """The rule for all plans.

    The answer must not depend on the node: Metacontroller caches it by generation, which Nodes do
    not have.
    """
    return CustomizeResponse(
        related_resources=(RelatedRule(api_version=API_VERSION, resource="localmodelplacements"),)
    )


def sync(request: DecoratorRequest) -> DecoratorResponse:
    """The node's labels, and its LocalModelNode if it is or was in a group."""
    node = parse_core_node(request.object)
    name, labels = node.metadata.name, node.metadata.labels or {}
    # An unreadable plan counts as missing: the node's entries of its group stay.
    placements = objects_of(PLACEMENT, _plan, request.related)
    plans = placements.readable
    nodes = objects_of(NODE, parse_node, request.attachments)
    if name in nodes.unreadable:
        raise BadRequest(nodes.unreadable[name].why)
    observed = nodes.readable.get(name)

    mine = [plan for _, plan in sorted(plans.items()) if selects(plan.selector, name, labels)]
    kept = _kept(request, name, observed, plans, in_group=bool(mine))
    holders = {group for group, _ in kept} | placements.unreadable.keys()
    groups = _groups(name, mine, observed, holders)
    members = _member_labels(
        labels, mine, {ref.name for ref in groups} | placements.unreadable.keys()
    )
    if not groups and observed is None:
        return DecoratorResponse(
            labels=members | dict.fromkeys(filter(naming.is_warm_label, labels))
        )
    models = [entry for plan in mine for entry in _entries(plan, name, observed)]
    models += [shown for _, shown in kept]
    models.sort(key=lambda model: -model.priority)
    models, left_out = _within_object(models)
    groups = list(_exchange_within(groups, models))
    return DecoratorResponse(
        labels=members | _warm_labels(labels, observed),
        attachments=(
            {
                "apiVersion": API_VERSION,
                "kind": NODE,
                "metadata": _metadata(name, groups, observed, labels.get(ZONE_LABEL)),
                "spec": {
                    "localModels": [model.json for model in models],
                    "groups": groups,
                    "nodeReady": node.ready,
                }
                | ({"leftOut": left_out} if left_out else {}),
            },
        ),
    )


class _ListEntry(NamedTuple):
    """An entry of a LocalModelNode, as JSON. listed: whether the node has it already."""

    priority: int
    json: Raw
    listed: bool = False


class _Entry(NamedTuple):
    """A model of a plan as an entry, in both forms: to start, and suspended."""

    identity: Identity
    begin: _ListEntry
    suspended: _ListEntry


@dataclass(frozen=True)
class _NodePlan:
    """A LocalModelPlacement with the entries that nodes get.

    by_name: whether it selects nodes by name. turn: the nodes that may start; None: all.
    neighbours: None if the nodes of the group do not fetch from each other.
    """

    selector: tuple[NodeSelectorTerm, ...]
    by_name: bool
    group: GroupRef
    entries: tuple[_Entry, ...]
    turn: frozenset[str] | None
    neighbours: Neighbours | None

    def group_of(self, node: str) -> GroupRef:
        """The group as a node of it gets it."""
        if self.neighbours is None:
            return self.group
        exchange = self.neighbours.of(node).model_dump_json(by_alias=True)
        return replace(self.group, exchange=Raw(exchange.encode()))


def _plan(raw: Raw) -> _NodePlan:
    return _plans(bytes(raw))


def _read_plan(raw: bytes) -> _NodePlan:
    placement = parse_placement(Raw(raw))
    name, spec = placement.metadata.name, placement.spec
    return _NodePlan(
        selector=spec.node_selector_terms,
        by_name=any(term.match_fields for term in spec.node_selector_terms),
        group=GroupRef(
            name=name,
            storage_limit=spec.storage_limit,
            eviction=EvictionSettings(**dict(spec.eviction)),
        ),
        entries=tuple(_entry(model, name) for model in spec.models),
        turn=frozenset(spec.turn.nodes) if spec.turn else None,
        neighbours=None if spec.peers is None else Neighbours(spec.peers),
    )


# The same plans are in the request of every node.
_plans = Memo(_read_plan)


def _entry(model: PlacedModel, group: str) -> _Entry:
    listed = LocalModel(**dict(model), node_group=group)
    suspended = listed.model_copy(update={"suspend": True})
    return _Entry(
        model.identity,
        _ListEntry(model.priority, _json(listed)),
        _ListEntry(model.priority, _json(suspended)),
    )


def _json(model: LocalModel) -> Raw:
    return Raw(msgspec.json.encode(model.to_json()))


def _entries(plan: _NodePlan, name: str, observed: Node | None) -> Iterator[_ListEntry]:
    """The entries of a plan for a node. A started one is never suspended again."""
    listed = observed.listed if observed else {}
    reports = observed.reports if observed else {}
    may_begin = plan.turn is None or name in plan.turn
    for entry in plan.entries:
        known = listed.get(entry.identity)
        if may_begin:
            # A suspended entry with a copy on the disk stays: there is nothing to start or write.
            report = reports.get(entry.identity)
            suspend = bool(known and known.suspend and report and report.cached)
        else:
            suspend = known is None or bool(known.suspend)
        shown = entry.suspended if suspend else entry.begin
        yield shown if known is None else shown._replace(listed=True)


def _within_object(models: list[_ListEntry]) -> tuple[list[_ListEntry], int]:
    """The entries for which a LocalModelNode has room, and the number of those left out.

    A node of many groups may not have room for all of their plans. Entries that the node has
    already come first: agents remove the models of entries that are left out.
    """
    if sum(len(bytes(model.json)) for model in models) <= NODE_BYTES:
        return models, 0
    room = NODE_BYTES
    fitting: set[int] = set()
    for index in sorted(range(len(models)), key=lambda index: not models[index].listed):
        size = len(bytes(models[index].json))
        if size <= room:
            room -= size
            fitting.add(index)
    return [m for index, m in enumerate(models) if index in fitting], len(models) - len(fitting)


def _kept(
    request: DecoratorRequest,
    name: str,
    observed: Node | None,
    plans: Mapping[str, _NodePlan],
    *,
    in_group: bool,
) -> list[tuple[str, _ListEntry]]:
    """Entries that stay because the plan of their group is missing, with the group's name."""

    def stays(model: ListedModel) -> bool:
        # Entries of older versions of KServe name no group: they stay until the node has a plan.
        return model.node_group not in plans and (bool(model.node_group) or not in_group)

    if observed is None or not any(map(stays, observed.spec.local_models)):
        return []
    entries = listed_by(request.attachments[f"{NODE}.{API_VERSION}"][name])
    return [
        (model.node_group, _ListEntry(model.priority, json, listed=True))
        for model, json in entries
        if stays(model)
    ]


def _groups(
    node: str, mine: Iterable[_NodePlan], observed: Node | None, holders: AbstractSet[str]
) -> list[GroupRef]:
    """The node's groups. holders: groups with a missing plan whose entries stay."""
    groups = {plan.group.name: plan.group_of(node) for plan in mine}
    if observed is not None and holders:
        groups |= {ref.name: ref for ref in observed.spec.groups if ref.name in holders}
    return [groups[name] for name in sorted(groups)]


def _exchange_within(
    groups: Iterable[GroupRef], models: Iterable[_ListEntry]
) -> Iterator[GroupRef]:
    """The groups, without the peers of those for which a LocalModelNode has no room.

    Such a node asks the origin itself. models: the entries of the node.
    """
    room = NODE_BYTES - sum(len(bytes(model.json)) for model in models)
    for group in groups:
        size = 0 if group.exchange is UNSET else len(bytes(group.exchange))
        fits = size <= room
        room -= size if fits else 0
        yield group if fits else replace(group, exchange=UNSET)


def _metadata(name: str, groups: list[GroupRef], observed: Node | None, zone: str | None) -> Object:
    labels = {naming.group_label(group.name): "" for group in groups}
    if zone:
        labels[ZONE_LABEL] = zone
    metadata: Object = {"name": name, "labels": labels}
    if observed is None or labels.items() <= (observed.metadata.labels or {}).items():
        return metadata
    if _same_groups(observed.spec.groups, groups):
        # Somebody removed a label. Metacontroller applies an object again if its generation or the
        # desired object changes, and a change of labels makes no new generation.
        version = observed.metadata.resource_version
        metadata["annotations"] = {naming.RESTORED_ANNOTATION: version}
    return metadata


def _same_groups(observed: Sequence[GroupRef], groups: Sequence[GroupRef]) -> bool:
    return len(observed) == len(groups) and all(
        one.same_as(other) for one, other in zip(observed, groups, strict=True)
    )


def _member_labels(
    labels: Mapping[str, str], mine: Iterable[_NodePlan], groups: AbstractSet[str]
) -> dict[str, str | None]:
    """Labels of groups that select by name. groups: names of the node's groups.

    A label stays while the node is in the group, also if the group no longer selects by name:
    existing volumes require the label.
    """
    wanted: dict[str, str | None] = {
        naming.member_label(plan.group.name): "" for plan in mine if plan.by_name
    }
    stays = {naming.member_label(group) for group in groups}
    gone = (label for label in labels if naming.is_member_label(label) and label not in stays)
    return wanted | dict.fromkeys(gone)


def _warm_labels(labels: Mapping[str, str], observed: Node | None) -> dict[str, str | None]:
    if observed is None or observed.status.observed_generation is None:
        # The agent has not reported yet: the labels stay as they are.
        return {}
    warm: dict[str, str | None] = {
        naming.warm_label(model.name, model.namespace): model.key
        for model in observed.status.models
        if model.cached and model.state is ModelState.DOWNLOADED
    }
    cold: dict[str, str | None] = {
        label: None for label in labels if naming.is_warm_label(label) and label not in warm
    }
    return warm | cold
