"""What may refuse a new claim: LimitRanges and ResourceQuotas of its namespace, and policies.

Metacontroller creates the claims and does not report to a hook why the API server refused one.
LimitRanges and ResourceQuotas are evaluated here as the API server does. The expressions of
ValidatingAdmissionPolicies are not: messages name the policies that match new claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crds.quantity import parse_quantity
from crds.volumes import NodeSelectorRequirement, NodeSelectorTerm
from hooks.envelope import Object, RelatedRule, parse_foreign
from hooks.selectors import selects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hooks.envelope import RawObjects
    from hooks.observed import Cache
    from hooks.settings import Settings

_LIMIT_RANGES = "LimitRange.v1"
_QUOTAS = "ResourceQuota.v1"
_NAMESPACES = "Namespace.v1"
_ADMISSION = "admissionregistration.k8s.io/v1"
_POLICIES = f"ValidatingAdmissionPolicy.{_ADMISSION}"
_BINDINGS = f"ValidatingAdmissionPolicyBinding.{_ADMISSION}"

_STORAGE = "requests.storage"
_CLAIMS = "persistentvolumeclaims"
_NAMESPACE_NAME = "kubernetes.io/metadata.name"


def limit_rules(cache: Cache, settings: Settings) -> list[RelatedRule]:
    """Rules for the objects that may refuse a cache's claims; none if it can have no claim.

    Where claims follow services or workloads, any namespace may get a claim.
    """
    namespace, selector = cache.metadata.namespace, cache.spec.namespace_selector
    if not settings.namespace_limits or not (
        namespace or settings.claims_follow_users or selector is not None
    ):
        return []
    where: dict[str, Any] = {"label_selector": {}}
    if namespace:
        where["namespace"] = namespace
    elif not settings.claims_follow_users:
        where["namespace_selector"] = selector
    return [
        RelatedRule(api_version="v1", resource="limitranges", **where),
        RelatedRule(api_version="v1", resource="resourcequotas", **where),
        RelatedRule(api_version=_ADMISSION, resource="validatingadmissionpolicies"),
        RelatedRule(api_version=_ADMISSION, resource="validatingadmissionpolicybindings"),
    ]


@dataclass(frozen=True)
class ClaimLimits:
    """The limits in a request, parsed only when a claim is to be made.

    A kind that is missing in the request was not asked for, and counts as empty.
    """

    related: RawObjects

    def in_namespace(self, namespace: str) -> NamespaceLimits:
        """The limits of one namespace."""
        return NamespaceLimits(
            tuple(self._limit_ranges.get(namespace, ())), tuple(self._quotas.get(namespace, ()))
        )

    def policies_on_claims(self, namespaces: Iterable[str]) -> list[str]:
        """Names of the enforced policies that match new claims in one of these namespaces.

        Whether a policy refuses a claim depends on its expressions, which are not evaluated here.
        """
        policies = {
            one["metadata"]["name"]: one["spec"].get("matchConstraints") or {}
            for one in self._all(_POLICIES)
        }
        labels = {
            one["metadata"]["name"]: one["metadata"].get("labels") or {}
            for one in self._all(_NAMESPACES)
        }
        spaces = sorted(namespaces)
        found = set()
        for binding in self._all(_BINDINGS):
            spec = binding["spec"]
            constraints = policies.get(spec["policyName"])
            if constraints is None or "Deny" not in (spec.get("validationActions") or ()):
                continue
            matches = (constraints, spec.get("matchResources") or {})
            if any(all(_may_match(m, n, labels.get(n)) for m in matches) for n in spaces):
                found.add(spec["policyName"])
        return sorted(found)

    @cached_property
    def _limit_ranges(self) -> dict[str, list[Object]]:
        return self._by_namespace(_LIMIT_RANGES)

    @cached_property
    def _quotas(self) -> dict[str, list[Object]]:
        return self._by_namespace(_QUOTAS)

    def _by_namespace(self, kind: str) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for one in self._all(kind):
            found.setdefault(one["metadata"]["namespace"], []).append(one)
        return found

    def _all(self, kind: str) -> list[Object]:
        return [parse_foreign(raw) for _, raw in sorted(self.related.get(kind, {}).items())]


@dataclass(frozen=True)
class NamespaceLimits:
    """The LimitRanges and ResourceQuotas of one namespace."""

    limit_ranges: Sequence[Object] = ()
    quotas: Sequence[Object] = ()

    def at_least(self, request: str) -> str:
        """The request, or the minimum of the namespace's LimitRanges if that is larger."""
        least = [request, *(str(bound) for _, bound in self._bounds("min"))]
        return max(least, key=lambda text: _amount(text) or 0)

    def refusals(self, spec: Object) -> list[str]:
        """Why a new claim with this spec would be refused; empty: no known reason."""
        request = spec["resources"]["requests"]["storage"]
        return [*self._out_of_bounds(request), *self._over_quota(spec, request)]

    def _bounds(self, which: str) -> Iterator[tuple[str, Any]]:
        for one in self.limit_ranges:
            for limit in one["spec"].get("limits") or ():
                bound = (limit.get(which) or {}).get("storage")
                if limit.get("type") == "PersistentVolumeClaim" and _amount(bound) is not None:
                    yield one["metadata"]["name"], bound

    def _out_of_bounds(self, request: Any) -> Iterator[str]:
        asked = _amount(request)
        for which, says, sign in (("min", "at least", 1), ("max", "at most", -1)):
            for name, bound in self._bounds(which):
                edge = _amount(bound)
                if asked is not None and edge is not None and sign * asked < sign * edge:
                    yield f"LimitRange {name} takes {says} {bound}, and it asks for {request}"

    def _over_quota(self, spec: Object, request: Any) -> Iterator[str]:
        takes = _usage(spec, request)
        for quota in self.quotas:
            # Scopes select pods, or claims with a VolumeAttributesClass.
            if quota["spec"].get("scopes") or quota["spec"].get("scopeSelector"):
                continue
            status = quota.get("status") or {}
            hard, used = status.get("hard") or {}, status.get("used") or {}
            for resource, amount in takes.items():
                most, has = _amount(hard.get(resource)), _amount(used.get(resource, 0))
                if most is not None and has is not None and has + (_amount(amount) or 0) > most:
                    yield (
                        f"ResourceQuota {quota['metadata']['name']} has no room: it asks for "
                        f"{amount} {resource}, and {used.get(resource, 0)} of {hard[resource]} "
                        "are used"
                    )


