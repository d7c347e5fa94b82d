"""The services that use a cache, by the labels and annotations that KServe's webhooks set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from crds.naming import claim_name
from hooks import naming
from hooks.adapters import read_adapters
from hooks.envelope import Object, RelatedRule, decoder, foreign_objects
from hooks.settings import LLM_INFERENCE_SERVICE
from hooks.users import AnnotatedMetadata, User, asked_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from msgspec import Raw

    from hooks.adapters import Adapter
    from hooks.envelope import RawObjects
    from hooks.observed import Cache
    from hooks.settings import WatchedKind


def service_rules(cache: Cache, kinds: Iterable[WatchedKind]) -> list[RelatedRule]:
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


def _selector(cache: Cache, kind: WatchedKind) -> Object | None:
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
    cache: Cache, kinds: Iterable[WatchedKind], related: RawObjects
) -> tuple[User, ...]:
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


class _Labelled(Struct):
    """A service, with only the metadata that is read."""

    metadata: AnnotatedMetadata


def _service(kind: str, raw: Raw, cache: Cache, by_claim: Mapping[str, str]) -> User | None:
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
    default = asked_group(cache, annotations)
    groups = (by_claim.get(claim or "", default) for claim in claims)
    return User.from_metadata(kind, metadata, groups)


def _has_labels(metadata: AnnotatedMetadata, name: str, namespace: str) -> bool:
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
