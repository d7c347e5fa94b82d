"""The condition ClaimsBound of a cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crds.conditions import Finding
from hooks import reasons
from hooks.messages import some
from hooks.volumes import is_bound, is_going, is_outdated, shows_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hooks.claim_limits import ClaimLimits
    from hooks.envelope import Object
    from hooks.observed import Cache
    from hooks.settings import ConfigMapName

# Most reasons that a message gives for one refused claim.
_REASONS_MOST = 3
# Most claims that a message names.
_NAMED_MOST = 3


@dataclass(frozen=True)
class ClaimView:
    """Desired and observed claims and volumes, by Metacontroller's keys.

    taken: claims that belong to another owner, and that owner. withheld: claims that wait until the
    cache may use a copy that caches of other namespaces have too. waiting: claims that wait for
    another reason, and the reason. limits: what may refuse a claim.
    """

    claims: Sequence[Object]
    observed_claims: Mapping[str, Object]
    volumes: Sequence[Object]
    observed_volumes: Mapping[str, Object]
    taken: Mapping[str, str]
    limits: ClaimLimits
    withheld: Sequence[str] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> Mapping[str, Object]:
        """Desired claims that do not exist, by namespace/name."""
        named = zip(self.names, self.claims, strict=True)
        return {name: claim for name, claim in named if name not in self.observed_claims}

    @property
    def names(self) -> list[str]:
        """Desired claims, as namespace/name."""
        return [f"{c['metadata']['namespace']}/{c['metadata']['name']}" for c in self.claims]

    @property
    def outdated(self) -> list[str]:
        """Claims whose volume was made for other nodes or another path, as namespace/name."""
        return self._claims_whose_volume(is_outdated)

    @property
    def showing_root(self) -> list[str]:
        """Claims whose volume was made when volumes showed all models, as namespace/name."""
        return self._claims_whose_volume(shows_root)

    def _claims_whose_volume(self, differs: Callable[[Object, Object], bool]) -> list[str]:
        refs = [
            volume["spec"]["claimRef"]
            for volume in self.volumes
            if (found := self.observed_volumes.get(volume["metadata"]["name"]))
            and differs(volume, found)
        ]
        return [f"{ref['namespace']}/{ref['name']}" for ref in refs]


def claims_bound(cache: Cache, seen: ClaimView) -> Finding:
    """Compute the condition."""
    names = seen.names
    if not (names or seen.taken or seen.withheld or seen.waiting):
        return _without_claims(cache)
    obstacle = _outdated(seen) or _taken(seen) or _withheld(seen) or _waiting(seen)
    if obstacle is not None:
        return obstacle
    if seen.missing:
        return _missing(cache, seen)
    going = [name for name in names if is_going(seen.observed_claims[name])]
    if going:
        return _not_bound(
            reasons.CLAIM_PENDING,
            f"being deleted, and made anew once no pod uses it: {some(going)}: no new pod can "
            "start with it before; end the pods that use it",
        )
    pending = [name for name in names if not is_bound(seen.observed_claims[name])]
    if pending:
        return _not_bound(reasons.CLAIM_PENDING, _why_pending(pending, seen))
    message = f"{some(names)} can be mounted" + _showing_root(seen)
    return Finding(reasons.CLAIMS_BOUND, "True", reasons.ALL_BOUND, message)


def _showing_root(seen: ClaimView) -> str:
    if not seen.showing_root:
        return ""
    return (
        f"; pods with {some(seen.showing_root)} can read all models of their node, since the "
        "volume is older than LOCALMODEL_VOLUMES=model: delete the claim once no pod uses it, and "
        "both are made anew for this model alone"
    )


def _outdated(seen: ClaimView) -> Finding | None:
    if not seen.outdated:
        return None
    return _not_bound(
        reasons.VOLUME_OUTDATED,
        f"the volume of {some(seen.outdated)} was made before its LocalModelNodeGroup or "
        "LOCALMODEL_VOLUMES changed, and leads to the former nodes or path: delete the claim once "
        "no pod uses it, and both are made anew",
    )


def _taken(seen: ClaimView) -> Finding | None:
    if not seen.taken:
        return None
    claim, holder = min(seen.taken.items())
    others = f" ({len(seen.taken) - 1} more likewise)" if len(seen.taken) > 1 else ""
    return _not_bound(
        reasons.CLAIM_NAME_TAKEN,
        f"the claim {claim}, which a service, a workload or the cache's own namespace "
        f"needs, belongs to {holder}{others}: pods mount that one, whatever it leads to; give this "
        "cache, or what has the claim, another name",
    )


def _withheld(seen: ClaimView) -> Finding | None:
    if not seen.withheld:
        return None
    return _not_bound(
        reasons.AWAITING_ACCESS,
        f"not made yet: {some(seen.withheld)}: another cache has the same sourceModelUri, and a "
        "claim is made once a node has the model for this one, for which the source must accept "
        "its credentials: see Ready",
    )


def _waiting(seen: ClaimView) -> Finding | None:
    if not seen.waiting:
        return None
    why = next(iter(seen.waiting.values()))
    return _not_bound(reasons.CLAIM_PENDING, f"not made yet: {some([*seen.waiting])}: {why}")


def _missing(cache: Cache, seen: ClaimView) -> Finding:
    """The condition if claims are missing: those that limits refuse, and the others."""
    refused = {
        name: "; ".join(why[:_REASONS_MOST])
        for name, claim in seen.missing.items()
        if (why := seen.limits.in_namespace(claim["metadata"]["namespace"]).refusals(claim["spec"]))
    }
    others = {name: claim for name, claim in seen.missing.items() if name not in refused}
    why_others = _why_missing(cache, others, seen.limits) if others else ""
    if not refused:
        return _not_bound(reasons.CLAIM_PENDING, why_others)
    listed = some([f"{name} ({why})" for name, why in refused.items()], _NAMED_MOST)
    return _not_bound(
        reasons.CLAIM_REFUSED,
        f"not made: {listed}: raise the limit, or lower spec.modelSize ({cache.spec.model_size}) "
        "if the model is smaller" + (f"; {why_others}" if others else ""),
    )


def _why_missing(cache: Cache, missing: Mapping[str, Object], limits: ClaimLimits) -> str:
    # Only for the claims that the message names: a cluster has many namespaces and policies.
    named = [*missing.values()][:_NAMED_MOST]
    policies = limits.policies_on_claims({one["metadata"]["namespace"] for one in named})
    look = f" (these look at new claims: {some(policies)})" if policies else ""
    namespace = cache.metadata.namespace
    of = f" -n {namespace}" if namespace else ""
    return (
        f"not made yet: {some([*missing], _NAMED_MOST)}; if it stays so, a "
        f"ValidatingAdmissionPolicy{look} or a webhook refuses it, or a claim of that name that is "
        f"not of this cache is in the way: kubectl describe {cache.kind.lower()} "
        f"{cache.metadata.name}{of} shows in its events what the API server said"
    )


def claims_not_managed(config: ConfigMapName | None) -> Finding:
    """The condition if KServe's configuration disables the management of volumes and claims."""
    return Finding(
        reasons.CLAIMS_BOUND,
        "Unknown",
        reasons.VOLUMES_NOT_MANAGED,
        f"disableVolumeManagement is set in ConfigMap {config}: no volume and no claim is made",
    )


