"""What happens to a pod that mounts a model, in each state: the rows of docs/pod-states.md."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import requests

from crds.keys import model_key
from crds.naming import CACHED_AT_ANNOTATION
from deploy.kube.errors import ApiError
from deploy.kube.kinds import CACHES, CLAIMS, DEPLOYMENTS, NODES, PODS
from deploy.local.real.nodes import LABEL
from deploy.local.real.pods import MOUNT_PATH, first_line, lines, pod
from tests.e2e.origin import HttpOrigin
from tests.e2e.real import (
    MIB,
    NODE,
    OTHER_NODE,
    START_SECONDS,
    XDIST_GROUP,
    add,
    events,
    offer,
    offer_group,
    offer_uri,
    release,
    remove,
    remove_pods,
    run,
    slow,
    wait_blocked,
    wait_event,
    wait_line_after,
)
from tests.e2e.world import RETURN_SECONDS, World

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

# Of a cold pod: from the publication of its model to the start of its container.
COLD_SECONDS = 5.0
# Of one model of a MiB, and a half: a second model needs the room of the first.
ROOM_FOR_ONE = {
    "storageLimit": "1536Ki",
    "eviction": {"policy": "LRU", "highPercent": 100, "lowPercent": 100},
}
# Kubelet doubles its wait after each failed mount of a volume, up to two minutes.
MOUNT_RETRY_SECONDS = 150.0


def _exec(world: World, namespace: str, name: str, *command: str) -> str:
    return world.kubectl("-n", namespace, "exec", name, "--", *command)


def _end_container(world: World, namespace: str, name: str) -> None:
    """End a pod's container, which kubelet starts again. The command ends with it."""
    world.cluster.kubectl("-n", namespace, "exec", name, "--", "kill", "1")


def _cat(name: str) -> str:
    """A script that prints a model's only file, which is one line."""
    return f"cat {MOUNT_PATH}/{name}.bin; echo"


def _text(name: str, mib: int = 1) -> bytes:
    """A model whose only line is known."""
    return f"weights of {name}".encode().ljust(mib * MIB, b".")


def _started(world: World, namespace: str, name: str) -> str:
    """The first words of the line that a pod's container prints when it starts."""
    return first_line(world.api, name, namespace, seconds=START_SECONDS).text.rstrip(".")


def test_a_warm_pod_starts_at_once(real: World) -> None:
    uri = offer(real, "stwarm", _text("stwarm"), NODE)
    real.wait_ready("stwarm", 1)
    asked = len(real.http.requests)
    run(real, "stwarm", "model", uri, _cat("stwarm"), by_label=True)
    assert _started(real, "stwarm", "model") == "weights of stwarm"
    # It never waited, and nobody had to help.
    reasons = {event["reason"] for event in events(real, "stwarm", "model")}
    assert not reasons & {"Failed", "FailedMount", "WaitingForModel", "ModelCached"}
    found = real.api.get(PODS, "model", "stwarm")
    assert CACHED_AT_ANNOTATION not in found["metadata"].get("annotations", {})
    assert len(real.http.requests) == asked
    remove(real, "stwarm", "model")


def test_a_cold_pod_says_why_it_waits_and_starts_after_the_publication(real: World) -> None:
    with slow(real):
        uri = offer(real, "stcold", _text("stcold", 4), NODE)
        run(real, "stcold", "model", uri, _cat("stcold"), by_label=True)
        wait_blocked(real, "stcold", "model")
        told = wait_event(real, "stcold", "model", "WaitingForModel", "stcold: downloading: ")
        assert told["type"] == "Normal"
        assert "of 4Mi" in told["message"]
        assert "%" in told["message"]
        # `kubectl get pod` shows why, and `kubectl describe pod` the Event.
        shown = real.kubectl("-n", "stcold", "get", "pod", "model")
        assert "CreateContainerConfigError" in shown
        assert "WaitingForModel" in real.kubectl("-n", "stcold", "describe", "pod", "model")
        published = release(real, NODE, uri)
    line = first_line(real.api, "model", "stcold", seconds=START_SECONDS)
    assert line.text.startswith("weights of stcold")
    assert -1 <= line.at - published < COLD_SECONDS
    wait_event(real, "stcold", "model", "ModelCached", "stcold: it is on this node now (4Mi)")
    found = real.api.get(PODS, "model", "stcold")
    assert found["metadata"]["annotations"][CACHED_AT_ANNOTATION]
    remove(real, "stcold", "model")


