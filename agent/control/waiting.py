"""Why downloads wait for room or for a place: the reasons and messages of the status. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.control import reasons
from crds.quantity import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.capacity.ledger import Shortage
    from agent.structs.kubelet import KubeletBound

_NOT_KNOWN = (
    "it does not fit beside what is here, and nothing goes for it while it is not known what the "
    "node's pods mount: see the agent's log"
)
_NO_PLACE = (
    "other models are downloaded to this node first, of which it takes {places} at a time "
    "(--max-downloads): it begins by itself when one of them ends, or takes long"
)


@dataclass(frozen=True)
class Waiting:
    """Why a download waits for room or for a place: in one word, and in a message."""

    reason: str
    message: str


def waiting_of(
    shortages: Mapping[str, Shortage], *, pods_known: bool, kubelet: KubeletBound | None
) -> dict[str, Waiting]:
    """Why each download waits that does not fit, by key. `kubelet` is the bound of the disk."""
    if not pods_known:
        return dict.fromkeys(shortages, Waiting(reasons.PODS_UNKNOWN, _NOT_KNOWN))
    return {key: _waiting(shortage, kubelet) for key, shortage in shortages.items()}


def _waiting(shortage: Shortage, kubelet: KubeletBound | None) -> Waiting:
    if shortage.account.kubelet and kubelet is not None:
        return Waiting(reasons.KUBELET_THRESHOLD, _near_kubelet(shortage, kubelet))
    return Waiting(reasons.CAPACITY_FULL, _message(shortage))


def in_queue(queued: Iterable[str], places: int) -> dict[str, Waiting]:
    """Why each download waits that has no place yet, by key."""
    return dict.fromkeys(queued, Waiting(reasons.AWAITING_PLACE, _NO_PLACE.format(places=places)))


def _near_kubelet(shortage: Shortage, kubelet: KubeletBound) -> str:
    """Why a download waits that the kubelet would answer by taking images or pods away."""
    needed, limit = format_quantity(shortage.needed), format_quantity(shortage.account.limit)
    if shortage.needed > shortage.account.limit:
        what = f"which is more than all of the {limit} that may be taken of the node's disk"
        todo = "Use nodes with larger disks, or mount a disk of their own for the models"
    else:
        what = f"and {format_quantity(shortage.free)} may be taken of the node's disk"
        todo = (
            "Mount a disk of their own for the models, free space on the node, delete caches, or "
            "lower the storageLimit of the groups"
        )
    return (
        f"it needs {needed}, {what}: the kubelet uses this disk too, with {kubelet.first}, so the "
        f"agent leaves {kubelet.kept_percent}% ({format_quantity(kubelet.kept)}) of it available. "
        f"{todo}; if the kubelet has other thresholds, correct --kubelet-thresholds of the agents"
    )


def _message(shortage: Shortage) -> str:
    """Why a download waits for room, and what to do."""
    account = shortage.account
    needed, free = format_quantity(shortage.needed), format_quantity(shortage.free)
    limit = format_quantity(account.limit)
    where = (
        f"of the {limit} that may be taken of the node's disk"
        if account.disk
        else f"of the storageLimit of {limit} of the group {account.group}"
    )
    if shortage.needed > account.limit:
        what = f"it needs {needed}, which is more than all {where}"
    else:
        what = f"it needs {needed}, and {free} {where} are free; nothing more can go for it now"
    todo = (
        "free space on the node, or use nodes with larger disks"
        if account.disk
        else "raise the storageLimit"
    )
    return (
        f"{what}: {todo}, or delete caches, unpin them, or end the pods and services that use them"
    )
