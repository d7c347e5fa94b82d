"""The cgroups of real nodes: one for each cluster, and in it one for each node."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
UNIFIED = ROOT / "cgroup.controllers"
CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")
# A killed process leaves its cgroup a moment after it.
EMPTY_SECONDS = 3.0


def name_of(cluster: Path) -> str:
    """The name of the cgroup of all nodes of the cluster in a folder."""
    return f"localmodel-{hashlib.sha256(os.fsencode(cluster)).hexdigest()[:12]}"


def make(cluster: Path, node: str) -> str:
    """Make the cgroup of a node in each hierarchy. Returns kubelet's `cgroupRoot`."""
    for hierarchy in _hierarchies():
        at = hierarchy
        for part in (name_of(cluster), node):
            if UNIFIED.exists():
                _delegate(at)
            above, at = at, at / part
            at.mkdir(exist_ok=True)
            # A new cpuset of version 1 is empty, and no process can enter it.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if not UNIFIED.exists() and (at / setting).exists():
                    (at / setting).write_text((above / setting).read_text())
    return f"/{name_of(cluster)}/{node}"


def remove(cluster: Path, node: str = "") -> None:
    """Remove the cgroups of a cluster, or of one of its nodes, whose processes have ended."""
    if not ROOT.is_dir():
        return
    deadline = time.monotonic() + EMPTY_SECONDS
    for hierarchy in _hierarchies():
        top = hierarchy / name_of(cluster) / node
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)


def _hierarchies() -> list[Path]:
    if UNIFIED.exists():
        return [ROOT]
    # Names such as cpu,cpuacct are one hierarchy, to which the names of its parts link.
    return [at for at in ROOT.iterdir() if at.is_mount() and not at.is_symlink()]


def _delegate(at: Path) -> None:
    for controller in CONTROLLERS:
        # The kernel may lack a controller; kubelet says so if it needs it.
        with suppress(OSError):
            (at / "cgroup.subtree_control").write_text(f"+{controller}")
