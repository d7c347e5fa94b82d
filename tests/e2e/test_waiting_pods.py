"""Pods that wait for models: what they are told, whose model comes first, and how they start.

No kubelet runs here: the tests make the pods' statuses.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING

from crds.keys import model_key
from crds.naming import CACHED_AT_ANNOTATION
from deploy.kube.kinds import EVENTS, GROUPS, PODS
from tests.e2e.world import World, an_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.kube.kinds import KubeObject

MIB = 1 << 20
NODE = "node-1"
# The clocks of files and annotations have whole seconds.
WAKE_SECONDS = 1 + 1


def _model(world: World, name: str, mib: int) -> str:
    return world.http.put(f"{name}.bin", name.encode().ljust(mib * MIB, b"."))


def _pod(
    world: World, namespace: str, name: str, claim: str, uri: str = "", *, node: str = NODE
) -> None:
    """A pod on a node that mounts a claim, by the sub-path of a model if its URI is named."""
    mount = {"name": "model", "mountPath": "/mnt/models"}
    sub_path = {"subPath": f"models/{model_key(uri)}"} if uri else {}
    server = {"name": "server", "image": "server", "volumeMounts": [mount | sub_path]}
    source = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    spec = {
        "nodeName": node,
        "automountServiceAccountToken": False,
        "containers": [server],
        "volumes": [{"name": "model"} | source],
    }
    world.make(an_object(PODS, name, namespace, spec=spec))


def _report(world: World, namespace: str, pod: str, **state: object) -> None:
    """What kubelet would report of the pod's container."""
    status = {"containerStatuses": [_container(state)], "phase": "Pending"}
    world.api.patch(PODS, pod, {"status": status}, namespace, subresource="status")


def _container(state: dict[str, object]) -> KubeObject:
    image = {"name": "server", "image": "server", "imageID": ""}
    return image | {"ready": False, "restartCount": 0, "state": state}


def _told(world: World, namespace: str, pod: str) -> Iterator[KubeObject]:
    """The Events about a pod, the first one first."""
    events = [e for e in world.api.list(EVENTS, namespace) if e["involvedObject"]["name"] == pod]
    for event in sorted(events, key=lambda event: str(event["firstTimestamp"])):
        assert event["involvedObject"]["uid"]
        yield event


def _wait_told(world: World, namespace: str, pod: str, reason: str, text: str) -> KubeObject:
    def found() -> KubeObject | None:
        events = _told(world, namespace, pod)
        return next((e for e in events if e["reason"] == reason and text in e["message"]), None)

    told = world.until(found, f"the Event {reason} with {text!r} about {namespace}/{pod}")
    assert told is not None
    return told


def _annotation(world: World, namespace: str, pod: str) -> str:
    found = world.find(PODS, pod, namespace) or {"metadata": {}}
    return str(found["metadata"].get("annotations", {}).get(CACHED_AT_ANNOTATION, ""))


def _wait_woken(world: World, namespace: str, pod: str, uri: str) -> None:
    """Wait until the pod is annotated, which must be just after the publication of its model."""
    cached_at = world.until(lambda: _annotation(world, namespace, pod), f"{pod} to be annotated")
    root: Path = world.cluster.nodes_dir / NODE
    usage = json.loads((root / ".localmodel" / model_key(uri) / "usage.json").read_text())
    published, woken = (datetime.fromisoformat(t) for t in (usage["publishedTime"], cached_at))
    assert 0 <= (woken - published).total_seconds() <= WAKE_SECONDS


def _end(world: World, namespace: str, *pods: str) -> None:
    world.kubectl("delete", "pod", "-n", namespace, *pods, "--force")


def test_a_waiting_pods_model_is_first_and_the_pod_is_told_how_far_it_is(world: World) -> None:
    group = "waitfirst"
    slow = [_model(world, f"{group}-{name}", 3) for name in "abc"]
    wanted = _model(world, f"{group}-z", 3)
    world.node(NODE, group)
    world.namespace(group)
    world.group(group)
    world.http.bytes_per_second = 3 * MIB / 8
    try:
        for name, uri in zip("abc", slow, strict=True):
            world.cache(f"{group}-{name}", uri, group, priority=9)
        world.cache(f"{group}-z", wanted, group)
        world.until(
            lambda: world.report(NODE, wanted).get("reason") == "AwaitingPlace",
            "the last model to wait for a place",
        )
        _pod(world, group, "server", f"{group}-z-{group}", wanted)
        world.until(
            lambda: world.report(NODE, wanted).get("state") == "Downloading",
            "the model of the waiting pod to be downloaded",
        )
        # The third of the others still waits, and the two that ran go on.
        states = [world.report(NODE, uri).get("reason") for uri in slow]
        assert states.count("AwaitingPlace") == 1
        _wait_told(world, group, "server", "WaitingForModel", f"{group}-z: downloading: ")
        world.until(lambda: world.report(NODE, wanted).get("pods") == 1, "the pod to be counted")
        assert _annotation(world, group, "server") == ""
    finally:
        world.http.bytes_per_second = 0.0
    world.until(lambda: world.published(NODE, wanted), "the model to be published")
    _wait_woken(world, group, "server", wanted)
    _wait_told(world, group, "server", "ModelCached", f"{group}-z: it is on this node now (3Mi)")
    told = [event for event in _told(world, group, "server") if "of 3Mi" in event["message"]]
    assert len(told) == 1
    _end(world, group, "server")
    world.remove_caches(*(f"{group}-{name}" for name in "abcz"))


