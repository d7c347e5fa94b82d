"""In which namespaces a cache has claims, for which of its groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localmodel.crds.naming import claim_name
from localmodel.hooks import naming
from localmodel.hooks.envelope import Object, RelatedRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from localmodel.hooks.observed import Cache
    from localmodel.hooks.services import Service


@dataclass(frozen=True, order=True)
class Mount:
    """A claim that a cache is to have: in this namespace, for this group."""

    namespace: str
    group: str

    def claim_key(self, cache: Cache) -> str:
        """Metacontroller's key of the claim."""
        return f"{self.namespace}/{claim_name(cache.metadata.name, self.group)}"


@dataclass(frozen=True)
class Mounts:
    """What a cache is to have, and what somebody else has, by the claim's key."""

    wanted: tuple[Mount, ...]
    taken: Mapping[str, str]


def claim_rule(cache: Cache) -> RelatedRule:
    """Every claim that has a name which the cache wants, whoever made it."""
    names = tuple(claim_name(cache.metadata.name, g) for g in cache.spec.group_names)
    return RelatedRule(
        api_version="v1",
        resource="persistentvolumeclaims",
        namespace=cache.metadata.namespace or None,
        names=names,
    )


def plan_mounts(
    cache: Cache,
    namespaces: Iterable[str],
    services: Sequence[Service],
    found: Mapping[str, Object],
) -> Mounts:
    """The claims of a cache.

    namespaces: those that have a claim for each group, whatever runs in them. found: claims of
    such names, the cache's own and others'. Who has a name keeps it: a pod may use that claim.
    """
    mounts = {Mount(one, group) for one in namespaces for group in cache.spec.group_names}
    for service in services:
        for group in service.groups:
            mount = Mount(service.namespace, group)
            # One that goes, perhaps with its namespace, keeps its claim and gets no new one.
            if not service.deleting or mount.claim_key(cache) in found:
                mounts.add(mount)
    taken = {
        key: holder
        for mount in sorted(mounts)
        if (key := mount.claim_key(cache)) in found
        and (holder := _other_holder(cache, mount, found[key])) is not None
    }
    wanted = (mount for mount in sorted(mounts) if mount.claim_key(cache) not in taken)
    return Mounts(tuple(wanted), taken)


def _other_holder(cache: Cache, mount: Mount, claim: Object) -> str | None:
    """Who has a claim, if it is not the cache's and cannot become so.

    KServe's own claims can: they name the cache as their owner, or nobody, and the volume's name.
    """
    metadata = claim["metadata"]
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller") and owner["uid"] != cache.metadata.uid:
            return f"{owner['kind']} {owner['name']}"
    names = (cache.metadata.name, mount.group, mount.namespace)
    volumes = {naming.own_volume_name(*names), naming.kserve_volume_name(*names)}
    return None if claim["spec"].get("volumeName") in volumes else "somebody else"
