"""The condition DiskShared: the kubelet's thresholds that bound the models on the disk. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.control import reasons
from agent.structs.kubelet import Origin, SharedBy
from crds.conditions import Finding
from crds.quantity import format_quantity

if TYPE_CHECKING:
    from agent.structs.kubelet import KubeletBound

DISK_SHARED = "DiskShared"

_HOW = {
    SharedBy.FOUND: "is on the kubelet's {}",
    SharedBy.ASSUMED: "is assumed to be on the kubelet's {} (else set --kubelet-file-systems)",
    SharedBy.GIVEN: "is on the kubelet's {} (--kubelet-file-systems)",
}
_SOURCES = {
    Origin.DOCUMENTED: (
        reasons.DEFAULT_THRESHOLDS,
        "the documented defaults; if the kubelet has others, set --kubelet-thresholds",
    ),
    Origin.GIVEN: (reasons.GIVEN_THRESHOLDS, "--kubelet-thresholds of the agent"),
    Origin.READ: (reasons.READ_THRESHOLDS, "read from the kubelet"),
}


def disk_shared(kubelet: KubeletBound) -> Finding:
    """The condition for a root on a file system of the kubelet.

    The message has nothing that changes while the disk fills: each change would be a write.
    """
    sharing, thresholds = kubelet.sharing, kubelet.thresholds
    where = _HOW[sharing.known].format(" and ".join(sorted(sharing.file_systems)))
    counting = ", ".join(map(str, thresholds.of(sharing.file_systems)))
    reason, source = _SOURCES[thresholds.origin]
    kept, percent = format_quantity(kubelet.kept), kubelet.kept_percent
    return Finding(
        DISK_SHARED,
        "True",
        reason,
        f"the agent's root {where}, with {counting} ({source}). The models leave {percent}% "
        f"({kept}) of this file system available: past that, downloads wait and groups evict, "
        f"as if their highPercent was at most {100 - percent}",
    )
