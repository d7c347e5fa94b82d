"""Policies that every overlay has: what an agent may write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.local.kubeapi import ApiError, KubeApi
from deploy.local.users import AGENT
from tests.e2e.world import LOCAL_MODEL_NODES

if TYPE_CHECKING:
    from tests.e2e.kserve import KServeWorld

NODE_OF_TOKEN = "Impersonate-Extra-authentication.kubernetes.io%2Fnode-name"


def _write(kserve: KServeWorld, node: str, node_of_token: str = "") -> str:
    """What the API server answers to an agent that writes the status of a node's object.

    `node_of_token` is that of the pod that its token was made for; without one, it was for none.
    """
    api = KubeApi.from_kubeconfig(kserve.cluster.kubeconfig)
    api._session.headers["Impersonate-User"] = AGENT.name
    if node_of_token:
        api._session.headers[NODE_OF_TOKEN] = node_of_token
    try:
        api.request(
            "PATCH",
            LOCAL_MODEL_NODES.path("", node, "status"),
            body={"status": {"models": []}},
            content_type="application/merge-patch+json",
        )
    except ApiError as error:
        return error.message
    return ""


def test_an_agent_writes_the_status_of_its_own_node_only(kserve: KServeWorld) -> None:
    kserve.kserve_group("own-status", "node-1", "node-2")
    kserve.until(
        lambda: all(kserve.find(LOCAL_MODEL_NODES, node) for node in ("node-1", "node-2")),
        "the nodes' objects",
    )
    assert _write(kserve, "node-1", node_of_token="node-1") == ""
    refused = _write(kserve, "node-2", node_of_token="node-1")
    assert "the agent of the node node-1 may not write the status of node-2" in refused
    # A token that was made for no pod names no node. No agent has the right to make one.
    assert _write(kserve, "node-2") == ""
    may = kserve.cluster.kubectl(
        "auth", "can-i", "create", "serviceaccounts/token", "-A", f"--as={AGENT.name}"
    )
    assert may.stdout.strip() == "no"
