"""The links from a copy to the pods that mount it: claims and waiting pods. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.naming import claim_name
from deploy.kube import meta
from deploy.kubectl.cells import condition_of, groups_of
from deploy.kubectl.links import Link, LinkState, from_condition, is_true
from deploy.kubectl.reasons import CLAIM_WAITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.cells import Cell
    from deploy.kubectl.details import Details

_SHOWN = 3


def links(cache: KubeObject, node: str, cell: Cell | None, details: Details) -> Iterator[Link]:
    """The links of the claims of a cache, and of the pods that wait."""
    bound = condition_of(cache, "ClaimsBound")
    if bound:
        yield _claims(bound, details)
    waiting = _pods(cache, node, details)
    if waiting:
        names = ", ".join(f"{meta.namespace(one)}/{meta.name(one)}" for one in waiting[:_SHOWN])
        more = f" and {len(waiting) - _SHOWN} more" if len(waiting) > _SHOWN else ""
        oldest = min(str(meta.metadata(one).get("creationTimestamp") or "") for one in waiting)
        there = cell is not None and cell.cached
        yield Link(
            "pods",
            LinkState.WAITING,
            f"{names}{more} wait to start" + (f" on {node}" if node else ""),
            reason="WaitingForModel",
            since=oldest,
            next="see kubectl describe pod: the model is on the node"
            if there
            else "a pod starts within a second of the publication of the model",
        )


def _claims(bound: dict[str, object], details: Details) -> Link:
    # Unknown: claims are made by hand (disableVolumeManagement).
    if is_true(bound) or bound.get("status") == "Unknown":
        return from_condition("claim", LinkState.OK, bound)
    waits = bound.get("reason") in CLAIM_WAITS
    link = from_condition("claim", LinkState.WAITING if waits else LinkState.BROKEN, bound)
    unbound = [
        f"{meta.namespace(one)}/{meta.name(one)}"
        for one in details.claims or ()
        if (one.get("status") or {}).get("phase") != "Bound"
    ]
    if not waits or not unbound:
        return link
    namespace, _, name = unbound[0].partition("/")
    return Link(
        link.name,
        link.state,
        link.words,
        reason=link.reason,
        since=link.since,
        next=f"kubectl -n {namespace} describe pvc {name}",
    )


def _pods(cache: KubeObject, node: str, details: Details) -> list[KubeObject]:
    """The pending pods that mount a claim of the cache, on this node or not yet on any."""
    claims = {claim_name(meta.name(cache), group) for group in groups_of(cache)}
    return [
        pod
        for pod in details.pods or ()
        if (pod.get("spec") or {}).get("nodeName") in {None, "", node}
        and any(
            (volume.get("persistentVolumeClaim") or {}).get("claimName") in claims
            for volume in (pod.get("spec") or {}).get("volumes") or ()
        )
    ]
