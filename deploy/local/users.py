"""The users of a local cluster, the token file of the API server, and kubeconfigs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from deploy.kube.kinds import KubeObject


@dataclass(frozen=True)
class User:
    """A user that authenticates with a token. key: the name of the user's files."""

    key: str
    name: str
    groups: tuple[str, ...]


def _service_account(key: str, namespace: str, name: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return User(key, f"system:serviceaccount:{namespace}:{name}", groups)


ADMIN = User("admin", "admin", ("system:masters",))
AGENT = _service_account("agent", "localmodel", "localmodel-agent")
METACONTROLLER = _service_account("metacontroller", "metacontroller", "metacontroller")
USERS = (ADMIN, AGENT, METACONTROLLER)


def token_file(users: Sequence[User], tokens: Mapping[str, str]) -> str:
    """The content of the token file: token, name, uid and groups on each line."""
    return "".join(
        f'{tokens[user.key]},{user.name},{user.key},"{",".join(user.groups)}"\n' for user in users
    )


def kubeconfig(*, server: str, authority: Path, user: User, token: str) -> str:
    """The kubeconfig of a user (as JSON, which is YAML too)."""
    name = "localmodel-local"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority": str(authority)}}
        ],
        "users": [{"name": user.key, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user.key}}],
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
