"""Absence is not a wish: what is missing for a while deletes no model; what is asked for does."""

from __future__ import annotations

import time

from deploy.kube.kinds import CACHES, CRDS, GROUPS, LOCAL_MODEL_NODES, NODES, PLACEMENTS, Kind
from deploy.kube.raw_client import STRATEGIC_PATCH
from tests.e2e.world import (
    GRACE_SECONDS,
    LABEL_GONE_SECONDS,
    OBJECT_GONE_SECONDS,
    RETURN_SECONDS,
    World,
)


def _setup(world: World, name: str, *nodes: str) -> str:
    uri = world.http.put(f"{name}.bin", name.encode() * 100)
    for node in nodes:
        world.node(node, name)
    world.group(name)
    world.cache(name, uri, name)
    world.wait_ready(name, len(nodes))
    return uri


def _away(world: World, kind: Kind, seconds: float) -> None:
    """Delete a CRD, with all its objects, and create it again after a while."""
    crd = f"{kind.plural}.serving.kserve.io"
    manifest = world.api.get(CRDS, crd)
    world.delete(CRDS, crd)
    world.until(lambda: not world.find(CRDS, crd), f"{crd} to be gone")
    time.sleep(seconds)
    world.make(
        {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "metadata": {"name": crd, "labels": manifest["metadata"]["labels"]},
            "spec": manifest["spec"],
        }
    )


def test_a_plan_that_is_deleted_by_hand(world: World) -> None:
    uri = _setup(world, "plan-gone", "node-1")
    before = world.identity("node-1", uri)
    uid = world.api.get(PLACEMENTS, "plan-gone")["metadata"]["uid"]
    world.delete(PLACEMENTS, "plan-gone")

    def back() -> bool:
        plan = world.find(PLACEMENTS, "plan-gone")
        return plan is not None and plan["metadata"]["uid"] != uid

    world.until(back, "the plan to be made again")
    time.sleep(GRACE_SECONDS + 2)
    world.wait_ready("plan-gone", 1)
    assert world.identity("node-1", uri) == before
    world.remove_caches("plan-gone")


def test_the_crd_of_plans_is_away_for_a_while(world: World) -> None:
    uri = _setup(world, "plans-gone", "node-1", "node-2")
    before = {node: world.identity(node, uri) for node in ("node-1", "node-2")}
    _away(world, PLACEMENTS, OBJECT_GONE_SECONDS)
    world.until(lambda: world.find(PLACEMENTS, "plans-gone"), "the plan to be back", RETURN_SECONDS)
    time.sleep(GRACE_SECONDS + 2)
    assert {node: world.identity(node, uri) for node in before} == before
    # And plans work again.
    later = world.http.put("plans-later.bin", b"later")
    world.cache("plans-later", later, "plans-gone")
    world.until(
        lambda: all(world.published(node, later) for node in before),
        "a new model to arrive",
        RETURN_SECONDS,
    )
    world.remove_caches("plans-gone", "plans-later")


def test_the_crd_of_localmodelnodes_is_away_for_a_while(world: World) -> None:
    uri = _setup(world, "nodes-gone", "node-1", "node-2")
    before = {node: world.identity(node, uri) for node in ("node-1", "node-2")}
    gets = world.http.gets("nodes-gone.bin")
    _away(world, LOCAL_MODEL_NODES, OBJECT_GONE_SECONDS)
    world.until(
        lambda: all(world.report(node, uri).get("cached") for node in before),
        "the agents to report again",
        RETURN_SECONDS,
    )
    time.sleep(GRACE_SECONDS + 2)
    world.wait_ready("nodes-gone", 2)
    assert {node: world.identity(node, uri) for node in before} == before
    assert world.http.gets("nodes-gone.bin") == gets
    world.remove_caches("nodes-gone")


def test_a_node_that_loses_its_label_for_a_moment(world: World) -> None:
    uri = _setup(world, "flap", "node-1", "node-2")
    before = world.identity("node-1", uri)
    world.patch(NODES, "node-1", {"metadata": {"labels": {"flap": None}}})
    world.until(lambda: not _listed(world, "node-1", "flap"), "the node to leave the group")
    time.sleep(LABEL_GONE_SECONDS)
    world.node("node-1", "flap")
    world.wait_ready("flap", 2)
    time.sleep(GRACE_SECONDS + 2)
    assert world.identity("node-1", uri) == before
    world.remove_caches("flap")


