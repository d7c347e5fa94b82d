"""The services that use a cache, by the labels and annotations that KServe's webhooks set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from crds.cache import NamespacedName
from crds.naming import claim_name
from hooks import naming
from hooks.adapters import read_adapters
from hooks.envelope import Object, RelatedRule, decoder, foreign_objects
from hooks.object_size import SERVICES_MAX
from hooks.observed import Metadata
from hooks.settings import INFERENCE_SERVICE, LLM_INFERENCE_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from msgspec import Raw

    from hooks.adapters import Adapter
    from hooks.envelope import RawObjects
    from hooks.observed import Cache, CacheStatus, ServiceName
    from hooks.settings import ServiceKind


@dataclass(frozen=True, order=True)
class Service:
    """A service that uses a cache.

    groups: groups of the cache whose claims its pods mount; also empty if it is not known whether
    the service uses the cache.
    """

    kind: str
    namespace: str
    name: str
    groups: tuple[str, ...] = ()
    deleting: bool = False


@dataclass(frozen=True)
class Users:
    """The services of a cache, as in its status; None: the hooks do not watch services."""

    inference_services: tuple[NamespacedName, ...] | None = None
    llm_inference_services: tuple[NamespacedName, ...] | None = None

    @classmethod
    def from_services(cls, services: Sequence[Service]) -> Users:
        """The services by kind, in order."""
        return cls(_listed(services, INFERENCE_SERVICE), _listed(services, LLM_INFERENCE_SERVICE))

    @classmethod
    def from_status(cls, status: CacheStatus) -> Users:
        """The services in a status."""
        return cls(_names(status.inference_services), _names(status.llm_inference_services))

    def in_namespace(self, namespace: str) -> list[str]:
        """Kind and name of the services in one namespace."""
        return [
            f"{kind} {one.name}"
            for kind, listed in (
                (INFERENCE_SERVICE, self.inference_services),
                (LLM_INFERENCE_SERVICE, self.llm_inference_services),
            )
            for one in listed or ()
            if one.namespace == namespace
        ]

    def __bool__(self) -> bool:
        return bool(self.inference_services or self.llm_inference_services)


def service_rules(cache: Cache, kinds: Iterable[ServiceKind]) -> list[RelatedRule]:
    """Rules for the services that may use a cache: services_of selects those that do."""
    return [
        RelatedRule(
            api_version=kind.api_version,
            resource=kind.resource,
            label_selector=selector,
            namespace=cache.metadata.namespace or None,
        )
        for kind in kinds
        if (selector := _selector(cache, kind)) is not None
    ]


def _selector(cache: Cache, kind: ServiceKind) -> Object | None:
    """Selector of the services of a kind that may use a cache; None: no service of the kind may."""
    name, namespace = cache.metadata.name, cache.metadata.namespace
    if kind.kind == LLM_INFERENCE_SERVICE:
        # Adapters are in an annotation, and selectors do not match annotations.
        return {}
    if len(name) > naming.LABEL_LENGTH_MAX:
        # No label can have this value, and Metacontroller refuses such a selector.
        return None
    if namespace:
        return {
            "matchLabels": {
                naming.SERVICE_CACHE_LABEL: name,
                naming.SERVICE_CACHE_NAMESPACE_LABEL: namespace,
            }
        }
    return {
        "matchLabels": {naming.SERVICE_CACHE_LABEL: name},
        "matchExpressions": [
            {"key": naming.SERVICE_CACHE_NAMESPACE_LABEL, "operator": "DoesNotExist"}
        ],
    }


def services_of(
    cache: Cache, kinds: Iterable[ServiceKind], related: RawObjects
) -> tuple[Service, ...]:
    """The services that use a cache, for their model or for LoRA adapters, in order.

    A service that is being deleted counts until it is gone: its pods may still read.
    """
    by_claim = {claim_name(cache.metadata.name, group): group for group in cache.spec.group_names}
    found = (
        _service(kind.kind, raw, cache, by_claim)
        for kind in kinds
        if _selector(cache, kind) is not None
        for raw in foreign_objects(kind.kind, kind.api_version, related).values()
    )
    return tuple(sorted(one for one in found if one is not None))


class _Metadata(Metadata, frozen=True):
    annotations: dict[str, str] | None = None


class _Labelled(Struct):
    """A service, with only the metadata that is read."""

    metadata: _Metadata


def _service(kind: str, raw: Raw, cache: Cache, by_claim: Mapping[str, str]) -> Service | None:
    """The service if it uses the cache, or else None. by_claim: the cache's groups, by claim."""
    metadata = decoder(_Labelled).decode(raw).metadata
    annotations = metadata.annotations or {}
    if naming.SERVICE_DISABLE_ANNOTATION in annotations:
        return None
    names = (cache.metadata.name, cache.metadata.namespace)
    claims = (
        [annotations.get(naming.SERVICE_CLAIM_ANNOTATION)] if _has_labels(metadata, *names) else []
    )
    adapters: Iterable[Adapter] | None = ()
    if kind == LLM_INFERENCE_SERVICE:
        adapters = read_adapters(annotations.get(naming.SERVICE_ADAPTERS_ANNOTATION))
    claims += [a.claim for a in adapters or () if a.is_of(*names, metadata.namespace)]
    # As in KServe, a service with an invalid annotation may use any cache that it can reach.
    may_use = adapters is None and cache.metadata.namespace in {"", metadata.namespace}
    if not claims and not may_use:
        return None
    # Pods mount the claim in the annotation, even if other fields have changed since.
    default = _asked_for(annotations, cache)
    groups = {by_claim.get(claim or "", default) for claim in claims}
    return Service(
        kind=kind,
        namespace=metadata.namespace,
        name=metadata.name,
        groups=tuple(sorted(one for one in groups if one is not None)),
        deleting=metadata.deletion_timestamp is not None,
    )


def _has_labels(metadata: _Metadata, name: str, namespace: str) -> bool:
    """Whether the labels say that the service's own model is that of the cache.

    Services of a LocalModelNamespaceCache have its namespace as a label too, so that they do not
    count for the LocalModelCache of the same name.
    """
    labels = metadata.labels or {}
    return (
        labels.get(naming.SERVICE_CACHE_LABEL) == name
        and labels.get(naming.SERVICE_CACHE_NAMESPACE_LABEL) == (namespace or None)
        and namespace in {"", metadata.namespace}
    )


def _asked_for(annotations: Mapping[str, str], cache: Cache) -> str | None:
    """The group that a service asks for, by default the first; None: not a group of the cache."""
    groups = cache.spec.group_names
    asked = annotations.get(naming.SERVICE_GROUP_ANNOTATION, next(iter(groups), None))
    return asked if asked in groups else None


def _names(names: Sequence[ServiceName] | None) -> tuple[NamespacedName, ...] | None:
    if names is None:
        return None
    return tuple(NamespacedName(namespace=one.namespace, name=one.name) for one in names)


def _listed(services: Sequence[Service], kind: str) -> tuple[NamespacedName, ...] | None:
    names = tuple(
        NamespacedName(namespace=one.namespace, name=one.name)
        for one in services
        if one.kind == kind
    )
    # Tenants decide how many services there are, and the status must stay small enough to store.
    return names[:SERVICES_MAX] or None
