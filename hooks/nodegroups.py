"""Hook of LocalModelNodeGroup: its plan for the nodes, and what they have of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from crds.base import API_VERSION, namespaces_by_key
from hooks import naming
from hooks.admission import admit, observe, within_status
from hooks.copies import copies_of
from hooks.envelope import (
    CACHE,
    NAMESPACE_CACHE,
    NODE,
    PLACEMENT,
    CompositeRequest,
    CompositeResponse,
    CustomizeRequest,
    CustomizeResponse,
    Object,
    RelatedRule,
    core_objects,
    objects_of,
    parse_cache,
    parse_group,
    parse_node,
    parse_placement,
)
from hooks.group_status import debounce, finding, group_status, holds_models_of, is_urgent
from hooks.kserve_config import config_rules, read_config
from hooks.pace import Unhurried, is_large, late
from hooks.plan import EMPTY_PLAN, Plan, make_plan
from hooks.sharing import is_withheld
from hooks.turns import Decision, whose_turn
from hooks.volumes import make_volume, without_spent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from crds.base import Identity
    from crds.nodegroup import LocalModelNodeGroup, LocalModelNodeGroupStatus
    from crds.placement import LocalModelPlacementSpec
    from hooks.copies import Copies
    from hooks.observed import Cache, Node
    from hooks.settings import Settings

# A deletion looks again by itself: an agent that is gone for good tells nothing.
_FINALIZE_RESYNC_SECONDS = 2.0
# A node's hook that was on its way with the full plan has written by then, and runs again.
FINALIZE_SETTLE = timedelta(seconds=3)
# After this long, a group goes without waiting for agents that do not answer.
FINALIZE_PATIENCE = timedelta(minutes=10)


def customize(request: CustomizeRequest, settings: Settings) -> CustomizeResponse:
    """All caches, the LocalModelNodes that carry the group's label, KServe's configuration."""
    group = parse_group(request.parent)
    label = naming.group_label(group.metadata.name)
    return CustomizeResponse(
        related_resources=(
            RelatedRule(api_version=API_VERSION, resource="localmodelcaches"),
            RelatedRule(api_version=API_VERSION, resource="localmodelnamespacecaches"),
            RelatedRule(
                api_version=API_VERSION,
                resource="localmodelnodes",
                label_selector={"matchExpressions": [{"key": label, "operator": "Exists"}]},
            ),
            *config_rules(settings.kserve_config),
        )
    )


def sync(
    request: CompositeRequest, settings: Settings, now: datetime
) -> CompositeResponse | Unhurried:
    """The group's LocalModelPlacement, the volumes of its namespace caches, its status.

    The answer may be late where nobody waits for it: see hooks.pace.
    """
    group = parse_group(request.parent)
    caches = [
        *objects_of(CACHE, parse_cache, request.related).values(),
        *objects_of(NAMESPACE_CACHE, parse_cache, request.related).values(),
    ]
    nodes = _nodes(request)
    stored = _stored(request, group)
    asked = make_plan(group.metadata.name, caches)
    observed = observe(group, asked, caches, nodes, stored)
    plan = within_status(admit(asked, group, observed), group, len(nodes), observed.held)
    copies = copies_of(plan.admitted, nodes)
    names = tuple(node.metadata.name for node in nodes)
    settled = finding(group, stored, names, now) is None
    decision = whose_turn(
        group, plan.admitted, nodes, copies, stored=stored, settled=settled, now=now
    )
    new = group_status(
        group,
        plan,
        nodes,
        copies,
        stored=stored,
        download=decision.download,
        host_path=settings.host_path,
        now=now,
    )
    count = len(nodes) * len(plan.admitted)
    paced = is_large(count)
    status, resync = debounce(group.status, new, now, paced=paced)
    placement = plan.placement(group, decision.turn)
    answer = _answer(
        status,
        (_child(group, placement), *_volumes(group, plan, copies, request, settings)),
        _sooner(resync, decision),
    )
    urgent = placement != stored or is_urgent(group.status, status)
    return late(answer, count) if paced and not urgent else answer


def finalize(request: CompositeRequest, settings: Settings, now: datetime) -> CompositeResponse:
    """An empty plan, until it is stored and the Ready nodes list nothing of the group.

    Metacontroller writes no children in the pass that ends a finalization, and the plan goes with
    the group: a plan that goes full would keep its models on the nodes for ever.
    """
    group = parse_group(request.parent)
    nodes = _nodes(request)
    stored = _stored(request, group)
    waited = now - (group.metadata.deletion_timestamp or now)
    emptied = stored is not None and not stored.models
    holding = any(holds_models_of(group.metadata.name, node) for node in nodes)
    done = emptied and not holding and waited >= FINALIZE_SETTLE
    given_up = waited > FINALIZE_PATIENCE and (emptied or stored is None)
    new = group_status(
        group,
        EMPTY_PLAN,
        nodes,
        {},
        stored=stored,
        download=None,
        host_path=settings.host_path,
        now=now,
    )
    status, _ = debounce(group.status, new, now)
    empty = EMPTY_PLAN.placement(group)
    answer = _answer(status, (_child(group, empty),), _FINALIZE_RESYNC_SECONDS)
    answer.finalized = done or given_up
    return answer


def _nodes(request: CompositeRequest) -> list[Node]:
    nodes = objects_of(NODE, parse_node, request.related).values()
    return sorted(nodes, key=lambda node: node.metadata.name)


def _stored(
    request: CompositeRequest, group: LocalModelNodeGroup
) -> LocalModelPlacementSpec | None:
    placement = objects_of(PLACEMENT, parse_placement, request.children).get(group.metadata.name)
    return placement.spec if placement else None


def _volumes(
    group: LocalModelNodeGroup,
    plan: Plan,
    copies: Mapping[Identity, Copies],
    request: CompositeRequest,
    settings: Settings,
) -> list[Object]:
    """The volumes of namespace caches. What is there stays; nothing new comes while it must not."""
    observed = core_objects("PersistentVolume", request.children)
    disabled = read_config(settings.kserve_config, request.related).volumes_disabled
    sharers = namespaces_by_key(cache.identity for cache in plan.admitted)

    def may_come(cache: Cache) -> bool:
        states = copies[cache.identity].states
        return not (cache.deleting or disabled or is_withheld(cache.identity, sharers, states))

    volumes = [
        make_volume(cache, group, cache.metadata.namespace, settings.host_path)
        for cache in plan.admitted
        if cache.metadata.namespace and (_volume_name(cache, group) in observed or may_come(cache))
    ]
    return without_spent(volumes, observed)


def _volume_name(cache: Cache, group: LocalModelNodeGroup) -> str:
    return naming.volume_name(cache.metadata.name, group.metadata.name, cache.metadata.namespace)


def _sooner(resync: float | None, decision: Decision) -> float | None:
    """When to look again: for the status or for the next turn, whichever comes first."""
    turn = decision.resync.total_seconds() if decision.resync else None
    return min((one for one in (resync, turn) if one is not None), default=None)


def _answer(
    status: LocalModelNodeGroupStatus, children: tuple[Object, ...], resync: float | None
) -> CompositeResponse:
    # Metacontroller sets observedGeneration itself, and compares the status with it.
    return CompositeResponse(
        status=status.model_copy(update={"observed_generation": None}).to_json(),
        children=children,
        resync_after_seconds=resync,
    )


def _child(group: LocalModelNodeGroup, placement: LocalModelPlacementSpec) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": PLACEMENT,
        "metadata": {"name": group.metadata.name},
        "spec": placement.to_json(),
    }