def _not_bound(reason: str, message: str) -> Finding:
    return Finding(reasons.CLAIMS_BOUND, "False", reason, message)


def _why_pending(pending: Sequence[str], seen: ClaimView) -> str:
    names = [volume["metadata"]["name"] for volume in seen.volumes]
    missing = [name for name in names if name not in seen.observed_volumes]
    if missing:
        return (
            f"not bound yet: {some(pending)}; not made yet: PersistentVolume {some(missing)}: if "
            "it stays so, one of that name that is not of this cache is in the way: rename this "
            "cache, or delete that one"
        )
    return f"not bound yet: {some(pending)}; if it stays so, kubectl describe pvc tells why"


def claims_going(left: Sequence[str]) -> Finding:
    """The condition while the cache is being deleted. left: kind and name of existing children."""
    message = (
        f"waiting for claims and volumes to go: {some(sorted(left))}" if left else "claims are gone"
    )
    return Finding(reasons.CLAIMS_BOUND, "False", reasons.DELETING, message)


def _without_claims(cache: Cache) -> Finding:
    if cache.spec.namespace_selector is not None:
        return Finding(
            reasons.CLAIMS_BOUND,
            "False",
            reasons.NO_NAMESPACES,
            "spec.namespaceSelector selects no namespace: label one so, or change the selector",
        )
    return Finding(
        reasons.CLAIMS_BOUND, "True", reasons.NO_CLAIMS, "no namespace is to have a claim"
    )
