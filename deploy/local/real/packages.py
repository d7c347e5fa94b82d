"""What real nodes need of this machine: Linux, root, and packages of Debian or Ubuntu."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.layout import CHECKOUT

# A user's PATH may lack the folders of programs for administrators.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Each program with its package.
PROGRAMS = {"containerd": "containerd", "ctr": "containerd", "runc": "runc"}
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("host-local", "loopback", "ptp")
# A node mounts folders of its own over these.
HIDDEN = ("/var/lib", "/var/log", "/run")
# In the header of a program that needs shared libraries, which an image would lack.
_LOADER = b"/ld-linux"
_HEADER_BYTES = 4096
INSTEAD = "or start simulated nodes only, without REAL_NODES"


@dataclass(frozen=True)
class Packages:
    """Files of the packages. busybox: a program that needs no libraries."""

    cni_folder: Path
    busybox: Path


def require(cluster: Path, *, instead: str = INSTEAD) -> Packages:
    """The packages for the real nodes of the cluster in a folder.

    instead: what who cannot get them can do. Raises LocalError if this machine cannot run such
    nodes, with what it lacks.
    """
    if sys.platform != "linux":
        raise LocalError(f"real nodes need Linux, not {sys.platform}", todo=instead)
    if os.geteuid() != 0:
        raise LocalError(
            "real nodes need root: kubelet mounts volumes and makes cgroups",
            todo=", ".join(filter(None, ("run the command as root", instead))),
        )
    missing = {package for name, package in PROGRAMS.items() if not shutil.which(name, path=PATH)}
    cni_folder, busybox = _cni_folder(), _busybox()
    if cni_folder is None:
        missing.add("containernetworking-plugins")
    if busybox is None:
        missing.add("busybox-static")
    if missing or cni_folder is None or busybox is None:
        names = sorted(missing)
        install = "apt-get install --yes --no-install-recommends"
        raise LocalError(
            f"real nodes need packages that are not installed: {', '.join(names)}",
            todo=f"apt-get update && {install} {' '.join(names)}",
        )
    for folder in (cluster, CHECKOUT):
        if any(folder.resolve().is_relative_to(hidden) for hidden in HIDDEN):
            raise LocalError(
                f"real nodes cannot use {folder}: they have {', '.join(HIDDEN)} of their own",
                todo="move the checkout, or the cluster's folder (LOCAL=), somewhere else",
            )
    return Packages(cni_folder, busybox)


def _cni_folder() -> Path | None:
    return next((at for at in CNI_FOLDERS if all((at / n).exists() for n in CNI_PLUGINS)), None)


def _busybox() -> Path | None:
    found = shutil.which("busybox", path=PATH)
    if found is None:
        return None
    with Path(found).open("rb") as program:
        return None if _LOADER in program.read(_HEADER_BYTES) else Path(found)
