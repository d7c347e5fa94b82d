"""New nodes with a startup taint, and what an agent may change of a Node."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.cluster.startup_taint import KEYS
from deploy.kube.client import KubeClient
from deploy.kube.errors import ApiError
from deploy.kube.kinds import EVENTS, NODES
from deploy.local.cluster import Cluster
from deploy.local.layout import CHECKOUT
from deploy.local.origin import S3Origin
from deploy.local.users import AGENT
from tests.e2e import audit
from tests.e2e.origin import HttpOrigin
from tests.e2e.test_kserve_policies import NODE_OF_TOKEN
from tests.e2e.world import GRACE_SECONDS, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.kube.kinds import JsonPatch, KubeObject

pytestmark = pytest.mark.xdist_group("standin")

COMPONENT = CHECKOUT / "deploy/components/startup-taint"
KEY, AUTOSCALERS = sorted(KEYS)
OURS = {"key": KEY, "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
OTHER = {"key": "other", "effect": "NoSchedule"}
SIZE = 3 << 20


@pytest.fixture(scope="module")
def tainted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A cluster whose agents remove the taint once models of priority 10 are there."""
    cluster = Cluster(tmp_path_factory.mktemp("taints") / "local")
    http = HttpOrigin()
    cluster.up(
        0,
        metacontroller="standin",
        grace_seconds=GRACE_SECONDS,
        progress_seconds=0.5,
        agent_env={"LOCALMODEL_STARTUP_TAINT_PRIORITY": "10"},
        owner_pid=os.getpid(),
    )
    try:
        world = World(cluster, http, S3Origin())
        for one in rendered(world, "standalone", tmp_path_factory.mktemp("kustomization")):
            if one["metadata"]["name"].endswith("startup-taint"):
                world.make(one)
        world.make(a_node("probe", OURS))
        # The API server enforces a policy some time after its creation.
        world.until(
            lambda: "may not change the node" in as_agent(world, "probe", {}, of="another"),
            "the policy to be enforced",
        )
        yield world
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()


def rendered(world: World, overlay: str, folder: Path) -> list[KubeObject]:
    """The objects of an overlay with the component, as `kubectl apply -k` makes them."""
    resource = os.path.relpath(CHECKOUT / "deploy/overlays" / overlay, folder)
    component = os.path.relpath(COMPONENT, folder)
    text = yaml.safe_dump({"resources": [resource], "components": [component]})
    (folder / "kustomization.yaml").write_text(text)
    return list(yaml.safe_load_all(world.kubectl("kustomize", str(folder))))


def a_node(name: str, *taints: KubeObject) -> KubeObject:
    """A Node as a kubelet registers it with --register-with-taints."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"taints": list(taints)},
    }


def taints(world: World, node: str) -> list[str]:
    """The keys of a node's taints, without those of Kubernetes itself."""
    found = (world.find(NODES, node) or {}).get("spec", {}).get("taints", ())
    return [taint["key"] for taint in found if not taint["key"].startswith("node.kubernetes.io/")]


def events(world: World, node: str) -> list[tuple[str, str]]:
    """Reason and note of the Events about a Node by its agent, in their order."""
    found = [
        event
        for event in world.api.list(EVENTS)
        if (event["involvedObject"].get("kind"), event["involvedObject"]["name"]) == ("Node", node)
    ]
    found.sort(key=lambda event: str(event["eventTime"]))
    return [(event["reason"], event["message"]) for event in found if "Taint" in event["reason"]]


def as_agent(world: World, node: str, change: KubeObject | JsonPatch, *, of: str = "") -> str:
    """What the API server answers to an agent that changes a Node.

    `of` is the node of the pod that the agent's token was made for.
    """
    headers = {"Impersonate-User": AGENT.name} | ({NODE_OF_TOKEN: of} if of else {})
    api = KubeClient.connect(world.cluster.kubeconfig, headers=headers)
    try:
        api.patch(NODES, node, change)
    except ApiError as error:
        return error.message
    return ""


def test_a_new_node_takes_pods_when_its_important_models_are_there(tainted: World) -> None:
    important = tainted.http.put("important.bin", b"i" * SIZE)
    other = tainted.http.put("other.bin", b"o" * SIZE)
    tainted.group("fresh")
    tainted.cache("important", important, "fresh", priority=10)
    tainted.cache("other", other, "fresh", priority=9)
    tainted.cache("missing", tainted.http.url("missing.bin"), "fresh", priority=100)
    tainted.http.bytes_per_second = SIZE / 5
    try:
        tainted.make(a_node("fresh-1", OURS, GPU, {**OURS, "effect": "NoExecute"}))
        tainted.cluster.node_up("fresh-1", labels={"fresh": "yes"})

        def begun() -> bool:
            return tainted.report("fresh-1", important).get("state") == "Downloading"

        tainted.until(begun, "the download")
        assert taints(tainted, "fresh-1") == [KEY, GPU["key"], KEY]
        tainted.until(
            lambda: any("important (Downloading" in note for _, note in events(tainted, "fresh-1")),
            "the Event that names the model",
        )
        assert "StartupTaintKept" in tainted.kubectl("describe", "node", "fresh-1")
        tainted.until(lambda: KEY not in taints(tainted, "fresh-1"), "the taint to be removed")
    finally:
        tainted.http.bytes_per_second = 0.0
    assert tainted.published("fresh-1", important)
    assert taints(tainted, "fresh-1") == [GPU["key"]]
    tainted.until(
        lambda: events(tainted, "fresh-1")[-1][0] == "StartupTaintRemoved", "the last Event"
    )
    reason, note = events(tainted, "fresh-1")[-1]
    assert note == (
        "1 of 2 models of priority 10 or higher are cached; not waited for: missing (Failed: "
        "NotFound)"
    )
    assert reason in tainted.kubectl("describe", "node", "fresh-1")

    # It does not come back, whatever is asked for later.
    tainted.cache("later", tainted.http.put("later.bin", b"l" * SIZE), "fresh", priority=10)
    tainted.wait_ready("later", 1)
    assert taints(tainted, "fresh-1") == [GPU["key"]]
    tainted.remove_caches("important", "other", "missing", "later")


