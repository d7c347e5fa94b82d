"""The rights that localmodel's manifests grant, one by one. Pure, but for the files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import yaml

from deploy.kube.kinds import Kind
from deploy.local.layout import CHECKOUT
from deploy.local.users import ServiceAccount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deploy.kube.kinds import KubeObject

BASE = "deploy/base/rbac.yaml"
TAINT = "deploy/components/startup-taint/rbac.yaml"
CONFIGZ = "deploy/components/kubelet-configz/rbac.yaml"
METACONTROLLER = "metacontroller/install/rbac.yaml"
TOKEN = "deploy/components/hooks-token/controllers/rbac.yaml"
KSERVE = "deploy/overlays/kserve/rbac.yaml"


FILES = (BASE, TAINT, CONFIGZ, METACONTROLLER, TOKEN, KSERVE)

CLUSTER_ROLES = Kind("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole")
ROLES = Kind("rbac.authorization.k8s.io/v1", "roles", "Role", namespaced=True)


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource, which a role grants to a user of the product.

    namespace: of a Role, empty for a ClusterRole. resource: with its subresource.
    """

    user: str
    role: str
    namespace: str
    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        target = ".".join(filter(None, (self.resource, self.group)))
        return f"{self.role}: {self.verb} {target}"


def granted(*files: str) -> list[Right]:
    """The rights of manifest files, in their order."""
    return list(dict.fromkeys(right for file in files for right in _granted(file)))


def _granted(file: str) -> Iterator[Right]:
    found = list(yaml.safe_load_all((CHECKOUT / file).read_text()))
    users = {
        binding["roleRef"]["name"]: ServiceAccount(subject["namespace"], subject["name"]).name
        for binding in found
        for subject in binding.get("subjects", ())
    }
    for role in found:
        metadata = role["metadata"]
        for rule in role.get("rules") or ():
            for group, resource, verb in product(
                rule["apiGroups"], rule["resources"], rule["verbs"]
            ):
                name, namespace = metadata["name"], metadata.get("namespace", "")
                yield Right(users[name], name, namespace, group, resource, verb)


def role_with(name: str, namespace: str, rights: Iterable[Right]) -> KubeObject:
    """The role of this name with those of some rights that are its own."""
    kind = ROLES if namespace else CLUSTER_ROLES
    where = {"namespace": namespace} if namespace else {}
    rules = [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
        for right in rights
        if (right.role, right.namespace) == (name, namespace)
    ]
    head = {"apiVersion": kind.api_version, "kind": kind.name}
    return head | {"metadata": {"name": name, **where}, "rules": rules}
