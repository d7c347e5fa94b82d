"""What the token of an agent is good for, taken from the node of the agent.

The token is that of a running agent, and the API server enforces the shipped RBAC and policies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.structs.credentials import DEFAULT_NAMESPACE
from deploy.kube.errors import ApiError, ForbiddenError, InvalidError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    EVENTS,
    LOCAL_MODEL_NODES,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from deploy.local import identities, product
from deploy.local.users import AGENT, HOOKS, METACONTROLLER
from tests.e2e import audit
from tests.e2e.world import World, an_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject

OURS = "localmodel.serving.kserve.io/cached-at"
NODE, OTHER = "node-1", "node-2"
POD_SPEC = {"automountServiceAccountToken": False, "containers": [{"name": "c", "image": "c"}]}


@pytest.fixture
def stolen(world: World) -> KubeClient:
    """A client with the token of the agent of NODE."""
    return audit.as_user(world.cluster.layout.user_kubeconfig(product.agent_name(NODE)))


def _refused(call: Callable[[], Any]) -> str:
    with pytest.raises((ForbiddenError, InvalidError)) as refusal:
        call()
    return refusal.value.message


def _status(client: KubeClient, node: str) -> Callable[[], KubeObject]:
    def write() -> KubeObject:
        return client.patch(LOCAL_MODEL_NODES, node, {"status": {}}, subresource="status")

    return write


def _annotated(client: KubeClient, pod: str) -> Callable[[], KubeObject]:
    change: KubeObject = {"metadata": {"annotations": {OURS: "2026-08-01T12:00:00Z"}}}
    return lambda: client.patch(PODS, pod, change, "stolen")


def _make_pods(world: World) -> None:
    world.namespace("stolen")
    for name, node in (("here", NODE), ("elsewhere", OTHER)):
        world.make(an_object(PODS, name, "stolen", spec=POD_SPEC | {"nodeName": node}))


def test_a_stolen_token_writes_for_its_own_node_only(world: World, stolen: KubeClient) -> None:
    world.node(NODE, "stolen")
    world.node(OTHER, "stolen")
    world.group("stolen", "stolen")
    world.until(
        lambda: all(world.find(LOCAL_MODEL_NODES, node) for node in (NODE, OTHER)), "the objects"
    )
    _make_pods(world)
    _status(stolen, NODE)()
    refused = _refused(_status(stolen, OTHER))
    assert f"the agent of the node {NODE} may not write the status of {OTHER}" in refused
    _annotated(stolen, "here")()
    refused = _refused(_annotated(stolen, "elsewhere"))
    assert f"the agent of the node {NODE} may not change a pod of the node {OTHER}" in refused
    label: KubeObject = {"metadata": {"labels": {"app": "mine"}}}
    assert "neither its spec nor its labels" in _refused(
        lambda: stolen.patch(PODS, "here", label, "stolen")
    )
    world.kubectl("delete", "pods", "--all", "-n", "stolen", "--force")


def test_a_stolen_token_changes_nothing_else(stolen: KubeClient) -> None:
    cache = an_object(CACHES, "stolen")
    spec: KubeObject = {"spec": {"localModels": []}}
    pod = an_object(PODS, "mine", "localmodel", spec=POD_SPEC)
    token = SERVICE_ACCOUNTS.path(AGENT.account, AGENT.namespace, "token")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    calls: dict[str, Callable[[], Any]] = {
        "patch localmodelnodes": lambda: stolen.patch(LOCAL_MODEL_NODES, NODE, spec),
        "delete localmodelnodes": lambda: stolen.delete(LOCAL_MODEL_NODES, NODE),
        "create pods": lambda: stolen.create(pod),
        "create pods/exec": lambda: stolen.request(
            "POST", PODS.path("here", "stolen", "exec"), body={}
        ),
        "delete pods": lambda: stolen.delete(PODS, "here", "stolen"),
        "patch nodes": lambda: stolen.patch(NODES, NODE, {"metadata": {"labels": {"a": "b"}}}),
        "create serviceaccounts/token": lambda: stolen.request("POST", token, body=request),
        "patch persistentvolumeclaims": lambda: stolen.patch(CLAIMS, "c", {}, "stolen"),
        "create localmodelcaches": lambda: stolen.create(cache),
    }
    for what, call in calls.items():
        verb, resource = what.split()
        refused = _refused(call)
        assert f"cannot {verb} resource" in refused, refused
        assert f'"{resource}"' in refused, refused


def test_what_a_stolen_token_reads(world: World, stolen: KubeClient) -> None:
    assert stolen.list(PODS)
    stolen.list(LOCAL_MODEL_NODES)
    world.secret("stolen", {"key": "value"})
    assert stolen.get(SECRETS, "stolen", DEFAULT_NAMESPACE)["data"]
    for namespace in (DEFAULT_NAMESPACE, "", "localmodel"):
        assert "cannot list resource" in _refused(lambda: stolen.list(SECRETS, namespace))  # noqa: B023
    for namespace in ("localmodel", "default", "kube-system"):
        refused = _refused(lambda: stolen.get(SECRETS, "any", namespace))  # noqa: B023
        assert "cannot get resource" in refused
    assert "cannot list resource" in _refused(lambda: stolen.list(NODES))
    # Events can be written anywhere, and read nowhere.
    assert "cannot list resource" in _refused(lambda: stolen.list(EVENTS))
    world.delete(SECRETS, "stolen", DEFAULT_NAMESPACE)


def _identity(world: World, path: Path, **bound: str) -> KubeClient:
    authority = world.cluster.layout.certificate
    identities.write(path, world.api, AGENT, authority=authority, **bound)
    return audit.as_user(path)


def test_a_token_that_is_not_bound_to_a_pod_writes_for_no_node(
    world: World, tmp_path: Path
) -> None:
    world.node(NODE, "stolen")
    world.group("stolen", "stolen")
    world.until(lambda: world.find(LOCAL_MODEL_NODES, NODE), "the object")
    _make_pods(world)
    loose = _identity(world, tmp_path / "loose")
    assert "token is not bound to a pod of a node" in _refused(_status(loose, NODE))
    assert "token is not bound to a pod of a node" in _refused(_annotated(loose, "here"))
    world.kubectl("delete", "pods", "--all", "-n", "stolen", "--force")


def test_a_token_ends_with_its_pod(world: World, tmp_path: Path) -> None:
    client = _identity(world, tmp_path / "bound", pod="ends", node=NODE)
    assert client.list(LOCAL_MODEL_NODES) is not None
    identities.remove(world.api, AGENT, "ends")

    def is_refused() -> bool:
        try:
            client.list(LOCAL_MODEL_NODES)
        except ApiError as error:
            return error.status == 401
        return False

    # The API server remembers for some seconds that a token is valid.
    world.until(is_refused, "the token to be refused")


def test_each_agent_has_a_token_of_its_own_node_and_the_hooks_have_none(world: World) -> None:
    # The last line may be incomplete yet.
    *lines, _ = world.cluster.layout.audit_log.read_text().split("\n")
    events = [json.loads(line) for line in lines]
    nodes: dict[str, set[str]] = {}
    for event in events:
        extra = event["user"].get("extra") or {}
        pods = extra.get("authentication.kubernetes.io/pod-name", [""])
        node = extra.get("authentication.kubernetes.io/node-name", [""])
        if event.get("userAgent") != audit.ON_PURPOSE:
            nodes.setdefault(event["user"]["username"], set()).add(f"{pods[0]} {node[0]}")
    assert nodes[METACONTROLLER.name] == {f"{product.META} "}
    assert f"{product.agent_name(NODE)} {NODE}" in nodes[AGENT.name]
    assert all(pair == f"agent-{pair.split()[1]} {pair.split()[1]}" for pair in nodes[AGENT.name])
    assert HOOKS.name not in nodes
    pid = world.cluster.pid(product.HOOKS)
    environment = Path(f"/proc/{pid}/environ").read_text()
    arguments = Path(f"/proc/{pid}/cmdline").read_text()
    assert "kubeconfig" not in (environment + arguments).lower()
