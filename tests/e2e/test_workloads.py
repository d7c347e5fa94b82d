"""Workloads that ask for a model by a label get a claim, and keep the model on the nodes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crds.keys import model_key
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    DEPLOYMENTS,
    JOBS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    VOLUMES,
)
from hooks.naming import workload_label
from tests.e2e.world import World, an_object

if TYPE_CHECKING:
    from deploy.kube.kinds import Kind, KubeObject

NODE = "node-1"
MIB = 1 << 20


def _setup(world: World, name: str) -> str:
    """A node, a group and a namespace of this name. Returns the URI of a model."""
    world.node(NODE, name)
    world.group(name)
    world.namespace(name)
    return world.http.put(f"{name}.bin", name.encode())


def _template(name: str, **annotations: str) -> KubeObject:
    return {
        "metadata": {"labels": {"app": name}, "annotations": annotations},
        "spec": {"containers": [{"name": "server", "image": "server"}]},
    }


def _labelled(resource: Kind, name: str, namespace: str, cache: str, spec: KubeObject) -> Any:
    obj = an_object(resource, name, namespace, spec=spec)
    obj["metadata"]["labels"] = {workload_label(cache): ""}
    return obj


def _deployment(world: World, name: str, namespace: str, cache: str, **annotations: str) -> None:
    spec = {
        "selector": {"matchLabels": {"app": name}},
        "template": _template(name, **annotations),
    }
    world.make(_labelled(DEPLOYMENTS, name, namespace, cache, spec))


def _workloads(world: World, cache: str, namespace: str = "") -> list[tuple[str, str, str]]:
    """The workloads in a cache's status: kind, namespace and name."""
    obj = world.find(NAMESPACE_CACHES if namespace else CACHES, cache, namespace) or {}
    listed = obj.get("status", {}).get("workloads", ())
    return [(one["kind"], one["namespace"], one["name"]) for one in listed]


def _referenced(world: World, cache: str) -> bool:
    """Whether the node's entry of a cache says that a workload refers to the model."""
    node = world.find(LOCAL_MODEL_NODES, NODE) or {}
    entries = node.get("spec", {}).get("localModels", ())
    return any(one["modelName"] == cache and one.get("referenced") for one in entries)


def test_a_workload_gets_a_claim_of_its_model_and_loses_it(world: World) -> None:
    uri = _setup(world, "wl")
    world.node(NODE, "wl-two")
    world.group("wl-two")
    spec = {"sourceModelUri": uri, "modelSize": "1Mi", "nodeGroups": ["wl", "wl-two"]}
    world.make(an_object(CACHES, "wl", spec=spec))
    world.wait_ready("wl", 1)
    assert not _referenced(world, "wl")

    _deployment(world, "chat", "wl", "wl")
    claim = world.wait_bound("wl", "wl-wl")
    volume = claim["spec"]["volumeName"]
    path = world.api.get(VOLUMES, volume)["spec"]["local"]["path"]
    assert path == f"/var/lib/localmodel/volumes/{model_key(uri)}"
    world.until(lambda: _workloads(world, "wl") == [("Deployment", "wl", "chat")], "its name")
    world.until(lambda: _referenced(world, "wl"), "the node to know of the reference")
    assert world.find(CLAIMS, "wl-wl-two", "wl") is None

    # Its pods ask for the other group.
    group = {"serving.kserve.io/nodegroup": "wl-two"}
    _deployment(world, "chat", "wl", "wl", **group)
    world.wait_bound("wl", "wl-wl-two")
    world.until(lambda: not world.find(CLAIMS, "wl-wl", "wl"), "the former claim to go")
    world.until(lambda: not world.find(VOLUMES, volume), "its volume to go")

    # A second workload shares the claim, which stays until both are gone.
    _deployment(world, "again", "wl", "wl", **group)
    both = [("Deployment", "wl", "again"), ("Deployment", "wl", "chat")]
    world.until(lambda: _workloads(world, "wl") == both, "both names")
    world.delete(DEPLOYMENTS, "chat", "wl")
    world.until(lambda: _workloads(world, "wl") == both[:1], "one name")
    assert world.find(CLAIMS, "wl-wl-two", "wl")
    world.delete(DEPLOYMENTS, "again", "wl")
    world.until(lambda: not world.find(CLAIMS, "wl-wl-two", "wl"), "the claim to go")
    world.until(lambda: not _referenced(world, "wl"), "the reference to go")
    assert not _workloads(world, "wl")

    def volumes() -> list[KubeObject]:
        every = world.api.list(VOLUMES)
        return [one for one in every if one["spec"]["claimRef"]["namespace"] == "wl"]

    world.until(lambda: not volumes(), "the volumes to go")
    assert world.published(NODE, uri)
    world.remove_caches("wl")


