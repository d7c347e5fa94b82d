"""Hooks of LocalModelCache and LocalModelNamespaceCache: status, volumes and claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.base import API_VERSION
from hooks import naming
from hooks.cache_status import GroupView, cache_status, view
from hooks.claims import ClaimView, claims_bound, claims_going, claims_not_managed
from hooks.envelope import (
    NODE_GROUP,
    CompositeRequest,
    CompositeResponse,
    CustomizeRequest,
    CustomizeResponse,
    Object,
    RelatedRule,
    core_objects,
    objects_of,
    parse_cache,
    parse_foreign,
    parse_group,
)
from hooks.kserve_config import config_rules, read_config
from hooks.mounts import Mounts, claim_rule, plan_mounts
from hooks.services import Users, service_rules, services_of
from hooks.volumes import as_it_is, is_bound, make_claim, make_volume, without_spent

if TYPE_CHECKING:
    from datetime import datetime

    from crds.conditions import Finding
    from hooks.observed import Cache
    from hooks.services import Service
    from hooks.settings import Settings


def customize(request: CustomizeRequest, settings: Settings) -> CustomizeResponse:
    """What a cache looks at: its groups and namespaces, its services, claims of its names."""
    cache = parse_cache(request.parent)
    rules = []
    # A rule without names would select every group.
    if cache.spec.group_names:
        rules.append(
            RelatedRule(
                api_version=API_VERSION,
                resource="localmodelnodegroups",
                names=cache.spec.group_names,
            )
        )
    # Finalize needs no more, and what Metacontroller cannot read or find must not stop it.
    if not cache.deleting:
        selector = cache.spec.namespace_selector
        if selector is not None:
            rules.append(
                RelatedRule(api_version="v1", resource="namespaces", label_selector=selector)
            )
        if settings.service_kinds:
            rules += service_rules(cache, settings.service_kinds)
            if cache.spec.group_names:
                rules.append(claim_rule(cache))
        rules += config_rules(settings.kserve_config)
    return CustomizeResponse(related_resources=tuple(rules))


def sync(request: CompositeRequest, settings: Settings, now: datetime) -> CompositeResponse:
    """Status, and for each group and namespace a claim with its volume."""
    seen = _see(request)
    services = services_of(seen.cache, settings.service_kinds, request.related)
    children, bound = _volumes_and_claims(seen, services, request, settings)
    status = cache_status(
        seen.cache, seen.views, seen.missing, claims=bound, users=Users.of(services), now=now
    )
    return CompositeResponse(status=status.to_json(), children=children)


def _volumes_and_claims(
    seen: _Seen, services: tuple[Service, ...], request: CompositeRequest, settings: Settings
) -> tuple[tuple[Object, ...], Finding]:
    cache = seen.cache
    observed_claims = core_objects("PersistentVolumeClaim", request.children)
    observed_volumes = _volumes_there(request)
    found = _claims_of_these_names(cache, request, settings) | observed_claims
    mounts = plan_mounts(cache, _namespaces(cache, request), services, found)
    volumes, claims, withheld = _made(seen, mounts, found, observed_volumes, settings.host_path)
    if read_config(settings.kserve_config, request.related).volumes_disabled:
        # Nothing is made any more. What is there goes when nobody asks for it, and not before.
        claims = [c for c in claims if _key(c) in observed_claims]
        volumes = [v for v in volumes if _key(v) in observed_volumes]
        bound = claims_not_managed(settings.kserve_config)
    else:
        bound = claims_bound(
            cache,
            ClaimView(
                claims,
                observed_claims,
                volumes,
                observed_volumes,
                taken=mounts.taken,
                withheld=withheld,
            ),
        )
    return (*without_spent(volumes, observed_volumes), *claims), bound


def _made(
    seen: _Seen,
    mounts: Mounts,
    found: dict[str, Object],
    observed_volumes: dict[str, Object],
    host_path: str,
) -> tuple[list[Object], list[Object], list[str]]:
    """Volumes and claims, and the claims that wait for access to a copy.

    A namespace cache's volumes are its groups' to make.
    """
    cache = seen.cache
    groups = {one.group.metadata.name: one for one in seen.views}
    volumes: list[Object] = []
    claims: list[Object] = []
    withheld: list[str] = []
    for mount in mounts.wanted:
        claim = found.get(mount.claim_key(cache))
        name = naming.volume_name(cache.metadata.name, mount.group, mount.namespace)
        volume = observed_volumes.get(name)
        one = groups.get(mount.group)
        if one is None or one.rejected is not None:
            # Nothing is made, and what a pod may use stays: it goes when nobody asks for it.
            claims += [as_it_is(claim)] if claim else []
            volumes += [as_it_is(volume)] if volume else []
        elif claim is None and one.withheld:
            withheld.append(mount.claim_key(cache))
        elif not one.group.deleting:
            claims.append(make_claim(cache, one.group, mount.namespace, claim))
            if not cache.metadata.namespace:
                adopted = is_bound(claim) and volume is None
                volumes.append(
                    make_volume(
                        cache, one.group, mount.namespace, host_path, claim, adopted=adopted
                    )
                )
    return volumes, claims, withheld


def finalize(request: CompositeRequest, _settings: Settings, now: datetime) -> CompositeResponse:
    """No claims and volumes, until there are none.

    A claim that a pod uses stays until the pod ends; till then the cache stays too, and with it
    the model in the plans.
    """
    seen = _see(request)
    left = _children(request)
    status = cache_status(
        seen.cache,
        seen.views,
        seen.missing,
        claims=claims_going(left),
        users=Users.told(seen.cache.status),
        now=now,
    )
    return CompositeResponse(status=status.to_json(), children=(), finalized=not left)


@dataclass(frozen=True)
class _Seen:
    cache: Cache
    views: tuple[GroupView, ...]
    missing: tuple[str, ...]


def _see(request: CompositeRequest) -> _Seen:
    cache = parse_cache(request.parent)
    names = cache.spec.group_names
    groups = objects_of(NODE_GROUP, parse_group, request.related) if names else {}
    return _Seen(
        cache=cache,
        views=tuple(view(cache, groups[n]) for n in names if n in groups),
        missing=tuple(n for n in names if n not in groups),
    )


def _claims_of_these_names(
    cache: Cache, request: CompositeRequest, settings: Settings
) -> dict[str, Object]:
    if not settings.service_kinds or not cache.spec.group_names:
        return {}
    return core_objects("PersistentVolumeClaim", request.related)


def _namespaces(cache: Cache, request: CompositeRequest) -> list[str]:
    """Namespaces that get a claim. Nothing can be made in one that is going."""
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
    """The cache's own; those of a namespace cache are its groups' children."""
    volumes = request.children.get("PersistentVolume.v1", {})
    return {name: parse_foreign(raw) for name, raw in volumes.items()}


def _key(obj: Object) -> str:
    """Metacontroller's key of a child."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def _children(request: CompositeRequest) -> list[str]:
    return [
        f"{kind.partition('.')[0]} {key}"
        for kind, objects in request.children.items()
        for key in objects
    ]
