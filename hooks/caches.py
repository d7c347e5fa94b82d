"""Hooks of LocalModelCache and LocalModelNamespaceCache: status, volumes and claims."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crds.base import API_VERSION
from hooks.cache_status import Groups, cache_status, view
from hooks.claim_limits import ClaimLimits, limit_rules
from hooks.claims import ClaimView, claims_bound, claims_going, claims_not_managed
from hooks.envelope import (
    CompositeRequest,
    CompositeResponse,
    CustomizeRequest,
    CustomizeResponse,
    Object,
    RelatedRule,
    core_objects,
    parse_foreign,
)
from hooks.kserve_config import config_rules, read_config
from hooks.mounts import Mounts, claim_rule, mounts_in_use, plan_mounts, volume_rule
from hooks.pvc_ref import imported_status, shared_claim
from hooks.reading import (
    NODE_GROUP,
    Found,
    UnreadableError,
    objects_of,
    parse_cache,
    parse_group,
)
from hooks.services import service_rules, services_of
from hooks.unreadable import unreadable_answer
from hooks.users import Users
from hooks.volumes import (
    NO_LIMITS,
    is_bound,
    make_claim,
    make_volume,
    selects_by_name,
    unchanged,
    volume_name_of,
    without_spent,
)
from hooks.workloads import namespaces_with_their_own, own_cache_rules, workload_rules, workloads_of

if TYPE_CHECKING:
    from datetime import datetime

    from crds.conditions import Finding
    from crds.nodegroup import LocalModelNodeGroup
    from hooks.observed import Cache
    from hooks.settings import Settings
    from hooks.users import User


def customize(request: CustomizeRequest, settings: Settings) -> CustomizeResponse:
    """Objects that a cache's sync needs: groups, namespaces, users, claims with its names.

    And the objects that may refuse its claims, and KServe's configuration.
    """
    if shared_claim(request.parent) is not None:
        return CustomizeResponse(related_resources=())
    try:
        cache = parse_cache(request.parent)
    except UnreadableError:
        # Nothing is known of its spec; the answer of sync needs no further objects.
        return CustomizeResponse(related_resources=())
    rules = []
    # A rule without names would select all groups.
    if cache.spec.group_names:
        rules.append(
            RelatedRule(
                api_version=API_VERSION,
                resource="localmodelnodegroups",
                names=cache.spec.group_names,
            )
        )
    # Finalize needs no more, and must not fail on a kind that Metacontroller cannot list.
    if not cache.deleting:
        selector = cache.spec.namespace_selector
        if selector is not None:
            rules.append(
                RelatedRule(api_version="v1", resource="namespaces", label_selector=selector)
            )
        rules += service_rules(cache, settings.service_kinds)
        rules += workload_rules(cache, settings.workload_kinds)
        rules += own_cache_rules(cache, settings)
        if settings.claims_follow_users and cache.spec.group_names:
            rules.append(claim_rule(cache))
        if cache.metadata.namespace and cache.spec.group_names:
            rules.append(volume_rule(cache))
        rules += limit_rules(cache, settings)
        rules += config_rules(settings.kserve_config)
    return CustomizeResponse(related_resources=tuple(rules))


def sync(request: CompositeRequest, settings: Settings, now: datetime) -> CompositeResponse:
    """The cache's status, and a claim with its volume for each group and namespace."""
    claim = shared_claim(request.parent)
    if claim is not None:
        # Claims from a time when the spec named groups are deleted.
        return CompositeResponse(status=imported_status(request.parent, claim, now))
    try:
        seen = _see(request)
    except UnreadableError as error:
        return unreadable_answer(request, error, now)
    services = services_of(seen.cache, settings.service_kinds, request.related)
    workloads = workloads_of(seen.cache, settings.workload_kinds, request.related)
    users = (*services, *workloads)
    children, bound = _volumes_and_claims(seen, users, request, settings)
    status = cache_status(
        seen.cache,
        seen.groups,
        claims=bound,
        users=Users.listed(services, workloads),
        now=now,
    )
    return CompositeResponse(status=status.to_json(), children=children)