def test_a_node_that_leaves_its_group_for_good_is_cleaned_up(world: World) -> None:
    uri = _setup(world, "left", "node-1", "node-2")
    world.patch(NODES, "node-1", {"metadata": {"labels": {"left": None}}})
    world.until(
        lambda: not world.published("node-1", uri), "its disk to be free", GRACE_SECONDS + 30
    )
    cache = world.wait_ready("left", 1)
    assert set(cache["status"]["nodeStatus"]) == {"node-2"}
    assert world.published("node-2", uri)
    assert world.find(LOCAL_MODEL_NODES, "node-1")
    world.remove_caches("left")


def test_a_deleted_group_takes_its_models_with_it(world: World) -> None:
    uri = _setup(world, "doomed", "node-1", "node-2", "node-7")
    # One of its nodes is not Ready, and its agent is away: nothing waits for it.
    world.cluster.stop("agent-node-7")
    _set_ready(world, "node-7", "Unknown")
    world.wait_ready("doomed", 2)
    world.delete(GROUPS, "doomed")
    condition = world.wait_condition("doomed", "NodeGroupDeleting")
    assert "doomed is being deleted" in condition["message"]
    world.until(
        lambda: not world.find(GROUPS, "doomed"), "the group to be gone", GRACE_SECONDS + 60
    )
    assert not world.published("node-1", uri)
    assert not world.published("node-2", uri)
    assert world.published("node-7", uri)
    world.until(lambda: not world.find(PLACEMENTS, "doomed"), "its plan to go")
    assert world.find(CACHES, "doomed")
    world.wait_condition("doomed", "NodeGroupNotFound")

    # The node that was away cleans up when it is back.
    world.cluster.start("agent-node-7")
    _set_ready(world, "node-7", "True")
    world.until(
        lambda: not world.published("node-7", uri), "the last disk to be free", GRACE_SECONDS + 60
    )
    world.remove_caches("doomed")
    world.cluster.node_down("node-7")


def test_a_group_that_is_deleted_at_once_leaves_nothing_on_the_nodes(world: World) -> None:
    """Whatever moment of the making of its plan the deletion meets."""
    world.node("node-1", "brief")
    for attempt in range(5):
        uri = world.http.put(f"brief-{attempt}.bin", b"brief")
        world.group("brief")
        world.until(lambda: world.find(PLACEMENTS, "brief"), "the plan")
        world.cache("brief", uri, "brief")
        time.sleep(attempt * 0.03)
        world.delete(GROUPS, "brief")
        world.until(lambda: not world.find(GROUPS, "brief"), "the group to go")
        world.remove_caches("brief")
        world.until(lambda: not _listed(world, "node-1", "brief"), "the node to forget the group")


def _listed(world: World, node: str, group: str) -> list[str]:
    found = world.find(LOCAL_MODEL_NODES, node) or {"spec": {}}
    models = found["spec"].get("localModels", ())
    return [model["modelName"] for model in models if model["nodeGroup"] == group]


def test_a_group_label_taken_off_a_localmodelnode_comes_back(world: World) -> None:
    _setup(world, "relabel", "node-1")
    label = "nodegroup.serving.kserve.io/relabel"
    world.patch(LOCAL_MODEL_NODES, "node-1", {"metadata": {"labels": {label: None}}})

    def back() -> bool:
        metadata = world.api.get(LOCAL_MODEL_NODES, "node-1")["metadata"]
        return label in metadata.get("labels", {}) and not any(
            "restored" in name for name in metadata["annotations"]
        )

    world.until(back, "the label to be back", seconds=90)
    world.wait_ready("relabel", 1)
    world.remove_caches("relabel")


def test_a_node_that_is_not_ready_counts_as_such(world: World) -> None:
    _setup(world, "unready", "node-1", "node-8")
    _set_ready(world, "node-8", "False")
    cache = world.wait_ready("unready", 1)
    assert cache["status"]["nodeStatus"] == {"node-1": "NodeDownloaded", "node-8": "NodeNotReady"}
    assert "not Ready: node-8" in world.condition(CACHES, "unready")["message"]
    _set_ready(world, "node-8", "True")
    world.wait_ready("unready", 2)
    world.cluster.node_down("node-8")
    world.remove_caches("unready")


def _set_ready(world: World, node: str, status: str) -> None:
    conditions = [{"type": "Ready", "status": status, "reason": "Test", "message": "test"}]
    world.api.request(
        "PATCH",
        NODES.path(node, subresource="status"),
        body={"status": {"conditions": conditions}},
        content_type=STRATEGIC_PATCH,
    )