def test_a_pod_brings_an_evicted_model_back(real: World) -> None:
    first = real.http.put("stevict.bin", _text("stevict"))
    second = real.http.put("stevict-b.bin", _text("stevict-b"))
    offer_group(real, "stevict", NODE, **ROOM_FOR_ONE)
    add(real, "stevict", "stevict", first, modelSize="1Mi")
    real.wait_ready("stevict", 1)
    add(real, "stevict", "stevict-b", second, modelSize="1Mi")
    real.wait_ready("stevict-b", 1)
    assert real.report(NODE, first)["state"] == "Evicted"
    with slow(real):
        run(real, "stevict", "model", first, _cat("stevict"), by_label=True)
        wait_blocked(real, "stevict", "model")
        returns = "stevict: it was evicted, and comes back for this pod"
        wait_event(real, "stevict", "model", "WaitingForModel", returns)
        published = release(real, NODE, first)
    line = first_line(real.api, "model", "stevict", seconds=START_SECONDS)
    assert line.text.startswith("weights of stevict")
    assert -1 <= line.at - published < COLD_SECONDS
    # The other model gave way.
    real.until(
        lambda: real.report(NODE, second).get("state") == "Evicted", "the other to be evicted"
    )
    remove_pods(real, "stevict", "model")
    real.remove_caches("stevict", "stevict-b")


def test_a_pod_waits_until_a_failed_download_succeeds(real: World) -> None:
    uri = real.http.url("stfailed.bin")
    offer_uri(real, "stfailed", uri, NODE)
    run(real, "stfailed", "model", uri, _cat("stfailed"))
    told = wait_event(real, "stfailed", "model", "WaitingForModel", "stfailed: failed: NotFound: ")
    assert told["type"] == "Warning"
    assert "the next try is at" in told["message"]
    wait_blocked(real, "stfailed", "model")
    # The retry after NotFound waits 5 seconds first, then twice as long each time.
    real.http.put("stfailed.bin", _text("stfailed"))
    assert _started(real, "stfailed", "model") == "weights of stfailed"
    wait_event(real, "stfailed", "model", "ModelCached")
    remove(real, "stfailed", "model")


def test_a_pod_keeps_the_copy_of_a_deleted_cache(real: World) -> None:
    uri = offer(real, "stgone", _text("stgone"), NODE)
    real.wait_ready("stgone", 1)
    run(real, "stgone", "model", uri, _cat("stgone"))
    begun = first_line(real.api, "model", "stgone", seconds=START_SECONDS)
    real.delete(CACHES, "stgone")
    told = real.wait_condition("stgone", "Deleting")
    assert "PersistentVolumeClaim stgone/stgone-stgone" in told["message"]
    # Kubernetes keeps the claim for the pod, and the claim keeps the cache and its copy.
    real.until(lambda: _is_going(real, "stgone-stgone", "stgone"), "the claim to be deleted")
    run(real, "stgone", "late", uri, _cat("stgone"))
    real.until(
        lambda: "is being deleted" in _unscheduled(real, "late", "stgone"),
        "the scheduler to refuse a new pod",
    )
    remove_pods(real, "stgone", "late")
    real.until(lambda: _is_refused(real, "stgone"), "a pod with the label to be refused")
    # The pod reads on, also after a new start of its container.
    _end_container(real, "stgone", "model")
    wait_line_after(real, "stgone", "model", begun.at)
    assert real.published(NODE, uri)
    remove(real, "stgone", "model")
    real.until(lambda: not real.published(NODE, uri), "the copy to go after the pod")
    folder = real.cluster.nodes_dir / NODE / "volumes" / model_key(uri)
    real.until(lambda: not folder.exists(), "the folder of the volume to go")


