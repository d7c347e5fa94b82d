"""Hook of LocalModelNodeGroup: the plan, volumes of namespace caches, and the status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.base import API_VERSION
from crds.naming import claim_name
from hooks import naming
from hooks.admission import admission_input, admit_by_size, fit_into_objects
from hooks.answer_delay import DelayedAnswer, delayed, is_large
from hooks.copies import copies_of
from hooks.envelope import (
    BadRequest,
    CompositeRequest,
    CompositeResponse,
    CustomizeRequest,
    CustomizeResponse,
    Object,
    RelatedRule,
    core_objects,
    parse_foreign,
)
from hooks.group_status import debounce, group_status, is_urgent, nodes_pending
from hooks.kserve_config import config_rules, read_config
from hooks.offers import Names, make_offers
from hooks.peers import with_peers
from hooks.plan import (
    EMPTY_PLACEMENT,
    EMPTY_PLAN,
    GroupPlan,
    claim_is_taken,
    plan_group,
    retain_unreadable,
)
from hooks.reading import (
    CACHE,
    NAMESPACE_CACHE,
    NODE,
    PLACEMENT,
    Unreadable,
    UnreadableError,
    objects_of,
    parse_cache,
    parse_group,
    parse_node,
    parse_own_plan,
    placed_of,
    unknown_node,
)
from hooks.removal import removal
from hooks.sharing import Owners
from hooks.turns import Decision, decide_turn
from hooks.unreadable import conditions_of, unreadable_answer
from hooks.volumes import (
    is_bound,
    make_volume,
    selects_by_name,
    unchanged,
    volume_name_of,
    without_spent,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from crds.base import Identity
    from crds.models import PlacedModel
    from crds.nodegroup import LocalModelNodeGroup, LocalModelNodeGroupStatus
    from crds.placement import LocalModelPlacementSpec
    from hooks.observed import Cache, Node
    from hooks.plan import CacheName
    from hooks.settings import Settings

# Finalize runs again after this time: an agent that is gone causes no event.
_FINALIZE_RESYNC_SECONDS = 2.0
_CLAIMS = "PersistentVolumeClaim.v1"


def customize(request: CustomizeRequest, settings: Settings) -> CustomizeResponse:
    """Objects that a group's sync needs: all caches, the LocalModelNodes with the group's label.

    And KServe's configuration, and claims of namespace caches: a claim names the volume behind it.
    """
    try:
        name = parse_group(request.parent).metadata.name
    except UnreadableError as error:
        name = error.name
    label = naming.group_label(name)
    return CustomizeResponse(
        related_resources=(
            RelatedRule(api_version=API_VERSION, resource="localmodelcaches"),
            RelatedRule(api_version=API_VERSION, resource="localmodelnamespacecaches"),
            RelatedRule(
                api_version=API_VERSION,
                resource="localmodelnodes",
                label_selector={"matchExpressions": [{"key": label, "operator": "Exists"}]},
            ),
            RelatedRule(
                api_version="v1",
                resource="persistentvolumeclaims",
                label_selector={
                    "matchLabels": {naming.NODE_GROUP_LABEL: naming.label_value(name)},
                    "matchExpressions": [
                        {"key": naming.CACHE_NAMESPACE_LABEL, "operator": "Exists"}
                    ],
                },
            ),
            *config_rules(settings.kserve_config),
        )
    )


def sync(
    request: CompositeRequest, settings: Settings, now: datetime
) -> CompositeResponse | DelayedAnswer:
    """The group's LocalModelPlacement, the volumes of its namespace caches, its status.

    The answer of a large group may be delayed: see hooks.answer_delay.
    """
    try:
        group = parse_group(request.parent)
    except UnreadableError as error:
        return unreadable_answer(request, error, now)
    name = group.metadata.name
    caches = _read_caches(request)
    nodes = _nodes(request)
    stored = _stored(request, name)
    asked = plan_group(name, caches.readable)
    if caches.unreadable:
        asked = retain_unreadable(asked, name, caches.unreadable, _had(name, stored, request))
    observed = admission_input(group, asked, caches.readable, nodes, stored)
    plan = fit_into_objects(
        admit_by_size(asked, group, observed),
        group,
        len(nodes),
        observed.held,
        {model.identity: model for model in stored.models} if stored else {},
    )
    copies = copies_of(plan.admitted, nodes)
    owners = Owners(caches.readable, caches.unreadable)
    names = tuple(node.metadata.name for node in nodes)
    settled = nodes_pending(group, stored, names, now) is None
    decision = decide_turn(
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
        owners=owners,
        now=now,
    )
    count = len(nodes) * len(plan.admitted)
    paced = is_large(count)
    status, resync = debounce(group.status, new, now, paced=paced)
    offers = make_offers(name, plan, caches.names, stored)
    placement = plan.placement(group, decision.turn, owners, offers)
    placement = with_peers(placement, group, nodes, stored)
    withheld = {one.identity for one in new.models if one.claims_wait}
    volumes = _volumes(group, plan, caches, withheld, request=request, settings=settings)
    answer = _answer(
        status,
        (_child(name, placement), *volumes),
        _earliest(resync, decision),
    )
    urgent = _is_urgent_plan(placement, stored) or is_urgent(group.status, status)
    return delayed(answer, count) if paced and not urgent else answer


def finalize(request: CompositeRequest, settings: Settings, now: datetime) -> CompositeResponse:
    """Empty the plan; finalized once no node lists a model of the group and agents are done.

    Metacontroller writes no children with the answer that ends a finalization, and deletes the plan
    with the group. If that plan still listed models, they would stay on the nodes for ever.
    """
    nodes = _nodes(request)
    try:
        group = parse_group(request.parent)
    except UnreadableError as error:
        stored = _stored(request, error.name)
        progress = removal(error.name, stored, nodes, conditions_of(request.parent), now)
        empty = (
            stored.model_copy(update={"models": (), "offers": {}, "turn": None, "peers": None})
            if stored
            else EMPTY_PLACEMENT
        )
        children = (_child(error.name, empty),)
        answer = unreadable_answer(request, error, now, children=children, more=(progress.finding,))
    else:
        name = group.metadata.name
        stored = _stored(request, name)
        progress = removal(name, stored, nodes, group.status.conditions, now)
        new = group_status(
            group,
            EMPTY_PLAN,
            nodes,
            {},
            stored=stored,
            download=None,
            host_path=settings.host_path,
            now=now,
            removal=progress.finding,
        )
        status, _ = debounce(group.status, new, now)
        answer = _answer(status, (_child(name, EMPTY_PLAN.placement(group)),), None)
    answer.resync_after_seconds = _FINALIZE_RESYNC_SECONDS
    answer.finalized = progress.done
    return answer


@dataclass(frozen=True)
class _Caches:
    """All caches of the cluster without pvcRef: readable and unreadable ones.

    names: those of all caches of namespaces, with pvcRef too.
    """

    readable: tuple[Cache, ...]
    unreadable: tuple[Unreadable, ...]
    names: Names

    def namespaced(self, group: str) -> Iterator[CacheName]:
        """Namespace and name of each LocalModelNamespaceCache that names the group or may do so."""
        for cache in self.readable:
            if cache.metadata.namespace and group in cache.spec.group_names:
                yield cache.metadata.namespace, cache.metadata.name
        for one in self.unreadable:
            if one.namespace:
                yield one.namespace, one.name


def _read_caches(request: CompositeRequest) -> _Caches:
    found = [objects_of(kind, parse_cache, request.related) for kind in (CACHE, NAMESPACE_CACHE)]
    owned = found[1]
    return _Caches(
        readable=tuple(one for kind in found for one in kind.readable.values() if not one.imported),
        unreadable=tuple(
            one for kind in found for one in kind.unreadable.values() if not one.imported
        ),
        names=Names(
            (
                *((one.metadata.namespace, one.metadata.name) for one in owned.readable.values()),
                *((one.namespace, one.name) for one in owned.unreadable.values()),
            )
        ),
    )


def _nodes(request: CompositeRequest) -> list[Node]:
    """The group's nodes, sorted by name. An unreadable one counts as not Ready."""
    found = objects_of(NODE, parse_node, request.related)
    if (
        found.unreadable
        and not found.readable
        and all(one.lost for one in found.unreadable.values())
    ):
        # Another CRD is served: otherwise all nodes would count as not Ready.
        raise BadRequest(next(iter(found.unreadable.values())).why)
    nodes = [
        *found.readable.values(),
        *(unknown_node(one.name) for one in found.unreadable.values()),
    ]
    return sorted(nodes, key=lambda node: node.metadata.name)


