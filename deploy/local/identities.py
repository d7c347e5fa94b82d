"""Tokens of the product's ServiceAccounts, each bound to a pod as kubelet binds those of its pods.

On a local cluster, agents and Metacontroller are processes. Each has a Pod object all the same: the
API server reads the node from the token of a pod, and the policies for agents need the node. A node
selector that no Node matches keeps schedulers and kubelets from starting these pods.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from deploy.kube.errors import NotFoundError
from deploy.kube.kinds import PODS, SERVICE_ACCOUNTS, KubeObject
from deploy.local.manifests import MANAGER
from deploy.local.users import kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.kube.client import KubeClient
    from deploy.local.users import ServiceAccount

LABEL = "localmodel.local/process"
# The namespace of Metacontroller admits no other pods.
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
# Longer than a local cluster lives: the processes read their tokens at their start only.
TOKEN_SECONDS = 365 * 24 * 3600


def pod_object(account: ServiceAccount, name: str, node: str = "") -> KubeObject:
    """A pod that is never started. It has no label that the DaemonSet of the agents selects."""
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.name,
        "metadata": {"name": name, "namespace": account.namespace, "labels": {LABEL: name}},
        "spec": {
            "serviceAccountName": account.account,
            "automountServiceAccountToken": False,
            "nodeSelector": {LABEL: "none"},
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": "process", "image": LABEL, "securityContext": RESTRICTED}],
            **({"nodeName": node} if node else {}),
        },
    }


def token(api: KubeClient, account: ServiceAccount, pod: KubeObject | None = None) -> str:
    """A token of a ServiceAccount, bound to a stored pod if there is one."""
    spec: KubeObject = {"expirationSeconds": TOKEN_SECONDS}
    if pod is not None:
        metadata = pod["metadata"]
        bound = {"name": metadata["name"], "uid": metadata["uid"]}
        spec["boundObjectRef"] = {"apiVersion": PODS.api_version, "kind": PODS.name, **bound}
    answer = api.request(
        "POST",
        SERVICE_ACCOUNTS.path(account.account, account.namespace, "token"),
        doing=f"making a token of ServiceAccount {account.namespace}/{account.account}",
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
    )
    return str(answer["status"]["token"])


def write(
    path: Path,
    api: KubeClient,
    account: ServiceAccount,
    *,
    authority: Path,
    pod: str = "",
    node: str = "",
) -> None:
    """Write a kubeconfig of a ServiceAccount.

    pod: the name of the pod that the token is bound to, which is created. node: the pod's.
    """
    stored = api.apply(pod_object(account, pod, node), manager=MANAGER) if pod else None
    path.touch(mode=0o600)
    path.write_text(
        kubeconfig(
            server=api.server,
            authority=authority,
            user=account.account,
            token=token(api, account, stored),
        )
    )


def remove(api: KubeClient, account: ServiceAccount, pod: str) -> None:
    """Delete a pod of `write`, so that its tokens end a minute later."""
    with suppress(NotFoundError):
        api.delete(PODS, pod, account.namespace, grace_seconds=0)