def _volumes_and_claims(
    seen: _Seen, users: tuple[User, ...], request: CompositeRequest, settings: Settings
) -> tuple[tuple[Object, ...], Finding]:
    cache = seen.cache
    observed_claims = core_objects("PersistentVolumeClaim", request.children)
    observed_volumes = _volumes_there(request)
    found = _claims_of_these_names(cache, request, settings) | observed_claims
    hidden = namespaces_with_their_own(cache, request.related)
    with_pods = (one.group.metadata.name for one in seen.groups.views if one.may_have_pods)
    kept = mounts_in_use(cache, observed_claims, with_pods, hidden)
    mounts = plan_mounts(cache, _namespaces(cache, request), users, found, kept=kept, hidden=hidden)
    limits = ClaimLimits(request.related)
    made = _made(seen, mounts, found, observed_volumes, limits=limits, settings=settings)
    volumes, claims = made.volumes, made.claims
    if read_config(settings.kserve_config, request.related).volumes_disabled:
        # No new objects. Existing ones are deleted only when they are no longer wanted.
        claims = [c for c in claims if _key(c) in observed_claims]
        volumes = [v for v in volumes if _key(v) in observed_volumes]
        bound = claims_not_managed(settings.kserve_config)
    else:
        theirs = _volumes_of_groups(request)
        bound = claims_bound(
            cache,
            ClaimView(
                claims,
                observed_claims,
                [*volumes, *(v for v in made.of_groups if _key(v) in theirs)],
                observed_volumes | theirs,
                taken=mounts.taken,
                withheld=made.withheld,
                waiting=made.waiting,
                limits=limits,
            ),
        )
    return (*without_spent(volumes, observed_volumes), *claims), bound


@dataclass(frozen=True)
class _Made:
    """Desired volumes and claims, and the keys of claims that wait: see ClaimView.

    of_groups: desired volumes that the groups make.
    """

    volumes: list[Object] = field(default_factory=list)
    of_groups: list[Object] = field(default_factory=list)
    claims: list[Object] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)


def _made(
    seen: _Seen,
    mounts: Mounts,
    found: dict[str, Object],
    observed_volumes: dict[str, Object],
    *,
    limits: ClaimLimits,
    settings: Settings,
) -> _Made:
    """Desired claims, and volumes of a LocalModelCache: groups make those of namespace caches."""
    cache = seen.cache
    groups = {one.group.metadata.name: one for one in seen.groups.views}
    made = _Made()
    volumes, claims = made.volumes, made.claims
    for mount in mounts.wanted:
        claim = found.get(mount.claim_key(cache))
        one = groups.get(mount.group)
        name = volume_name_of(
            cache.metadata.name,
            mount.group,
            mount.namespace,
            claim,
            observed_volumes,
            by_name=one is not None and selects_by_name(one.group),
        )
        volume = observed_volumes.get(name)
        if one is None or one.rejected is not None:
            # No new objects; existing ones stay, since a pod may use them.
            claims += [unchanged(claim)] if claim else []
            volumes += [unchanged(volume)] if volume else []
        elif one.group.deleting:
            continue
        elif claim is None and one.model is None:
            made.waiting[mount.claim_key(cache)] = "waiting for the plan of its group"
        elif claim is None and one.withheld:
            made.withheld.append(mount.claim_key(cache))
        elif claim is not None and _waits_for_another(claim, name, cache):
            # Metacontroller deletes the cache's own claim, and the next sync makes a new one; a
            # claim of another owner stays.
            made.waiting[mount.claim_key(cache)] = (
                "the one that is there asks for a volume that may be another claim's, and is made "
                "anew once it is gone: delete it if it stays"
            )
        else:
            # The spec of an existing claim does not change.
            there = NO_LIMITS if claim else limits.in_namespace(mount.namespace)
            claims.append(
                make_claim(cache, one.group, mount.namespace, claim, volume=name, limits=there)
            )
            namespaced = bool(cache.metadata.namespace)
            adopted = is_bound(claim) and volume is None and not namespaced
            (made.of_groups if namespaced else volumes).append(
                make_volume(
                    cache,
                    one.group,
                    mount.namespace,
                    settings.volume_path(cache.spec.key),
                    claim,
                    name=name,
                    adopted=adopted,
                )
            )
    return made