def _usage(spec: Object, request: Any) -> dict[str, Any]:
    """Usage of a claim that a quota counts, by resource."""
    takes = {_STORAGE: request, _CLAIMS: 1, f"count/{_CLAIMS}": 1}
    if spec.get("storageClassName"):
        of_class = f"{spec['storageClassName']}.storageclass.storage.k8s.io"
        takes |= {f"{of_class}/{_STORAGE}": request, f"{of_class}/{_CLAIMS}": 1}
    return takes


def _amount(quantity: Any) -> int | None:
    """The quantity as a number; None if it is not one that can be computed."""
    try:
        return parse_quantity(str(quantity))
    except ValueError:
        return None


def _may_match(match: Object, namespace: str, labels: Mapping[str, str] | None) -> bool:
    """Whether a policy or its binding may match new claims in a namespace.

    labels: the namespace's; None if they are not known.
    """
    rules = match.get("resourceRules")
    return (
        (not rules or any(map(_covers_claims, rules)))
        and not any(map(_covers_claims, match.get("excludeResourceRules") or ()))
        and _may_select(match.get("namespaceSelector") or {}, namespace, labels)
    )


def _covers_claims(rule: Object) -> bool:
    wanted = (
        ("apiGroups", {"", "*"}),
        ("resources", {_CLAIMS, "*", "*/*"}),
        ("operations", {"CREATE", "*"}),
    )
    return not rule.get("resourceNames") and all(
        not values.isdisjoint(rule.get(field) or ()) for field, values in wanted
    )


def _may_select(selector: Object, namespace: str, labels: Mapping[str, str] | None) -> bool:
    known = {_NAMESPACE_NAME: namespace} | dict(labels or {})
    requirements = [
        *(
            NodeSelectorRequirement(key=key, operator="In", values=(value,))
            for key, value in (selector.get("matchLabels") or {}).items()
        ),
        *(
            NodeSelectorRequirement.model_validate(one)
            for one in selector.get("matchExpressions") or ()
        ),
    ]
    counting = tuple(one for one in requirements if labels is not None or one.key in known)
    return not counting or selects(
        (NodeSelectorTerm(match_expressions=counting),), namespace, known
    )