def test_a_job_that_has_finished_no_longer_counts(world: World) -> None:
    uri = _setup(world, "wl-job")
    world.cache("wl-job", uri, "wl-job")
    template = _template("batch")
    template["spec"]["restartPolicy"] = "Never"
    world.make(_labelled(JOBS, "batch", "wl-job", "wl-job", {"template": template}))
    world.wait_bound("wl-job", "wl-job-wl-job")
    world.until(lambda: _workloads(world, "wl-job") == [("Job", "wl-job", "batch")], "its name")

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    status = {
        "startTime": now,
        "completionTime": now,
        "succeeded": 1,
        "conditions": conditions,
        "uncountedTerminatedPods": {},
    }
    world.api.patch(JOBS, "batch", {"status": status}, namespace="wl-job", subresource="status")
    world.until(lambda: not _workloads(world, "wl-job"), "the Job to count no longer")
    world.until(lambda: not world.find(CLAIMS, "wl-job-wl-job", "wl-job"), "the claim to go")
    world.delete(JOBS, "batch", "wl-job")
    world.remove_caches("wl-job")


def test_a_cache_of_the_namespace_comes_before_the_cluster_cache(world: World) -> None:
    uri = _setup(world, "wl-own")
    world.namespace("wl-other")
    world.cache("wl-own", uri, "wl-own")
    for namespace in ("wl-own", "wl-other"):
        _deployment(world, "chat", namespace, "wl-own")
        world.wait_bound(namespace, "wl-own-wl-own")
    both = [("Deployment", namespace, "chat") for namespace in ("wl-other", "wl-own")]
    world.until(lambda: _workloads(world, "wl-own") == both, "both names")

    own = world.http.put("wl-own-2.bin", b"own")
    spec = {"sourceModelUri": own, "modelSize": "1Mi", "nodeGroup": "wl-own"}
    world.make(an_object(NAMESPACE_CACHES, "wl-own", "wl-own", spec=spec))
    world.until(
        lambda: _workloads(world, "wl-own", "wl-own") == both[1:],
        "its namespace's cache to list it",
    )
    world.until(lambda: _workloads(world, "wl-own") == both[:1], "the cluster cache to let it go")

    def leads_to_its_own() -> bool:
        claim = world.find(CLAIMS, "wl-own-wl-own", "wl-own") or {"spec": {}}
        volume = world.find(VOLUMES, claim["spec"].get("volumeName", "none")) or {"spec": {}}
        path = str(volume["spec"].get("local", {}).get("path"))
        bound = claim.get("status", {}).get("phase") == "Bound"
        return bool(bound) and path.endswith(model_key(own))

    world.until(leads_to_its_own, "the claim to be the namespace cache's", seconds=90)
    assert world.wait_bound("wl-other", "wl-own-wl-own")

    # Without that cache, the workload uses the cluster's again.
    world.delete(NAMESPACE_CACHES, "wl-own", "wl-own")
    world.until(lambda: _workloads(world, "wl-own") == both, "both names again", seconds=90)
    world.wait_bound("wl-own", "wl-own-wl-own")
    for namespace in ("wl-own", "wl-other"):
        world.delete(DEPLOYMENTS, "chat", namespace)
    world.remove_caches("wl-own")


def test_an_evicted_model_comes_back_for_a_workload(world: World) -> None:
    group = "wl-lru"
    first, second = (
        world.http.put(f"{group}-{name}.bin", name.encode().ljust(MIB, b".")) for name in "ab"
    )
    world.node(NODE, group)
    world.namespace(group)
    lru = {"policy": "LRU", "highPercent": 100, "lowPercent": 100}
    world.group(group, storageLimit="1536Ki", eviction=lru)
    world.cache(f"{group}-a", first, group, modelSize="1Mi")
    world.wait_ready(f"{group}-a", 1)
    world.cache(f"{group}-b", second, group, modelSize="1Mi")
    world.wait_ready(f"{group}-b", 1)
    world.wait_condition(f"{group}-a", "Evicted")

    _deployment(world, "chat", group, f"{group}-a")
    world.wait_bound(group, f"{group}-a-{group}")
    world.wait_ready(f"{group}-a", 1)
    assert world.published(NODE, first)
    world.wait_condition(f"{group}-b", "Evicted")
    world.delete(DEPLOYMENTS, "chat", group)
    world.remove_caches(f"{group}-a", f"{group}-b")
