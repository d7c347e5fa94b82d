"""Finds out which of the kubelet's file systems the agent's root is on.

The agent's pod does not see the kubelet's directories, but it has mounts of files below them. In
/proc/thread-self/mountinfo their roots are the paths of pods:

- `/etc/hosts`, `/dev/termination-log` and `emptyDir` volumes are `<root-dir>/pods/<uid>/...` of the
  kubelet. So the device of such a mount is that of nodefs.
- `/` is the container's overlay, whose upper directory the runtime keeps beside the images. The
  kernel answers statvfs for an overlay with the figures of the upper directory's file system. So
  if these figures are those of the root's file system, the root is on imagefs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.disk.identity import mount_id
from agent.structs.kubelet import FileSystem, SharedBy, Sharing, bound_of
from agent.structs.log import log

if TYPE_CHECKING:
    from agent.structs.kubelet import KubeletBound, Thresholds

# Below the kubelet's --root-dir, as it is by default, for an agent that does not run in a pod.
KUBELET_PODS = Path("/var/lib/kubelet/pods")
_MOUNTS = Path("/proc/thread-self/mountinfo")
_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_OF_POD = re.compile(
    r"/pods/[0-9a-f]{8}[-0-9a-f]{24,28}"
    r"/(etc-hosts$|containers/|volumes/kubernetes\.io~empty-dir/)"
)
# A file system that is written to meanwhile has other figures each time.
_TRIES = 10

BOTH = frozenset(FileSystem)


@dataclass(frozen=True)
class Mount:
    """A mount: its id, the device of its file system, the path in that file system, its type."""

    id: int
    device: str
    root: str
    kind: str


class KubeletDisk:
    """The kubelet's thresholds, and which of its file systems the root is on.

    `given` are the file systems that a person named; None: the agent finds them out, once. The
    answer stays the same while the agent runs: it begins anew on a disk that is mounted later.
    """

    def __init__(self, thresholds: Thresholds, given: frozenset[FileSystem] | None = None) -> None:
        self.thresholds = thresholds
        self._sharing = None if given is None else Sharing(given, SharedBy.GIVEN)

    def sharing_of(self, root: Path) -> Sharing:
        """The kubelet's file systems that the root is on. Raises OSError."""
        if self._sharing is None:
            self._sharing = sharing_of(root)
            if self._sharing.file_systems:
                log.info(
                    "The kubelet uses the disk too",
                    root=str(root),
                    shared=sorted(self._sharing.file_systems),
                    known=self._sharing.known.value,
                    thresholds=str(self.thresholds),
                )
        return self._sharing

    def bound_of(
        self, root: Path, *, capacity: int, available: int, used: int
    ) -> KubeletBound | None:
        """What the thresholds mean for the root's disk: see agent.structs.kubelet.bound_of.

        Raises OSError.
        """
        sharing = self.sharing_of(root)
        return bound_of(self.thresholds, sharing, capacity=capacity, available=available, used=used)


def sharing_of(root: Path) -> Sharing:
    """The kubelet's file systems that a path is on, as far as mounts tell. Raises OSError.

    What cannot be found out is assumed to be shared. Outside of pods, without the kubelet's
    directory, no kubelet uses the disk.
    """
    mounts = {mount.id: mount for mount in _read_mounts()}
    device = _device(root, mounts)
    theirs = {mount.device for mount in mounts.values() if _OF_POD.search(mount.root)}
    if not theirs:
        if _IN_POD.exists():
            return Sharing(BOTH, SharedBy.ASSUMED)
        if not KUBELET_PODS.is_dir():
            return Sharing()
        theirs = {_device(KUBELET_PODS, mounts)}
    shared = {FileSystem.NODEFS} if device in theirs else set()
    overlay = mounts.get(mount_id(Path("/")) or 0)
    if overlay is None or overlay.kind != "overlay":
        # Without an overlay, images are assumed to be where the kubelet's directory is.
        return Sharing(BOTH if shared else frozenset(), SharedBy.ASSUMED)
    if _has_figures_of(Path("/"), root):
        shared.add(FileSystem.IMAGEFS)
    return Sharing(frozenset(shared))


def _read_mounts() -> list[Mount]:
    """The mounts that this process sees; none if the kernel does not report them."""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split(" ")
        found.append(Mount(int(fields[0]), fields[2], fields[3], fields[fields.index("-", 6) + 1]))
    return found


def _device(path: Path, mounts: dict[int, Mount]) -> str:
    """The device of a path's file system.

    It is that of the mount and not of the path: each subvolume of a btrfs has a number of its own.
    """
    mount = mounts.get(mount_id(path) or 0)
    if mount is not None:
        return mount.device
    found = path.stat().st_dev
    return f"{os.major(found)}:{os.minor(found)}"


def _has_figures_of(overlay: Path, root: Path) -> bool:
    """Whether both are one file system, by its size and its free space."""
    return any(_figures(overlay) == _figures(root) for _ in range(_TRIES))


def _figures(path: Path) -> tuple[int, ...]:
    found = os.statvfs(path)
    blocks = found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail
    return *blocks, found.f_files, found.f_ffree