def test_an_evicted_model_comes_back_for_a_pod_that_never_started(world: World) -> None:
    group = "waitback"
    first, second = (_model(world, f"{group}-{name}", 1) for name in "ab")
    world.node(NODE, group)
    world.namespace(group)
    full = {"policy": "LRU", "highPercent": 100, "lowPercent": 100}
    world.group(group, storageLimit="1536Ki", eviction=full)
    world.cache(f"{group}-a", first, group, modelSize="1Mi")
    world.wait_ready(f"{group}-a", 1)
    world.cache(f"{group}-b", second, group, modelSize="1Mi")
    world.wait_ready(f"{group}-b", 1)
    world.until(
        lambda: world.report(NODE, first).get("state") == "Evicted", "the first to be evicted"
    )
    world.http.bytes_per_second = MIB / 2
    try:
        # By the claim alone, whose volume leads to all models.
        _pod(world, group, "server", f"{group}-a-{group}")
        _wait_told(world, group, "server", "WaitingForModel", "it was evicted, and comes back for")
    finally:
        world.http.bytes_per_second = 0.0
    world.until(lambda: world.published(NODE, first), "the evicted model to come back")
    _wait_woken(world, group, "server", first)
    _end(world, group, "server")
    world.remove_caches(f"{group}-a", f"{group}-b")


def test_a_waiting_pods_node_does_not_wait_for_its_turn(world: World) -> None:
    group = "waitturn"
    nodes = ("node-1", "node-2", "node-3")
    uri = _model(world, group, 3)
    for node in nodes:
        world.node(node, group)
    world.namespace(group)
    world.group(group, download={"maxConcurrentNodes": 1})
    world.wait_condition(group, "NodesFound", resource=GROUPS)
    world.http.bytes_per_second = 3 * MIB / 20

    def waiting() -> list[str]:
        reasons = {node: world.report(node, uri).get("reason") for node in nodes}
        found = [node for node, reason in reasons.items() if reason == "AwaitingTurn"]
        return found if len(found) == 2 else []

    try:
        world.cache(group, uri, group)
        node = world.until(waiting, "two nodes to wait for their turn")[0]
        _pod(world, group, "server", f"{group}-{group}", uri, node=node)
        world.until(
            lambda: world.report(node, uri).get("state") == "Downloading",
            "the node of the waiting pod to begin",
        )
        assert len([one for one in nodes if world.report(one, uri).get("reason")]) == 1
    finally:
        world.http.bytes_per_second = 0.0
    world.wait_ready(group, 3)
    world.until(lambda: _annotation(world, group, "server"), "the pod to be annotated")
    _end(world, group, "server")
    world.remove_caches(group)


def test_only_a_pod_that_has_missed_its_model_is_annotated(world: World) -> None:
    group = "waitmissed"
    uri = _model(world, group, 1)
    world.node(NODE, group)
    world.namespace(group)
    world.namespace(f"{group}-other")
    world.group(group)
    world.cache(group, uri, group)
    world.wait_ready(group, 1)
    for name in ("missed", "new", "runs"):
        _pod(world, group, name, f"{group}-{group}", uri)
    world.until(lambda: world.report(NODE, uri).get("pods") == 3, "the pods to be counted")
    _report(world, group, "runs", running={"startedAt": "2026-08-01T12:00:00Z"})
    _report(world, group, "missed", waiting={"reason": "CreateContainerConfigError"})
    world.until(lambda: _annotation(world, group, "missed"), "the pod to be annotated")
    # Kubelet's next report changes nothing.
    first = _annotation(world, group, "missed")
    _report(world, group, "missed", waiting={"reason": "ContainerCreating"})
    _report(world, group, "missed", waiting={"reason": "CreateContainerConfigError"})
    time.sleep(2)
    assert _annotation(world, group, "missed") == first
    assert _annotation(world, group, "new") == ""
    assert _annotation(world, group, "runs") == ""
    assert list(_told(world, group, "new")) == []
    _end(world, group, "missed", "new", "runs")
    world.until(lambda: "pods" not in world.report(NODE, uri), "no pod to be counted")
    world.remove_caches(group)