def _waits_for_another(claim: Object, volume: str, cache: Cache) -> bool:
    """Whether an unbound claim names another volume than the one it would get."""
    clusters = not cache.metadata.namespace
    return clusters and not is_bound(claim) and claim["spec"].get("volumeName") != volume


def finalize(request: CompositeRequest, _settings: Settings, now: datetime) -> CompositeResponse:
    """Delete claims and volumes; finalized once none exists.

    A claim that a pod uses stays until the pod ends. Until then the cache stays too, and with it
    the model in the plans.
    """
    left = _children(request)
    claim = shared_claim(request.parent)
    if claim is not None:
        status_as_it_is = imported_status(request.parent, claim, now)
        return CompositeResponse(status=status_as_it_is, finalized=not left)
    try:
        seen = _see(request)
    except UnreadableError as error:
        answer = unreadable_answer(request, error, now, children=())
        answer.finalized = not left
        return answer
    status = cache_status(
        seen.cache,
        seen.groups,
        claims=claims_going(left),
        users=Users.from_status(seen.cache.status),
        now=now,
    )
    return CompositeResponse(status=status.to_json(), children=(), finalized=not left)


@dataclass(frozen=True)
class _Seen:
    cache: Cache
    groups: Groups


def _see(request: CompositeRequest) -> _Seen:
    cache = parse_cache(request.parent)
    names = cache.spec.group_names
    groups: Found[LocalModelNodeGroup] = (
        objects_of(NODE_GROUP, parse_group, request.related) if names else Found({}, {})
    )
    readable, unreadable = groups.readable, groups.unreadable
    return _Seen(
        cache,
        Groups(
            views=tuple(view(cache, readable[n]) for n in names if n in readable),
            missing=tuple(n for n in names if n not in readable and n not in unreadable),
            unreadable={n: unreadable[n].why for n in names if n in unreadable},
        ),
    )


def _claims_of_these_names(
    cache: Cache, request: CompositeRequest, settings: Settings
) -> dict[str, Object]:
    if not settings.claims_follow_users or not cache.spec.group_names:
        return {}
    return core_objects("PersistentVolumeClaim", request.related)


def _namespaces(cache: Cache, request: CompositeRequest) -> list[str]:
    """Namespaces that get a claim, without those that are being deleted."""
    if cache.metadata.namespace:
        return [cache.metadata.namespace]
    if cache.spec.namespace_selector is None:
        return []
    namespaces = core_objects("Namespace", request.related)
    return [
        name
        for name, namespace in namespaces.items()
        if namespace.get("status", {}).get("phase") != "Terminating"
    ]


def _volumes_there(request: CompositeRequest) -> dict[str, Object]:
    """The cache's own volumes. Those of a namespace cache are children of its groups."""
    volumes = request.children.get("PersistentVolume.v1", {})
    return {name: parse_foreign(raw) for name, raw in volumes.items()}


def _volumes_of_groups(request: CompositeRequest) -> dict[str, Object]:
    """The volumes of a namespace's cache. They are read only to say what is wrong with them."""
    volumes = request.related.get("PersistentVolume.v1", {})
    return {name: parse_foreign(raw) for name, raw in volumes.items()}


def _key(obj: Object) -> str:
    """Key of a child in Metacontroller's requests: name, or namespace/name."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def _children(request: CompositeRequest) -> list[str]:
    return [
        f"{kind.partition('.')[0]} {key}"
        for kind, objects in request.children.items()
        for key in objects
    ]