def _is_refused(world: World, name: str) -> bool:
    """Whether a new pod that asks by its label for the cache of its namespace's name is refused."""
    try:
        run(world, name, "refused", "", "", by_label=True)
    except ApiError as error:
        return f"there is no model {name} for pods of the namespace {name}" in str(error)
    remove_pods(world, name, "refused")
    return False


def _unscheduled(world: World, name: str, namespace: str) -> str:
    """Why the scheduler has found no node for a pod."""
    status = world.api.get(PODS, name, namespace).get("status", {})
    conditions = status.get("conditions") or ()
    return next((c["message"] for c in conditions if c.get("reason") == "Unschedulable"), "")


def _is_going(world: World, claim: str, namespace: str) -> bool:
    found = world.find(CLAIMS, claim, namespace) or {"metadata": {}}
    return bool(found["metadata"].get("deletionTimestamp"))


def test_a_container_that_restarts_finds_its_model_while_room_is_needed(real: World) -> None:
    first = real.http.put("stkept.bin", _text("stkept"))
    second = real.http.put("stkept-b.bin", _text("stkept-b"))
    offer_group(real, "stkept", NODE, **ROOM_FOR_ONE)
    add(real, "stkept", "stkept", first, modelSize="1Mi")
    real.wait_ready("stkept", 1)
    run(real, "stkept", "model", first, _cat("stkept"))
    begun = first_line(real.api, "model", "stkept", seconds=START_SECONDS)
    files = real.identity(NODE, first)
    add(real, "stkept", "stkept-b", second, modelSize="1Mi")

    def refused() -> bool:
        return real.report(NODE, second).get("reason") == "CapacityFull"

    real.until(refused, "the second model to find no room")
    _end_container(real, "stkept", "model")
    again = wait_line_after(real, "stkept", "model", begun.at)
    assert again.text.startswith("weights of stkept")

    def restarts() -> int:
        (status,) = real.api.get(PODS, "model", "stkept")["status"]["containerStatuses"]
        return int(status["restartCount"])

    # kubelet reports it a moment after the container's first line.
    real.until(lambda: restarts() == 1, "the restart to be reported")
    assert real.identity(NODE, first) == files
    assert refused()
    # Without the pod, the room is free.
    remove_pods(real, "stkept", "model")
    real.wait_ready("stkept-b", 1)
    assert not real.published(NODE, first)
    real.remove_caches("stkept", "stkept-b")


def test_a_pod_of_a_drained_node_waits_on_another_node(real: World) -> None:
    uri = offer(real, "stdrain", _text("stdrain", 4), NODE)
    real.wait_ready("stdrain", 1)
    _deploy(real, "stdrain", uri)
    (before,) = real.until(lambda: _pods_of(real, "stdrain"), "the pod of the Deployment")
    assert _started(real, "stdrain", before) == "weights of stdrain"
    with slow(real):
        real.node(OTHER_NODE, "stdrain")
        try:
            # By the API of evictions.
            real.kubectl(
                "drain", NODE, "--pod-selector=app=stdrain", "--ignore-daemonsets", "--timeout=60s"
            )
            (after,) = real.until(
                lambda: [name for name in _pods_of(real, "stdrain") if name != before],
                "another pod",
            )
            wait_blocked(real, "stdrain", after)
            wait_event(real, "stdrain", after, "WaitingForModel", "stdrain: downloading: ")
            assert real.api.get(PODS, after, "stdrain")["spec"]["nodeName"] == OTHER_NODE
            published = release(real, OTHER_NODE, uri)
        finally:
            real.kubectl("uncordon", NODE)
    line = first_line(real.api, after, "stdrain", seconds=START_SECONDS)
    assert line.text.startswith("weights of stdrain")
    assert -1 <= line.at - published < COLD_SECONDS
    real.delete(DEPLOYMENTS, "stdrain", "stdrain")
    remove(real, "stdrain", after)


