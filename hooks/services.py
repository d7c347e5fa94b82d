"""The services that use a cache, as KServe's own webhooks have labelled them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.cache import NamespacedName
from hooks import naming
from hooks.envelope import Object, RelatedRule, foreign_objects
from hooks.room import SERVICES_MAX
from hooks.settings import INFERENCE_SERVICE, LLM_INFERENCE_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hooks.envelope import RawObjects
    from hooks.observed import Cache, CacheStatus, ServiceName
    from hooks.settings import ServiceKind


@dataclass(frozen=True, order=True)
class Service:
    """A service that uses a cache.

    group: the group whose claim its pods mount; None where it names one that the cache is not on.
    """

    kind: str
    namespace: str
    name: str
    group: str | None = None
    deleting: bool = False


@dataclass(frozen=True)
class Users:
    """The services of a cache, as its status lists them; None: nobody looks for them."""

    inference_services: tuple[NamespacedName, ...] | None = None
    llm_inference_services: tuple[NamespacedName, ...] | None = None

    @classmethod
    def of(cls, services: Sequence[Service]) -> Users:
        """The lists of some services, each in order."""
        return cls(_listed(services, INFERENCE_SERVICE), _listed(services, LLM_INFERENCE_SERVICE))

    @classmethod
    def told(cls, status: CacheStatus) -> Users:
        """What a status lists."""
        return cls(_names(status.inference_services), _names(status.llm_inference_services))

    def in_namespace(self, namespace: str) -> list[str]:
        """Kind and name of those in one namespace."""
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
    """The services of a cache and no others.

    Those of a namespace cache carry its namespace as a label too, so they do not count for the
    LocalModelCache of the same name.
    """
    name, namespace = cache.metadata.name, cache.metadata.namespace
    if len(name) > naming.LABEL_LENGTH_MAX:
        # No label can hold it, and Metacontroller refuses a selector that asks for it.
        return []
    if namespace:
        selector: Object = {
            "matchLabels": {
                naming.SERVICE_CACHE_LABEL: name,
                naming.SERVICE_CACHE_NAMESPACE_LABEL: namespace,
            }
        }
    else:
        selector = {
            "matchLabels": {naming.SERVICE_CACHE_LABEL: name},
            "matchExpressions": [
                {"key": naming.SERVICE_CACHE_NAMESPACE_LABEL, "operator": "DoesNotExist"}
            ],
        }
    return [
        RelatedRule(
            api_version=kind.api_version,
            resource=kind.resource,
            label_selector=selector,
            namespace=namespace or None,
        )
        for kind in kinds
    ]


def services_of(
    cache: Cache, kinds: Iterable[ServiceKind], related: RawObjects
) -> tuple[Service, ...]:
    """The services that use a cache, in order.

    One that is being deleted is among them until it is gone: its pods may still read.
    """
    if len(cache.metadata.name) > naming.LABEL_LENGTH_MAX:
        return ()
    return tuple(
        sorted(
            _service(kind.kind, obj, cache.spec.group_names)
            for kind in kinds
            for obj in foreign_objects(kind.kind, kind.api_version, related).values()
            if naming.SERVICE_DISABLE_ANNOTATION not in _annotations(obj)
        )
    )


def _service(kind: str, obj: Object, groups: Sequence[str]) -> Service:
    metadata = obj["metadata"]
    # Without the annotation, the first group.
    asked = _annotations(obj).get(naming.SERVICE_GROUP_ANNOTATION, next(iter(groups), None))
    return Service(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        group=asked if asked in groups else None,
        deleting="deletionTimestamp" in metadata,
    )


def _annotations(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def _names(told: Sequence[ServiceName] | None) -> tuple[NamespacedName, ...] | None:
    if told is None:
        return None
    return tuple(NamespacedName(namespace=one.namespace, name=one.name) for one in told)


def _listed(services: Sequence[Service], kind: str) -> tuple[NamespacedName, ...] | None:
    names = tuple(
        NamespacedName(namespace=one.namespace, name=one.name)
        for one in services
        if one.kind == kind
    )
    # Whoever may label services decides how many there are, and the status must be storable.
    return names[:SERVICES_MAX] or None
