"""Groups with less room than their models take: who is refused, who goes, who comes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deploy.kube.kinds import CACHES, CLAIMS
from tests.e2e.world import GRACE_SECONDS, World

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject

MIB = 1 << 20
NODE = "node-1"
LRU = {"policy": "LRU", "highPercent": 100, "lowPercent": 100}


def _model(world: World, name: str, mib: int) -> str:
    return world.http.put(f"{name}.bin", name.encode().ljust(mib * MIB, b"."))


def _pod(world: World, name: str, cache: str, group: str) -> None:
    """A pod on the node that nobody runs, in the namespace that is called as the group."""
    claim = {"claimName": f"{cache}-{group}"}
    mount = {"name": "model", "mountPath": "/mnt/models"}
    world.make(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": group},
            "spec": {
                "nodeName": NODE,
                "automountServiceAccountToken": False,
                "containers": [{"name": "server", "image": "server", "volumeMounts": [mount]}],
                "volumes": [{"name": "model", "persistentVolumeClaim": claim}],
            },
        }
    )


def _end(world: World, namespace: str, *pods: str) -> None:
    world.kubectl("delete", "pod", "-n", namespace, *pods, "--force")


def _wait_state(world: World, uri: str, state: str, reason: str) -> KubeObject:
    def is_so() -> KubeObject:
        found = world.report(NODE, uri)
        return found if (found.get("state"), found.get("reason")) == (state, reason) else {}

    return world.until(is_so, f"{uri} to be {state} because of {reason} on {NODE}")


def test_a_group_that_does_not_evict_takes_the_second_when_the_first_is_gone(world: World) -> None:
    first, second = _model(world, "capnone-a", 2), _model(world, "capnone-b", 2)
    world.node(NODE, "capnone")
    world.group("capnone", storageLimit="3Mi", eviction={"policy": "None"})
    world.cache("capnone-a", first, "capnone", modelSize="2Mi")
    world.wait_ready("capnone-a", 1)
    world.cache("capnone-b", second, "capnone", modelSize="2Mi")
    refused = world.wait_condition("capnone-b", "StorageLimitExceeded", kind="Admitted")
    assert refused["status"] == "False"
    assert "1Mi are missing" in refused["message"]
    assert not world.published(NODE, second)
    assert world.published(NODE, first)

    world.remove_caches("capnone-a")
    world.wait_ready("capnone-b", 1)
    world.wait_condition("capnone-b", "Placed", kind="Admitted")
    world.remove_caches("capnone-b")


def test_the_least_recently_used_goes_and_comes_back_for_a_pod(world: World) -> None:
    group = "caplru"
    used, idle, late = (_model(world, f"caplru-{name}", 1) for name in "abc")
    world.node(NODE, group)
    world.namespace(group, caplru="yes")
    world.group(group, storageLimit="2560Ki", eviction=LRU)
    spec = {"modelSize": "1Mi", "namespaceSelector": {"matchLabels": {"caplru": "yes"}}}
    # What a pod uses is the older one: without the pod, it would go.
    world.cache("caplru-a", used, group, **spec)
    world.wait_ready("caplru-a", 1)
    world.until(lambda: world.find(CLAIMS, f"caplru-a-{group}", group), "the claim")
    _pod(world, "uses-a", "caplru-a", group)
    world.cache("caplru-b", idle, group, **spec)
    world.wait_ready("caplru-b", 1)
    world.until(lambda: world.report(NODE, used).get("lastUsedTime"), "the use to be noted")
    before = world.identity(NODE, used)

    world.cache("caplru-c", late, group, **spec)
    world.wait_ready("caplru-c", 1)
    gone = _wait_state(world, idle, "Evicted", "MadeRoom")
    assert "to make room for caplru-c; never used" in gone["message"]
    assert not world.published(NODE, idle)
    assert world.wait_condition("caplru-b", "Evicted")["status"] == "False"

    # A pod refers to it: the one that nothing refers to goes for it.
    _pod(world, "uses-b", "caplru-b", group)
    world.wait_ready("caplru-b", 1)
    _wait_state(world, late, "Evicted", "MadeRoom")
    assert world.identity(NODE, used) == before

    # Its cache is deleted, and waits for the claim, which waits for the pod.
    world.delete(CACHES, "caplru-a")
    world.wait_condition("caplru-a", "Deleting")
    time.sleep(GRACE_SECONDS + 2)
    assert world.identity(NODE, used) == before
    assert world.find(CACHES, "caplru-a")
    _end(world, group, "uses-a", "uses-b")
    world.remove_caches("caplru-a", "caplru-b", "caplru-c")
    world.until(lambda: not world.published(NODE, used), "its files to go")


def test_a_model_larger_than_declared_waits_for_room(world: World) -> None:
    pinned, large = _model(world, "caplarge-a", 1), _model(world, "caplarge-b", 2)
    world.node(NODE, "caplarge")
    world.group("caplarge", storageLimit="2560Ki", eviction=LRU)
    world.cache("caplarge-a", pinned, "caplarge", modelSize="1Mi", retention="Pinned")
    world.wait_ready("caplarge-a", 1)
    world.cache("caplarge-b", large, "caplarge", modelSize="100Ki")
    waiting = _wait_state(world, large, "Pending", "CapacityFull")
    assert "it needs 2Mi" in waiting["message"]
    assert "attempts" not in waiting
    assert not world.published(NODE, large)
    assert world.published(NODE, pinned)

    world.remove_caches("caplarge-a")
    world.wait_ready("caplarge-b", 1)
    world.wait_condition("caplarge-b", "LargerThanDeclared", kind="SizeAsDeclared")
    world.remove_caches("caplarge-b")