def _is_urgent_plan(plan: LocalModelPlacementSpec, stored: LocalModelPlacementSpec | None) -> bool:
    """Whether the answer with the plan must not wait. Agents that start change only its peers."""
    return stored is None or plan != stored.model_copy(update={"peers": plan.peers})


def _stored(request: CompositeRequest, group: str) -> LocalModelPlacementSpec | None:
    return objects_of(PLACEMENT, parse_own_plan, request.children).readable.get(group)


def _had(
    group: str, stored: LocalModelPlacementSpec | None, request: CompositeRequest
) -> Mapping[CacheName, PlacedModel]:
    """Entries of the stored plan by cache; without a stored plan, entries that nodes list."""
    if stored is not None:
        models: Sequence[PlacedModel] = stored.models
    else:
        listed = objects_of(NODE, placed_of, request.related).readable.values()
        models = [model for entries in listed for named, model in entries if named == group]
    return {(model.namespace, model.model_name): model for model in models}


def _volumes(
    group: LocalModelNodeGroup,
    plan: GroupPlan,
    caches: _Caches,
    withheld: AbstractSet[Identity],
    *,
    request: CompositeRequest,
    settings: Settings,
) -> list[Object]:
    """The volumes of namespace caches: existing ones, and new ones of caches that may get a claim.

    withheld: identities of models whose new claims wait.
    """
    observed = core_objects("PersistentVolume", request.children)
    claims = {key: parse_foreign(raw) for key, raw in request.related.get(_CLAIMS, {}).items()}
    disabled = read_config(settings.kserve_config, request.related).volumes_disabled
    admitted = {
        (cache.metadata.namespace, cache.metadata.name): cache
        for cache in plan.admitted
        if cache.metadata.namespace
    }

    def may_come(cache: Cache) -> bool:
        # The volume behind another owner's claim has the name of this one's.
        taken = claim_is_taken(cache)
        return not (cache.deleting or disabled or cache.identity in withheld or taken)

    by_name = selects_by_name(group)
    volumes: list[Object] = []
    for namespace, name in caches.namespaced(group.metadata.name):
        claim = claims.get(f"{namespace}/{claim_name(name, group.metadata.name)}")
        volume = volume_name_of(
            name, group.metadata.name, namespace, claim, observed, by_name=by_name
        )
        cache = admitted.get((namespace, name))
        if cache is not None and (volume in observed or may_come(cache)):
            adopted = is_bound(claim) and volume not in observed
            volumes.append(
                make_volume(
                    cache,
                    group,
                    namespace,
                    settings.volume_path(cache.spec.key),
                    name=volume,
                    adopted=adopted,
                )
            )
        elif cache is None and volume in observed:
            # A pod may read through the volume: it stays until the cache is deleted.
            volumes.append(unchanged(observed[volume]))
    return without_spent(volumes, observed)


def _earliest(resync: float | None, decision: Decision) -> float | None:
    """Seconds until the next sync: for the status or for the next turn, whichever comes first."""
    turn = decision.resync.total_seconds() if decision.resync else None
    return min((one for one in (resync, turn) if one is not None), default=None)


def _answer(
    status: LocalModelNodeGroupStatus, children: tuple[Object, ...], resync: float | None
) -> CompositeResponse:
    # Metacontroller sets observedGeneration itself.
    return CompositeResponse(
        status=status.model_copy(update={"observed_generation": None}).to_json(),
        children=children,
        resync_after_seconds=resync,
    )


def _child(group: str, placement: LocalModelPlacementSpec) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": PLACEMENT,
        "metadata": {"name": group},
        "spec": placement.to_json(),
    }
