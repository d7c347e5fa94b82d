"""The plan of a group: which models its nodes keep, in what order, and which are rejected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crds.keys import model_key
from crds.naming import claim_name
from crds.nodegroup import RejectedModel
from crds.placement import LocalModelPlacementSpec
from hooks import reasons
from hooks.messages import MESSAGE_MAX, cut
from hooks.sharing import NO_OWNERS
from hooks.volumes import node_selector_terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crds.base import Identity
    from crds.conditions import Finding
    from crds.models import PlacedModel
    from crds.nodegroup import LocalModelNodeGroup
    from crds.placement import Offer, Turn
    from hooks.observed import Cache
    from hooks.reading import Unreadable
    from hooks.sharing import Owners

# Namespace and name of a cache.
CacheName = tuple[str, str]


@dataclass(frozen=True)
class GroupPlan:
    """The caches that a group admits, most important first, and those that it rejects.

    kept: unchanged entries of the stored plan for rejected caches: the current spec of such a cache
    is unreadable or has no room. over_limit: the condition OverLimit, if admitted models exceed
    storageLimit.
    """

    admitted: tuple[Cache, ...]
    rejected: tuple[RejectedModel, ...]
    kept: tuple[PlacedModel, ...] = ()
    over_limit: Finding | None = None

    @property
    def identities(self) -> list[Identity]:
        """Identities of all models that the nodes keep."""
        admitted = [cache.identity for cache in self.admitted]
        return [*admitted, *(model.identity for model in self.kept)]

    def placement(
        self,
        group: LocalModelNodeGroup,
        turn: Turn | None = None,
        owners: Owners = NO_OWNERS,
        offers: Mapping[str, Offer] | None = None,
    ) -> LocalModelPlacementSpec:
        """The plan as a LocalModelPlacement.

        turn: the nodes that may start to download; None: all. owners: owners of the URIs. offers:
        what pods get by name, see hooks.offers; None: nothing.
        """
        return LocalModelPlacementSpec(
            node_selector_terms=node_selector_terms(group.spec),
            storage_limit=group.spec.storage_limit,
            eviction=group.spec.eviction_settings,
            turn=turn,
            models=self._models(owners),
            offers=dict(offers or {}),
        )

    def _models(self, owners: Owners) -> tuple[PlacedModel, ...]:
        models = tuple(_placed(cache, owners) for cache in self.admitted)
        if not self.kept:
            return models
        return tuple(sorted((*models, *self.kept), key=lambda model: -model.priority))


EMPTY_PLAN = GroupPlan(admitted=(), rejected=())
# The plan of an unreadable group without a stored plan.
EMPTY_PLACEMENT = LocalModelPlacementSpec(storage_limit="0")


def plan_group(group: str, caches: Iterable[Cache]) -> GroupPlan:
    """The plan of a group, from all caches of the cluster; hooks.admission applies sizes.

    A cache that is being deleted stays in the plan until it is gone: its claims are deleted first,
    and a pod may still read through them. Higher priority comes first, then the older cache.
    """
    caches = tuple(sorted(caches, key=_age))
    uris = _owners_of_uris(caches)
    claims = _owners_of_claims(
        cache for cache in caches if uris.get(cache.spec.source_model_uri, cache) is cache
    )
    admitted: list[Cache] = []
    rejected: list[RejectedModel] = []
    for cache in sorted(caches, key=_importance):
        if group not in cache.spec.group_names:
            continue
        owner = uris.get(cache.spec.source_model_uri, cache)
        if not cache.metadata.namespace and owner is not cache:
            rejected.append(_duplicate(cache, owner))
            continue
        claim = claim_name(cache.metadata.name, group)
        holder = claims.holder(claim, cache)
        if holder is not None and holder is not cache:
            rejected.append(_claim_taken(cache, claim, holder))
        else:
            admitted.append(cache)
    return GroupPlan(admitted=tuple(admitted), rejected=tuple(rejected))


def retain_unreadable(
    plan: GroupPlan,
    group: str,
    unreadable: Iterable[Unreadable],
    had: Mapping[CacheName, PlacedModel],
) -> GroupPlan:
    """The plan with the stored entries of unreadable caches.

    The spec of such a cache is unknown. So it gets no new entry, and its stored entry stays
    until the cache is gone or certainly no longer names the group. had: entries of the stored plan.
    """
    kept: list[PlacedModel] = []
    rejected: list[RejectedModel] = []
    for one in unreadable:
        groups, uri = one.asks_for()
        model = had.get((one.namespace, one.name))
        if model is not None and (groups and group not in groups):
            continue
        if model is not None and uri is not None and model.source_model_uri != uri:
            # The cache was deleted and created again.
            model = None
        if model is None and group not in groups:
            continue
        kept += [model] if model else []
        stays = "; what the nodes have of it stays" if model else ""
        rejected.append(
            RejectedModel(
                name=one.name,
                namespace=one.namespace,
                key=model.key if model else model_key(uri or ""),
                reason=reasons.INVALID_SPEC,
                message=cut(f"it cannot be read: {one.why}: correct it{stays}", MESSAGE_MAX),
            )
        )
    return replace(plan, kept=tuple(kept), rejected=(*plan.rejected, *rejected))


def _owners_of_uris(by_age: Iterable[Cache]) -> dict[str, Cache]:
    """The oldest LocalModelCache of each URI. LocalModelNamespaceCaches may share a URI."""
    owners: dict[str, Cache] = {}
    for cache in by_age:
        if not cache.metadata.namespace:
            owners.setdefault(cache.spec.source_model_uri, cache)
    return owners


@dataclass(frozen=True)
class _Claims:
    """Owners of names of claims, in all namespaces or in one.

    `<cache>-<group>` is not unique: a-b on c and a on b-c have the same name.
    """

    everywhere: dict[str, Cache]
    in_namespace: dict[tuple[str, str], Cache]

    def holder(self, claim: str, cache: Cache) -> Cache | None:
        """The cache that owns a name of a claim which a cache needs.

        A LocalModelCache comes before caches of namespaces with other names. It makes no new claim
        where a namespace has a cache of its own name.
        """
        namespace = cache.metadata.namespace
        everywhere = self.everywhere.get(claim)
        if everywhere is not None and not (
            namespace and everywhere.metadata.name == cache.metadata.name
        ):
            return everywhere
        return self.in_namespace.get((namespace, claim))


def _owners_of_claims(by_age: Iterable[Cache]) -> _Claims:
    claims = _Claims(everywhere={}, in_namespace={})
    for cache in by_age:
        for group in cache.spec.group_names:
            claim = claim_name(cache.metadata.name, group)
            if cache.metadata.namespace:
                claims.in_namespace.setdefault((cache.metadata.namespace, claim), cache)
            elif cache.spec.namespace_selector is not None:
                claims.everywhere.setdefault(claim, cache)
    return claims


def claim_is_taken(cache: Cache) -> bool:
    """Whether the claim of a namespace's cache is another owner's, as the cache's status says."""
    return bool(cache.metadata.namespace) and any(
        one.type == reasons.CLAIMS_BOUND and one.reason == reasons.CLAIM_NAME_TAKEN
        for one in cache.status.conditions
    )


