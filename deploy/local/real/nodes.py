"""Starts and removes the real nodes of a local cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.kube.kinds import NODES
from deploy.local.layout import CHECKOUT
from deploy.local.nodes import MANAGER, node_object
from deploy.local.ports import free_ports
from deploy.local.process import Process
from deploy.local.product import PYTHON
from deploy.local.real import agent_image, cgroups, images, packages, settings
from deploy.local.users import node_kubeconfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.kube.client import KubeClient
    from deploy.local.layout import Layout

# Only real nodes have it.
LABEL = {"localmodel.local/kubelet": "yes"}
RESOLVER = Path("/etc/resolv.conf")


def names(count: int) -> list[str]:
    """The names of a new cluster's real nodes."""
    return [f"real-{number}" for number in range(1, count + 1)]


def process_name(node: str) -> str:
    """Name of the process that runs a node's containerd and kubelet."""
    return f"kubelet-{node}"


def write_images(layout: Layout, *, agent: bool) -> None:
    """Write the images that each node of a cluster imports. agent: also localmodel's."""
    found = packages.require(layout.root)
    layout.images.mkdir(exist_ok=True)
    images.write_busybox(found.busybox, layout.images / "busybox.tar")
    if agent:
        agent_image.write(layout.images / "localmodel.tar", found.busybox)


def prepare(layout: Layout, name: str) -> Process:
    """Write a node's settings, and return its process. Raises LocalError."""
    found = packages.require(layout.root)
    folder = layout.machine(name)
    (folder / "cni").mkdir(parents=True, exist_ok=True)
    layout.disk(name).mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    resolver = folder / "resolv.conf"
    resolver.write_text(RESOLVER.read_text() if RESOLVER.exists() else "")
    kubelet = settings.Kubelet(
        port, cgroups.make(layout.root, name), layout.kubelet_client, resolver
    )
    (folder / "kubelet.json").write_text(settings.kubelet(kubelet))
    (folder / "containerd.toml").write_text(settings.containerd(found.cni_folder))
    (folder / "cni" / "10-localmodel.conflist").write_text(settings.cni(port))
    kubeconfig = layout.user_kubeconfig(name)
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(node_kubeconfig(json.loads(layout.kubeconfig.read_text()), name))
    argv = (
        *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"),
        *(PYTHON, "-m", "deploy.local.real.machine", str(folder)),
        *("--name", name, "--disk", str(layout.disk(name)), "--kubeconfig", str(kubeconfig)),
        *("--images", str(layout.images)),
    )
    # unshare ignores SIGTERM, so no time is lost on waiting for its effect.
    return Process(argv, cwd=str(CHECKOUT), order=4, stop_seconds=0.1)


def address(layout: Layout, name: str) -> str:
    """The address of a node that was prepared."""
    found: str = json.loads((layout.machine(name) / "kubelet.json").read_text())["address"]
    return found


def register(api: KubeClient, name: str, labels: Mapping[str, str] | None, address: str) -> None:
    """Create a Node like a simulated one, with LABEL, and with an address that kubelet keeps."""
    api.apply(node_object(name, LABEL | dict(labels or {})), manager=MANAGER)
    addresses = [
        {"type": "InternalIP", "address": address},
        {"type": "Hostname", "address": name},
    ]
    status = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": addresses},
    }
    api.apply(status, manager=MANAGER, subresource="status")


def is_ready(api: KubeClient, name: str) -> bool:
    """Whether a node's kubelet reports that the node takes pods."""
    node = api.find(NODES, name) or {}
    conditions = node.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def clean(layout: Layout, name: str = "") -> None:
    """Remove what the ended nodes of a cluster, or one of them, leave beside the models' disk."""
    cgroups.remove(layout.root, name)
    for folder in [layout.machine(name)] if name else [layout.machines, layout.images]:
        shutil.rmtree(folder, ignore_errors=True)