def test_a_node_in_no_group_takes_pods_after_a_minute(tainted: World) -> None:
    tainted.make(a_node("alone-1", {**OURS, "key": AUTOSCALERS}, GPU))
    tainted.cluster.node_up("alone-1")
    tainted.until(
        lambda: (
            events(tainted, "alone-1")[:1]
            == [
                (
                    "StartupTaintKept",
                    "the node has no readable LocalModelNode yet, which lists its models",
                )
            ]
        ),
        "the first Event",
    )
    assert AUTOSCALERS in taints(tainted, "alone-1")
    tainted.until(lambda: taints(tainted, "alone-1") == [GPU["key"]], "the taint to go", 120)
    tainted.until(
        lambda: "in no LocalModelNodeGroup" in events(tainted, "alone-1")[-1][1], "the last Event"
    )


@pytest.mark.parametrize("overlay", ["standalone", "kserve"])
def test_the_component_fits_every_overlay(tainted: World, overlay: str, tmp_path: Path) -> None:
    found = rendered(tainted, overlay, tmp_path)
    kinds = [one["kind"] for one in found if one["metadata"]["name"].endswith("startup-taint")]
    assert sorted(kinds) == [
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ]
    (agent,) = (one for one in found if one["kind"] == "DaemonSet")
    (container,) = agent["spec"]["template"]["spec"]["containers"]
    names = [variable["name"] for variable in container["env"]]
    assert {"LOCALMODEL_STARTUP_TAINT_PRIORITY", "LOCALMODEL_NODE_NAME"} <= set(names)


TAINT = "/spec/taints/0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([{"op": "remove", "path": "/spec/taints/1"}], "only by removing the startup taint"),
        ([{"op": "add", "path": "/spec/taints/-", "value": OTHER}], "only by removing"),
        ([{"op": "replace", "path": f"{TAINT}/effect", "value": "NoExecute"}], "only by removing"),
        ([{"op": "remove", "path": "/spec/taints"}], "only by removing"),
        ({"metadata": {"labels": {"pool": "mine"}}}, "may not change the metadata"),
        ({"metadata": {"annotations": {"a": "b"}}}, "may not change the metadata"),
        ({"metadata": {"finalizers": ["example.com/f"]}}, "may not change the metadata"),
        ({"spec": {"unschedulable": True}}, "nothing of a Node's spec but its taints"),
        ({"spec": {"providerID": "cloud://1"}}, "nothing of a Node's spec but its taints"),
        ({"spec": {"podCIDRs": ["10.0.0.0/24"], "podCIDR": "10.0.0.0/24"}}, "nothing of a Node's"),
    ],
)
def test_an_agent_changes_nothing_else_of_its_node(
    tainted: World, change: Any, message: str
) -> None:
    if tainted.find(NODES, "rights") is None:
        tainted.make(a_node("rights", OURS, GPU))
    if isinstance(change, dict) and "spec" not in change:
        # Together with a removal that is allowed, too.
        rest = [t for t in tainted.api.get(NODES, "rights")["spec"]["taints"] if t["key"] != KEY]
        both = change | {"spec": {"taints": rest}}
        assert message in as_agent(tainted, "rights", both, of="rights")
    assert message in as_agent(tainted, "rights", change, of="rights")
    assert taints(tainted, "rights") == [KEY, GPU["key"]]


def test_an_agent_removes_the_taint_of_its_own_node_only(tainted: World) -> None:
    tainted.make(a_node("own", OURS, GPU))
    removal: JsonPatch = [
        {"op": "test", "path": TAINT, "value": OURS},
        {"op": "remove", "path": TAINT},
    ]
    refused = as_agent(tainted, "own", removal, of="probe")
    assert "the agent of the node probe may not change the node own" in refused
    assert taints(tainted, "own") == [KEY, GPU["key"]]
    assert as_agent(tainted, "own", removal, of="own") == ""
    assert taints(tainted, "own") == [GPU["key"]]
    # A token that is not bound to a pod names no node.
    tainted.make(a_node("any", OURS, GPU))
    refused = as_agent(tainted, "any", removal)
    assert "token is not bound to a pod of a node may not change the node any" in refused
    assert taints(tainted, "any") == [KEY, GPU["key"]]
    for verb in ("list", "watch", "create", "update", "delete"):
        may = tainted.cluster.kubectl("auth", "can-i", verb, "nodes", f"--as={AGENT.name}")
        assert may.stdout.strip() == "no", verb
    may = tainted.cluster.kubectl(
        "auth", "can-i", "patch", "nodes", "--subresource=status", f"--as={AGENT.name}"
    )
    assert may.stdout.strip() == "no"


def test_the_policy_names_every_field_of_a_nodes_spec(tainted: World) -> None:
    schemas = tainted.api.request("GET", "/openapi/v3/api/v1")["components"]["schemas"]
    fields = set(schemas["io.k8s.api.core.v1.NodeSpec"]["properties"])
    text = (COMPONENT / "policy.yaml").read_text()
    assert fields
    assert {field for field in fields if f"object.spec.?{field}" not in text} == set()