def _age(cache: Cache) -> tuple[str, str, str]:
    return (cache.metadata.created, cache.metadata.namespace, cache.metadata.name)


def _importance(cache: Cache) -> tuple[int, tuple[str, str, str]]:
    return (-cache.spec.priority, _age(cache))


def _duplicate(cache: Cache, owner: Cache) -> RejectedModel:
    return reject(
        cache,
        reasons.DUPLICATE_SOURCE_MODEL_URI,
        f"LocalModelCache {owner.metadata.name!r} has the same sourceModelUri and is older: "
        "use that one and delete this one, or that one if it is not wanted",
    )


def _claim_taken(cache: Cache, claim: str, holder: Cache) -> RejectedModel:
    return reject(
        cache,
        reasons.CLAIM_NAME_TAKEN,
        f"its claim would be named {claim!r}, as that of {holder.kind} "
        f"{holder.metadata.name!r}: give this cache another name",
    )


def reject(cache: Cache, reason: str, message: str, size: int | None = None) -> RejectedModel:
    """The status of a rejected cache. size: bytes of the model's files, if known."""
    return RejectedModel(
        name=cache.metadata.name,
        namespace=cache.metadata.namespace,
        key=cache.spec.key,
        reason=reason,
        message=cut(message, MESSAGE_MAX),
        size=size,
    )


def _placed(cache: Cache, owners: Owners) -> PlacedModel:
    precedence = owners.precedence(cache.identity)
    if not precedence:
        return cache.placed
    return cache.placed.model_copy(update={"precedence": precedence})
