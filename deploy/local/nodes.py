"""Simulated nodes: Node objects with the status that a kubelet would report."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from deploy.kube.errors import NotFoundError
from deploy.kube.kinds import NODES
from deploy.local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject

MANAGER = "localmodel-local"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?")


def node_names(count: int) -> list[str]:
    """The names of a new cluster's nodes."""
    return [f"node-{number}" for number in range(1, count + 1)]


def check_name(name: str) -> None:
    """Raise LocalError unless a node can have this name."""
    if not NAME.fullmatch(name):
        raise LocalError(
            f"{name!r} cannot be the name of a node",
            todo="use lower case letters, digits and '-', as in node-4",
        )


def node_object(name: str, labels: Mapping[str, str] | None) -> KubeObject:
    """A Node as a kubelet would register it."""
    own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "pool": "gpu"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": own | dict(labels or {})},
    }


def node_status(name: str, now: str) -> KubeObject:
    """The status of a Ready Node."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Simulated",
        "message": "a simulated node is always ready",
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"conditions": [ready]},
    }


def register(api: KubeClient, name: str, labels: Mapping[str, str] | None) -> None:
    """Create a Node that is Ready at once."""
    api.apply(node_object(name, labels), manager=MANAGER)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    api.apply(node_status(name, now), manager=MANAGER, subresource="status")


def unregister(api: KubeClient, name: str) -> bool:
    """Delete a Node. Returns whether it existed."""
    try:
        api.delete(NODES, name)
    except NotFoundError:
        return False
    return True
