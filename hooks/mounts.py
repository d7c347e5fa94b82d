"""The claims that a cache is to have: in which namespaces, for which of its groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.naming import claim_name
from hooks import naming
from hooks.envelope import Object, RelatedRule
from hooks.volumes import is_bound, is_going

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from hooks.observed import Cache
    from hooks.users import User


@dataclass(frozen=True, order=True)
class Mount:
    """A claim that a cache is to have, by its namespace and group."""

    namespace: str
    group: str

    def claim_key(self, cache: Cache) -> str:
        """Metacontroller's key of the claim."""
        return f"{self.namespace}/{claim_name(cache.metadata.name, self.group)}"


@dataclass(frozen=True)
class Mounts:
    """wanted: the claims of a cache. taken: owners of the claims that others have, by key."""

    wanted: tuple[Mount, ...]
    taken: Mapping[str, str]


def claim_rule(cache: Cache) -> RelatedRule:
    """The rule for all claims with a name that the cache wants, whoever created them."""
    names = tuple(claim_name(cache.metadata.name, g) for g in cache.spec.group_names)
    return RelatedRule(
        api_version="v1",
        resource="persistentvolumeclaims",
        namespace=cache.metadata.namespace or None,
        names=names,
    )


def volume_rule(cache: Cache) -> RelatedRule:
    """The rule for the volumes of a namespace's cache, which are children of its groups."""
    names = (
        name(cache.metadata.name, group, cache.metadata.namespace)
        for group in cache.spec.group_names
        for name in (naming.kserve_volume_name, naming.own_volume_name)
    )
    return RelatedRule(api_version="v1", resource="persistentvolumes", names=tuple(names))


def plan_mounts(
    cache: Cache,
    namespaces: Iterable[str],
    users: Sequence[User],
    found: Mapping[str, Object],
    *,
    kept: Iterable[Mount] = (),
    hidden: AbstractSet[str] = frozenset(),
) -> Mounts:
    """The claims of a cache.

    namespaces: those with a claim for each group, with or without users. found: existing claims
    with such names, of any owner. An owner keeps its claim, since a pod may use it. kept: claims
    that stay whoever asks for them. hidden: namespaces whose own cache has the name: there, a
    namespace alone keeps its claim and gets no new one.
    """
    mounts = {
        mount
        for namespace in namespaces
        for mount in (Mount(namespace, group) for group in cache.spec.group_names)
        if namespace not in hidden or _has(cache, mount, found)
    }
    mounts.update(kept)
    for user in users:
        for group in user.groups:
            mount = Mount(user.namespace, group)
            # A user that is being deleted keeps its claim and gets no new one: its namespace may
            # be deleted too.
            if not user.deleting or mount.claim_key(cache) in found:
                mounts.add(mount)
    taken = {
        key: holder
        for mount in sorted(mounts)
        if (key := mount.claim_key(cache)) in found
        and (holder := _other_holder(cache, mount, found[key])) is not None
    }
    wanted = (mount for mount in sorted(mounts) if mount.claim_key(cache) not in taken)
    return Mounts(tuple(wanted), taken)


def mounts_in_use(
    cache: Cache,
    own: Mapping[str, Object],
    groups: Iterable[str],
    hidden: AbstractSet[str],
) -> list[Mount]:
    """The bound claims of a cache that pods may use, whoever asked for them.

    While a claim is being deleted, no new pod can use it, and it is there until its last pod has
    ended: a workload that returns to a former model would wait for that. own: the cache's claims,
    by Metacontroller's keys. groups: those on whose nodes pods use the model. Pods are counted for
    each group and not for each namespace, so a claim may stay for the pods of another namespace.
    hidden: namespaces where pods get the claim of the namespace's own cache.
    """
    by_claim = {claim_name(cache.metadata.name, group): group for group in groups}
    return [
        Mount(claim["metadata"]["namespace"], by_claim[name])
        for claim in own.values()
        if (name := claim["metadata"]["name"]) in by_claim
        and claim["metadata"]["namespace"] not in hidden
        and is_bound(claim)
        and not is_going(claim)
    ]


def _has(cache: Cache, mount: Mount, found: Mapping[str, Object]) -> bool:
    claim = found.get(mount.claim_key(cache))
    return claim is not None and not is_going(claim) and _other_holder(cache, mount, claim) is None


def _other_holder(cache: Cache, mount: Mount, claim: Object) -> str | None:
    """The owner of a claim; None if the cache owns it or can adopt it.

    It can adopt claims of KServe: they have the cache or nobody as owner, and name the volume.
    """
    metadata = claim["metadata"]
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller") and owner["uid"] != cache.metadata.uid:
            return f"{owner['kind']} {owner['name']}"
    names = (cache.metadata.name, mount.group, mount.namespace)
    volumes = {naming.own_volume_name(*names), naming.kserve_volume_name(*names)}
    return None if claim["spec"].get("volumeName") in volumes else "somebody else"
