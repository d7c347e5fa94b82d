"""`kubectl localmodel evict`, `verify`, `pin` and `unpin`, carried out by real agents."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from crds.keys import model_key
from crds.node_requests import Operation, request_annotation
from deploy.kube import meta
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NAMESPACES,
    PODS,
)
from deploy.kubectl.main import plugin
from tests.e2e.world import RETURN_SECONDS, World, an_object

if TYPE_CHECKING:
    from click.testing import Result

    from deploy.kube.kinds import KubeObject

NODE = "node-1"
LRU = {"policy": "LRU"}


def run(world: World, *arguments: str) -> Result:
    given = ["--kubeconfig", str(world.cluster.kubeconfig), *arguments]
    return CliRunner().invoke(plugin, given, catch_exceptions=False)


def succeed(world: World, *arguments: str) -> str:
    done = run(world, *arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def model(world: World, name: str, group: str, **spec: Any) -> str:
    uri = world.http.put(f"{name}.bin", name.encode() * 50_000)
    world.cache(name, uri, group, modelSize="1Mi", **spec)
    return uri


def annotation(world: World, operation: Operation, uri: str) -> str | None:
    node = world.find(LOCAL_MODEL_NODES, NODE) or {}
    return meta.annotations_of(node).get(request_annotation(operation, model_key(uri)))


def wait_state(world: World, uri: str, state: str, reason: str | None = None) -> KubeObject:
    def is_so() -> KubeObject:
        found = world.report(NODE, uri)
        return found if (found.get("state"), found.get("reason")) == (state, reason) else {}

    return world.until(is_so, f"{uri} to be {state} because of {reason}")


def test_a_copy_is_evicted_by_request_and_the_annotation_stays(world: World) -> None:
    world.node(NODE, "kcevict")
    world.group("kcevict", eviction=LRU)
    uri = model(world, "kcevict-a", "kcevict")
    # The first cache of a cluster: Metacontroller backs off while its informers begin.
    world.wait_ready("kcevict-a", 1, RETURN_SECONDS)

    told = json.loads(succeed(world, "evict", "kcevict-a", NODE, "--dry-run", "-o", "json"))
    assert (told["models"], told["hindrance"], told["returns"]) == (["kcevict-a"], "", False)
    assert told["bytes"] >= 450_000
    text = succeed(world, "evict", "kcevict-a", NODE, "--dry-run")
    assert "is to be evicted (dry run)" in text
    assert "it stays away until a service, a workload or a pod refers to it" in text
    assert annotation(world, Operation.EVICT, uri) is None
    assert world.published(NODE, uri)

    assert succeed(world, "evict", "kcevict-a", NODE, "--wait").endswith("evicted\n")
    assert not world.published(NODE, uri)
    wait_state(world, uri, "Evicted", "Requested")
    assert world.wait_condition("kcevict-a", "Evicted")["status"] == "False"
    asked = annotation(world, Operation.EVICT, uri)
    assert asked

    # Metacontroller applies another list of models: the request is still there, and the copy away.
    model(world, "kcevict-b", "kcevict")
    world.wait_ready("kcevict-b", 1)
    assert annotation(world, Operation.EVICT, uri) == asked
    wait_state(world, uri, "Evicted", "Requested")
    gone = run(world, "evict", "kcevict-a", NODE)
    assert gone.exit_code == 1
    assert f"{NODE} has no copy of kcevict-a: it is Evicted there" in gone.output

    succeed(world, "evict", "kcevict-a", NODE, "--undo")
    assert annotation(world, Operation.EVICT, uri) is None
    wait_state(world, uri, "Downloaded")
    world.remove_caches("kcevict-a", "kcevict-b")


def test_pinned_and_mounted_copies_stay(world: World) -> None:
    group = "kcpin"
    world.node(NODE, group)
    world.namespace(group, kcpin="yes")
    world.group(group, eviction=LRU)
    selector = {"matchLabels": {"kcpin": "yes"}}
    uri = model(world, "kcpin-a", group, namespaceSelector=selector)
    world.wait_ready("kcpin-a", 1)

    assert succeed(world, "pin", "kcpin-a") == "kcpin-a is pinned: no node evicts it\n"
    cache = world.find(CACHES, "kcpin-a") or {}
    assert cache["spec"]["retention"] == "Pinned"
    managers = {entry["manager"] for entry in cache["metadata"]["managedFields"]}
    assert "localmodel-kubectl" in managers
    world.until(
        lambda: "retention" in str(world.find(LOCAL_MODEL_NODES, NODE)), "the node to know it"
    )
    assert "retention: Pinned" in succeed(world, "evict", "kcpin-a", NODE, "--dry-run")
    late = run(world, "evict", "kcpin-a", NODE, "--wait", "--timeout", "5")
    assert late.exit_code == 3
    assert "and waits: a cache of the model has retention: Pinned" in late.output
    wait_state(world, uri, "Downloaded", "EvictionRequested")

    # A pod that mounts its claim keeps the copy, too.
    world.until(lambda: world.find(CLAIMS, f"kcpin-a-{group}", group), "the claim")
    world.make(_pod(group, "server", f"kcpin-a-{group}"))
    world.until(lambda: world.report(NODE, uri).get("pods"), "the pod to count")
    succeed(world, "unpin", "kcpin-a")
    told = json.loads(succeed(world, "evict", "kcpin-a", NODE, "--dry-run", "-o", "json"))
    assert told["podNames"] == [f"{group}/server"]
    # Once the pod has ended, nothing refers to the model.
    assert (told["pods"], told["returns"]) == (1, False)
    found = wait_state(world, uri, "Downloaded", "EvictionRequested")
    world.until(
        lambda: "the pod kcpin/server uses it" in world.report(NODE, uri).get("message", ""),
        f"the pod to be named: {found['message']}",
    )
    world.api.delete(PODS, "server", group, grace_seconds=0)
    wait_state(world, uri, "Evicted", "Requested")
    world.remove_caches("kcpin-a")


def test_another_field_manager_keeps_its_retention(world: World) -> None:
    world.group("kcown")
    world.namespace("kcown")
    cache = an_object(NAMESPACE_CACHES, "kcown-a", "kcown")
    uri = world.http.put("kcown-a.bin", b"x")
    spec = {"sourceModelUri": uri, "modelSize": "1Mi", "nodeGroup": "kcown"}
    world.make({**cache, "spec": {**spec, "retention": "Evictable"}})
    refused = run(world, "pin", "kcown-a", "-n", "kcown")
    assert refused.exit_code == 1
    assert 'conflict with "test": .spec.retention' in refused.output
    assert "take the field over with --force" in refused.output
    denied = run(world, "pin", "kcown/kcown-a", "--force")
    assert denied.exit_code == 1
    assert "localmodel-namespace-importance" in denied.output
    allowed = {"serving.kserve.io/localmodel-may-pin": "true"}
    world.api.patch(NAMESPACES, "kcown", {"metadata": {"annotations": allowed}})
    succeed(world, "pin", "kcown/kcown-a", "--force")
    found = world.find(NAMESPACE_CACHES, "kcown-a", "kcown") or {}
    assert found["spec"] == {**spec, "retention": "Pinned"}
    unknown = run(world, "pin", "kcown-b", "-n", "kcown")
    assert unknown.exit_code == 1
    assert "kcown-b" in unknown.output
    world.delete(NAMESPACE_CACHES, "kcown-a", "kcown")


def test_a_copy_is_verified_and_repaired_by_request(world: World) -> None:
    world.node(NODE, "kcverify")
    world.group("kcverify")
    uri = model(world, "kcverify-a", "kcverify")
    world.wait_ready("kcverify-a", 1)
    before = world.report(NODE, uri)["verifiedTime"]
    assert succeed(world, "verify", "kcverify-a", "--wait") == f"{NODE}: verified\n"
    assert world.report(NODE, uri)["verifiedTime"] > before

    (file,) = (path for path in world.copy(NODE, uri).rglob("*") if path.is_file())
    content, was = bytearray(file.read_bytes()), file.stat()
    content[7] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    told = json.loads(succeed(world, "verify", "kcverify-a", NODE, "--wait", "-o", "json"))
    assert [(one["node"], one["done"]) for one in told] == [(NODE, True)]

    def is_whole() -> bool:
        files = [path for path in world.copy(NODE, uri).rglob("*") if path.is_file()]
        return [path.read_bytes() for path in files] == [b"kcverify-a" * 50_000]

    world.until(is_whole, "the copy to be repaired")
    world.remove_caches("kcverify-a")


def _pod(namespace: str, name: str, claim: str) -> KubeObject:
    mount = {"name": "model", "mountPath": "/mnt/models"}
    spec = {
        "nodeName": NODE,
        "automountServiceAccountToken": False,
        "containers": [{"name": "server", "image": "server", "volumeMounts": [mount]}],
        "volumes": [{"name": "model", "persistentVolumeClaim": {"claimName": claim}}],
    }
    return an_object(PODS, name, namespace, spec=spec)