def _deploy(world: World, name: str, uri: str) -> None:
    """Make a Deployment with one pod, for any node that may have the model."""
    template = pod(
        name,
        name,
        _cat(name),
        claim=f"{name}-{name}",
        sub_path=f"models/{model_key(uri)}",
    )
    labels = {"app": name}
    world.api.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
            },
        }
    )


def _pods_of(world: World, name: str) -> list[str]:
    return [one["metadata"]["name"] for one in world.api.list(PODS, name, labels=f"app={name}")]


@contextmanager
def _without_agent(world: World) -> Iterator[None]:
    """Let the DaemonSet have no pod on the node, until the end."""
    labels = "app.kubernetes.io/name=localmodel-agent"

    def agents() -> list[str]:
        found = world.api.list(PODS, "localmodel", labels=labels)
        return [one["metadata"]["name"] for one in found if one["spec"].get("nodeName") == NODE]

    world.patch(NODES, NODE, {"metadata": {"labels": dict.fromkeys(LABEL)}})
    try:
        world.until(lambda: not agents(), "the agent to be gone")
        yield
    finally:
        world.patch(NODES, NODE, {"metadata": {"labels": LABEL}})
    world.until(agents, "a new agent")


def test_pods_without_an_agent(real: World) -> None:
    warm = offer(real, "stnoagent", _text("stnoagent"), NODE)
    real.wait_ready("stnoagent", 1)
    begun, late = (
        real.http.put(f"stnoagent-{name}.bin", _text(f"stnoagent-{name}", 4))
        for name in ("begun", "late")
    )
    with slow(real):
        add(real, "stnoagent", "stnoagent-begun", begun)
        real.until(
            lambda: real.report(NODE, begun).get("state") == "Downloading", "the download to begin"
        )
        with _without_agent(real):
            add(real, "stnoagent", "stnoagent-late", late)
            run(real, "stnoagent", "warm", warm, _cat("stnoagent"))
            assert _started(real, "stnoagent", "warm") == "weights of stnoagent"
            for name, uri in (("begun", begun), ("late", late)):
                cache = f"stnoagent-{name}"
                run(real, "stnoagent", name, uri, _cat(cache), cache=cache)
            wait_blocked(real, "stnoagent", "begun")
            # Nobody has made the folder of this volume.
            wait_event(real, "stnoagent", "late", "FailedMount", "does not exist")
        real.http.bytes_per_second = 0
        for name in ("begun", "late"):
            line = first_line(real.api, name, "stnoagent", seconds=MOUNT_RETRY_SECONDS)
            assert line.text.startswith(f"weights of stnoagent-{name}")
    remove_pods(real, "stnoagent", "warm", "begun", "late")
    real.remove_caches("stnoagent", "stnoagent-begun", "stnoagent-late")


def test_pods_without_hooks_and_metacontroller(real: World) -> None:
    with slow(real):
        uri = offer(real, "stnohooks", _text("stnohooks", 4), NODE)
        real.until(
            lambda: real.report(NODE, uri).get("state") == "Downloading", "the download to begin"
        )
        real.cluster.stop("hooks")
        real.cluster.stop("metacontroller")
        try:
            run(real, "stnohooks", "cold", uri, _cat("stnohooks"), by_label=True)
            wait_blocked(real, "stnohooks", "cold")
            wait_event(real, "stnohooks", "cold", "WaitingForModel", "stnohooks: downloading: ")
            published = release(real, NODE, uri)
            line = first_line(real.api, "cold", "stnohooks", seconds=START_SECONDS)
            assert -1 <= line.at - published < COLD_SECONDS
            run(real, "stnohooks", "warm", uri, _cat("stnohooks"), by_label=True)
            assert _started(real, "stnohooks", "warm") == "weights of stnohooks"
        finally:
            # In this order: after failed calls, Metacontroller waits longer and longer.
            real.cluster.start("hooks")
            real.until(lambda: _answers(f"{real.cluster.hooks_url}/readyz"), "the hooks")
            real.cluster.start("metacontroller")
    real.wait_ready("stnohooks", 1, RETURN_SECONDS)
    remove(real, "stnohooks", "cold", "warm")


