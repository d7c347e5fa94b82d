"""The users of a local cluster, the token file of the API server, and kubeconfigs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.kube.kinds import KubeObject

ADMIN = "admin"


@dataclass(frozen=True)
class ServiceAccount:
    """A ServiceAccount of the product's manifests."""

    namespace: str
    account: str

    @property
    def name(self) -> str:
        """The name of the user that the API server knows."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"


AGENT = ServiceAccount("localmodel", "localmodel-agent")
HOOKS = ServiceAccount("localmodel", "localmodel-hooks")
METACONTROLLER = ServiceAccount("metacontroller", "metacontroller")


def token_file(token: str) -> str:
    """The content of the API server's token file, which has the administrator only.

    Token, name, uid and groups.
    """
    return f'{token},{ADMIN},{ADMIN},"system:masters"\n'


def kubeconfig(*, server: str, authority: Path, user: str, token: str) -> str:
    """The kubeconfig of a user (as JSON, which is YAML too)."""
    name = "localmodel-local"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority": str(authority)}}
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
    }
    return json.dumps(config, indent=2) + "\n"


def node_kubeconfig(admin: KubeObject, node: str) -> str:
    """The kubeconfig of a kubelet, made from the administrator's.

    The administrator acts as the node, which has the rights of a node alone: the API server reads
    its token file only once, and nodes join later.
    """
    (user,) = admin["users"]
    acting = {"as": f"system:node:{node}", "as-groups": ["system:nodes"]}
    users = [{"name": user["name"], "user": user["user"] | acting}]
    return json.dumps(admin | {"users": users}, indent=2) + "\n"
