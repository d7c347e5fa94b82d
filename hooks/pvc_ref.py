"""The answer for a cache with pvcRef, which KServe's controller imports into a claim.

KServe's controller writes the status of such a cache, and the answer repeats it unchanged.
localmodel adds the condition Admitted, and Ready until that controller has written it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from crds.conditions import Finding, conditions
from hooks import reasons
from hooks.messages import cut
from hooks.reading import salvage
from hooks.unreadable import conditions_of, generation_of, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from msgspec import Raw

    from hooks.envelope import Object

# Fields and conditions of caches with groups, which are dropped: the cache may have had groups
# before.
_OF_COPIES = ("nodeStatus", "copies", "key", "size", "hash", "progress", "pods", "workloads")
_ABOUT_COPIES = (reasons.CLAIMS_BOUND, reasons.SIZE_AS_DECLARED)
_NAME_MAX = 253
# Reasons of Ready that localmodel writes for a cache without copies.
_OURS = (reasons.IMPORTED_BY_KSERVE, reasons.INVALID_SPEC)


class _Metadata(Struct, frozen=True):
    namespace: str = ""


class _Spec(Struct, rename="camel", frozen=True):
    pvc_ref: Any = None


class _Parent(Struct):
    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()


def shared_claim(parent: Raw) -> str | None:
    """Name of the claim in pvcRef of a LocalModelNamespaceCache; None if it has no pvcRef.

    Other fields of the cache may be unreadable: KServe's controller validates such a cache.
    """
    seen = salvage(_Parent, parent) or _Parent()
    named = seen.spec.pvc_ref
    return cut(str(named), _NAME_MAX) if seen.metadata.namespace and named else None


def imported_status(parent: Raw, claim: str, now: datetime) -> Object:
    """The stored status with localmodel's conditions."""
    status = status_of(parent)
    # Metacontroller sets it.
    status.pop("observedGeneration", None)
    listed = status.pop("conditions", None)
    stored = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if "nodeStatus" in status:
        status = {name: value for name, value in status.items() if name not in _OF_COPIES}
        stored = [one for one in stored if one.get("type") == reasons.ADMITTED]
    findings = [_finding(reasons.ADMITTED, claim)]
    if not _has_ready_of_kserve(stored):
        findings.append(_finding(reasons.READY, claim))
    ours = {
        one.type: one.to_json()
        for one in conditions(
            findings, observed=conditions_of(parent), generation=generation_of(parent), now=now
        )
    }
    return status | {"conditions": [*_merged(stored, ours)]}


def _has_ready_of_kserve(stored: Iterable[Object]) -> bool:
    """Whether KServe's controller has written Ready."""
    return any(
        one.get("type") == reasons.READY and one.get("reason") not in _OURS for one in stored
    )


def _merged(stored: Iterable[Object], ours: dict[str, Object]) -> Iterable[Object]:
    """The conditions in their stored order: another order would be a write."""
    left = dict(ours)
    for one in stored:
        kind = one.get("type")
        if kind not in _ABOUT_COPIES:
            yield left.pop(kind, one) if isinstance(kind, str) else one
    yield from left.values()


def _finding(condition: str, claim: str) -> Finding:
    return Finding(
        condition,
        "False",
        reasons.IMPORTED_BY_KSERVE,
        "it has pvcRef: localmodel makes no copy of it and no claim; KServe's own controller "
        f"imports the model into the claim {claim!r}, and says in Ready how far that is. Where "
        "that controller does not run, nobody does: make another cache with nodeGroups, or copy "
        f"the model into the claim and let services use pvc://{claim}/<path>",
    )