def _answers(url: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(url, timeout=5).ok
    return False


def test_pods_without_the_origin(real: World) -> None:
    origin = HttpOrigin()
    warm, cold = (origin.put(f"{name}.bin", _text(name)) for name in ("stnoorigin", "stnever"))
    try:
        offer_uri(real, "stnoorigin", warm, NODE)
        real.wait_ready("stnoorigin", 1)
    finally:
        origin.close()
    run(real, "stnoorigin", "warm", warm, _cat("stnoorigin"))
    assert _started(real, "stnoorigin", "warm") == "weights of stnoorigin"
    add(real, "stnoorigin", "stnever", cold)
    run(real, "stnoorigin", "cold", cold, _cat("stnever"), cache="stnever")
    failed = "stnever: failed: Unreachable: "
    told = wait_event(real, "stnoorigin", "cold", "WaitingForModel", failed)
    assert told["type"] == "Warning"
    assert lines(real.api, "cold", "stnoorigin") == []
    remove_pods(real, "stnoorigin", "warm", "cold")
    real.remove_caches("stnoorigin", "stnever")


def test_a_pod_sees_its_own_model_only(real: World) -> None:
    """Two models on a node: each pod sees one, by its sub-path and by the whole claim."""
    first, second = (
        real.http.put(f"stalone-{name}.bin", _text(f"stalone-{name}")) for name in "ab"
    )
    offer_group(real, "stalone", NODE)
    for name, uri in (("a", first), ("b", second)):
        add(real, "stalone", f"stalone-{name}", uri)
        real.wait_ready(f"stalone-{name}", 1)
    for name, uri in (("a", first), ("b", second)):
        cache, key = f"stalone-{name}", model_key(uri)
        run(real, "stalone", name, uri, "echo started", cache=cache)
        _started(real, "stalone", name)
        mounted = _exec(real, "stalone", name, "ls", "-A", MOUNT_PATH).split()
        assert mounted == [f"{cache}.bin"]
        # Above a mount are the container's own folders.
        beside = _exec(real, "stalone", name, "ls", "-A", f"{MOUNT_PATH}/..").split()
        assert beside == ["models"]

        # The whole claim, as a curious tenant mounts it.
        whole = pod(f"whole-{name}", "stalone", node=NODE, claim=f"{cache}-stalone")
        real.api.create(whole)
        _started(real, "stalone", f"whole-{name}")
        found = _exec(real, "stalone", f"whole-{name}", "find", MOUNT_PATH).split()
        folder = f"{MOUNT_PATH}/models"
        assert sorted(found) == [
            MOUNT_PATH,
            folder,
            f"{folder}/{key}",
            f"{folder}/{key}/{cache}.bin",
        ]
        # No file of the other model, by any path of the container.
        search = "find / -path /proc -prune -o -path /sys -prune -o -name '*.bin' -print"
        everywhere = _exec(real, "stalone", f"whole-{name}", "sh", "-c", search).split()
        assert everywhere == [f"{folder}/{key}/{cache}.bin"]

    # The other model's sub-path does not exist in this claim.
    run(real, "stalone", "thief", second, "echo started", cache="stalone-a")
    wait_blocked(real, "stalone", "thief")
    assert lines(real.api, "thief", "stalone") == []
    remove_pods(real, "stalone", "a", "b", "whole-a", "whole-b", "thief")
    real.remove_caches("stalone-a", "stalone-b")
