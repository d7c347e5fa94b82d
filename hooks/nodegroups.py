"""Hook of LocalModelNodeGroup: its plan for the nodes, and what they have of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from crds.base import API_VERSION
from crds.cache import AnyCache, LocalModelCache, LocalModelNamespaceCache
from crds.node import LocalModelNode
from crds.nodegroup import LocalModelNodeGroup
from crds.placement import LocalModelPlacement
from hooks import naming
from hooks.admission import admit, observe
from hooks.copies import copy_on
from hooks.envelope import (
    CompositeRequest,
    CompositeResponse,
    CustomizeRequest,
    CustomizeResponse,
    Object,
    RelatedRule,
    core_objects,
    parse_object,
    parse_objects,
)
from hooks.group_status import debounce, group_status, holds_models_of
from hooks.kserve_config import config_rules, read_config
from hooks.plan import EMPTY_PLAN, Plan, make_plan
from hooks.sharing import is_withheld
from hooks.volumes import make_volume, without_spent

if TYPE_CHECKING:
    from datetime import datetime

    from crds.placement import LocalModelPlacementSpec
    from hooks.settings import Settings

# A deletion looks again by itself: an agent that is gone for good tells nothing.
_FINALIZE_RESYNC_SECONDS = 2.0
# A node's hook that was on its way with the full plan has written by then, and runs again.
FINALIZE_SETTLE = timedelta(seconds=3)
# After this long, a group goes without waiting for agents that do not answer.
FINALIZE_PATIENCE = timedelta(minutes=10)


def customize(request: CustomizeRequest, settings: Settings) -> CustomizeResponse:
    """All caches, the LocalModelNodes that carry the group's label, KServe's configuration."""
    group = parse_object(LocalModelNodeGroup, request.parent)
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


def sync(request: CompositeRequest, settings: Settings, now: datetime) -> CompositeResponse:
    """The group's LocalModelPlacement, the volumes of its namespace caches, its status."""
    group = parse_object(LocalModelNodeGroup, request.parent)
    caches: list[AnyCache] = [
        *parse_objects(LocalModelCache, request.related).values(),
        *parse_objects(LocalModelNamespaceCache, request.related).values(),
    ]
    nodes = _nodes(request)
    stored = _stored(request, group)
    asked = make_plan(group.metadata.name, caches)
    plan = admit(asked, group, observe(group, asked, caches, nodes, stored))
    observed = core_objects("PersistentVolume", request.children)
    disabled = read_config(settings.kserve_config, request.related).volumes_disabled
    planned = [cache.identity for cache in plan.admitted]
    volumes = [
        make_volume(cache, group, cache.metadata.namespace, settings.host_path)
        for cache in plan.admitted
        if cache.metadata.namespace
        and (
            _volume_name(cache, group) in observed
            or not (
                cache.deleting or disabled or is_withheld(cache, planned, _states(cache, nodes))
            )
        )
    ]
    status, resync = _status(group, plan, nodes, stored, settings=settings, now=now)
    return CompositeResponse(
        status=status,
        children=(_placement(group, plan), *without_spent(volumes, observed)),
        resync_after_seconds=resync,
    )


def finalize(request: CompositeRequest, settings: Settings, now: datetime) -> CompositeResponse:
    """An empty plan, until it is stored and the Ready nodes list nothing of the group.

    Metacontroller writes no children in the pass that ends a finalization, and the plan goes with
    the group: a plan that goes full would keep its models on the nodes for ever.
    """
    group = parse_object(LocalModelNodeGroup, request.parent)
    nodes = _nodes(request)
    stored = _stored(request, group)
    waited = now - (group.metadata.deletion_timestamp or now)
    emptied = stored is not None and not stored.models
    holding = any(holds_models_of(group.metadata.name, node) for node in nodes)
    done = emptied and not holding and waited >= FINALIZE_SETTLE
    given_up = waited > FINALIZE_PATIENCE and (emptied or stored is None)
    status, _ = _status(group, EMPTY_PLAN, nodes, stored, settings=settings, now=now)
    return CompositeResponse(
        status=status,
        children=(_placement(group, EMPTY_PLAN),),
        resync_after_seconds=_FINALIZE_RESYNC_SECONDS,
        finalized=done or given_up,
    )


def _volume_name(cache: AnyCache, group: LocalModelNodeGroup) -> str:
    return naming.volume_name(cache.metadata.name, group.metadata.name, cache.metadata.namespace)


def _states(cache: AnyCache, nodes: list[LocalModelNode]) -> list[str]:
    return [copy_on(node, cache).state for node in nodes]


def _nodes(request: CompositeRequest) -> list[LocalModelNode]:
    nodes = parse_objects(LocalModelNode, request.related).values()
    return sorted(nodes, key=lambda node: node.metadata.name)


def _stored(
    request: CompositeRequest, group: LocalModelNodeGroup
) -> LocalModelPlacementSpec | None:
    placement = parse_objects(LocalModelPlacement, request.children).get(group.metadata.name)
    return placement.spec if placement else None


def _status(
    group: LocalModelNodeGroup,
    plan: Plan,
    nodes: list[LocalModelNode],
    stored: LocalModelPlacementSpec | None,
    *,
    settings: Settings,
    now: datetime,
) -> tuple[Object, float | None]:
    new = group_status(group, plan, nodes, stored=stored, host_path=settings.host_path, now=now)
    status, resync = debounce(group.status, new, now)
    # Metacontroller sets it itself, and compares the status with it.
    return status.model_copy(update={"observed_generation": None}).to_json(), resync


def _placement(group: LocalModelNodeGroup, plan: Plan) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelPlacement",
        "metadata": {"name": group.metadata.name},
        "spec": plan.placement(group).to_json(),
    }
