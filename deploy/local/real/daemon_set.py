"""The DaemonSet of the agents as it is shipped, changed for a control plane on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from deploy.local.ports import LOOPBACK
from deploy.local.product import PEER_BIND_ADDRESS
from deploy.local.real import agent_image
from deploy.local.real.nodes import LABEL

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.kube.kinds import KubeObject
    from deploy.local.ports import Ports
    from deploy.local.product import AgentOptions

# Each real node has an address of its own, which its pods with the machine's network have, too.
HTTP_PORT = 8081
PEER_PORT = 8089


def read(checkout: Path, options: AgentOptions, ports: Ports) -> KubeObject:
    """The DaemonSet for the real nodes, with the image that they have and the cluster's options."""
    found: KubeObject = yaml.safe_load((checkout / "deploy/base/agent.yaml").read_text())
    spec = found["spec"]["template"]["spec"]
    spec["nodeSelector"] |= LABEL
    # The API server and the origins listen on the machine's loopback, which only its network has.
    spec["hostNetwork"] = True
    (container,) = spec["containers"]
    container |= {"image": agent_image.NAME, "imagePullPolicy": "Never"}
    container["args"] += options.flags
    server = {"KUBERNETES_SERVICE_HOST": LOOPBACK, "KUBERNETES_SERVICE_PORT": str(ports.api)}
    bound = {"LOCALMODEL_HTTP_BIND_ADDRESS": f"$(LOCALMODEL_NODE_ADDRESS):{HTTP_PORT}"}
    if not options.exchanges_nothing:
        bound[PEER_BIND_ADDRESS] = f"$(LOCALMODEL_NODE_ADDRESS):{PEER_PORT}"
    changed = options.env | options.pods_env | server | bound
    kept = [entry for entry in container["env"] if entry["name"] not in changed]
    container["env"] = kept + [{"name": key, "value": value} for key, value in changed.items()]
    return found
