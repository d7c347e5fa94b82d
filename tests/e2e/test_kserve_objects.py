"""KServe's contract, line by line: objects, status, validation, deletion (docs/kserve.md)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from crds.base import API_VERSION
from deploy.kube.kinds import CACHES, GROUPS, LOCAL_MODEL_NODES, NAMESPACE_CACHES, NODES
from tests.e2e.kserve import ISVCS, LLM_ISVCS, SECONDS, KServeWorld

if TYPE_CHECKING:
    from deploy.kube.kinds import Kind, KubeObject

KEY = "c277d78a31bc6624"


def _listed(kserve: KServeWorld, node: str) -> dict[str, KubeObject]:
    """What a node shall have, by the key that KServe's agent reports it under."""
    found = kserve.find(LOCAL_MODEL_NODES, node) or {"spec": {}}
    models = found["spec"].get("localModels", ())
    return {
        f"{one['namespace']}/{one['modelName']}" if one.get("namespace") else one["modelName"]: one
        for one in models
    }


def test_kinds_and_scopes(kserve: KServeWorld) -> None:
    kinds = {one.name: one.namespaced for one in kserve.api.kinds(API_VERSION)}
    assert {
        "LocalModelCache": False,
        "LocalModelNodeGroup": False,
        "LocalModelNode": False,
        "LocalModelNamespaceCache": True,
    }.items() <= kinds.items()


def test_every_kind_has_a_status_of_its_own(kserve: KServeWorld) -> None:
    """Whoever may write a status may not write a spec; KServe's groups have no such bound."""
    served = {kind for kind in kserve.api.kinds(API_VERSION) if kind.has_status}
    assert served >= {CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES}
    kserve.kserve_group("bounds", "node-1")
    kserve.patch(GROUPS, "bounds", {"spec": {"storageLimit": "1Gi"}}, "status")
    assert kserve.api.get(GROUPS, "bounds")["spec"]["storageLimit"] == "10Gi"


@pytest.mark.parametrize("namespace", ["", "fields"], ids=["cluster", "namespace"])
def test_every_field_of_a_cache_reaches_its_nodes(kserve: KServeWorld, namespace: str) -> None:
    kserve.kserve_group("first", "node-1")
    name = f"fields-{namespace or 'all'}"
    kserve.kserve_cache(
        name,
        "first",
        namespace=namespace,
        modelSize=1048576,
        serviceAccountName="reader",
        storage={"key": "s3", "parameters": {"region": "eu"}},
    )
    key = f"{namespace}/{name}" if namespace else name
    entry = kserve.until(
        lambda: _listed(kserve, "node-1").get(key, {}), f"{key} on node-1", SECONDS
    )
    assert entry["nodeGroup"] == "first"
    assert entry["serviceAccountName"] == "reader"
    assert entry["storage"] == {"key": "s3", "parameters": {"region": "eu"}}
    assert entry["sourceModelUri"] == f"s3://models/{namespace}{name}"
    assert key not in _listed(kserve, "node-2")


@pytest.mark.parametrize("groups", [[], None], ids=["empty", "missing"])
def test_a_cache_names_at_least_one_group(kserve: KServeWorld, groups: list[str] | None) -> None:
    spec: KubeObject = {"sourceModelUri": "s3://models/none", "modelSize": "1Mi"}
    cache = {
        "apiVersion": API_VERSION,
        "kind": "LocalModelCache",
        "metadata": {"name": "no-group"},
        "spec": spec if groups is None else spec | {"nodeGroups": groups},
    }
    assert "nodeGroups" in kserve.refused(cache)


def test_status_in_kserves_words(kserve: KServeWorld) -> None:
    for number in (4, 5, 6, 7):
        kserve.node(f"node-{number}")
    kserve.kserve_group("words", *(f"node-{number}" for number in (4, 5, 6, 7)))
    kserve.kserve_cache("words", "words", sourceModelUri="hf://meta-llama/meta-llama-3-8b-instruct")
    kserve.kserve_cache("words", "words", namespace="words")
    states = {
        "node-4": "ModelDownloaded",
        "node-5": "ModelDownloading",
        "node-6": "ModelDownloadError",
        "node-7": "ModelDownloadPending",
    }
    kserve.until(
        lambda: all(len(_listed(kserve, node)) == 2 for node in states), "all to list both", SECONDS
    )
    for node, state in states.items():
        kserve.report(node, {"words": state, "words/words": "ModelDownloaded"})
    wanted = {
        "node-4": "NodeDownloaded",
        "node-5": "NodeDownloading",
        "node-6": "NodeDownloadError",
        "node-7": "NodeDownloadPending",
    }
    # What KServe's Python SDK waits on.
    kserve.until(lambda: kserve.status("words").get("nodeStatus") == wanted, "nodeStatus", SECONDS)
    assert kserve.status("words")["copies"] == {"available": 1, "total": 4, "failed": 1}
    assert kserve.status("words")["key"] == KEY
    kserve.until(
        lambda: kserve.status("words", "words")["copies"].get("available") == 4, "copies", SECONDS
    )

    # A node that becomes NotReady later is told too, and one that is gone leaves no trace.
    _ready(kserve, "node-4", "False")
    kserve.cluster.node_down("node-7")
    wanted = {"node-4": "NodeNotReady", "node-5": "NodeDownloading", "node-6": "NodeDownloadError"}
    kserve.until(lambda: kserve.status("words").get("nodeStatus") == wanted, "nodeStatus", SECONDS)
    assert kserve.status("words")["copies"] == {"available": 0, "total": 3, "failed": 1}
    # A real garbage collector takes the LocalModelNode with the Node.
    kserve.until(lambda: not kserve.find(LOCAL_MODEL_NODES, "node-7"), "node-7's to go", 90)
    for node in ("node-4", "node-5", "node-6"):
        kserve.cluster.node_down(node)


def _ready(kserve: KServeWorld, node: str, status: str) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    condition = {
        "type": "Ready",
        "status": status,
        "reason": "Test",
        "message": "",
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    }
    kserve.patch(NODES, node, {"status": {"conditions": [condition]}}, "status")


def test_which_nodes_are_in_a_group(kserve: KServeWorld) -> None:
    """Terms are ORed, the expressions and fields of a term ANDed."""
    kserve.node("node-1", "left")
    kserve.node("node-2", "right")
    label = {"key": "left", "operator": "Exists"}
    other = {"key": "right", "operator": "In", "values": ["yes"]}
    field = {"key": "metadata.name", "operator": "In", "values": ["node-1"]}
    groups: dict[str, tuple[list[KubeObject], list[str]]] = {
        "terms-or": (
            [{"matchExpressions": [label]}, {"matchExpressions": [other]}],
            ["node-1", "node-2"],
        ),
        "terms-and": ([{"matchExpressions": [label, other]}], []),
        "fields-and": ([{"matchExpressions": [label], "matchFields": [field]}], ["node-1"]),
    }
    for name, (terms, _) in groups.items():
        affinity = {"required": {"nodeSelectorTerms": terms}}
        kserve.kserve_group(name, nodeAffinity=affinity)
        kserve.kserve_cache(name, name)
    wanted = {name: nodes for name, (_, nodes) in groups.items()}

    def found() -> dict[str, list[str]]:
        return {name: list(kserve.status(name).get("nodeStatus", "?")) for name in groups}

    kserve.until(lambda: found() == wanted, f"caches to be on {wanted}", SECONDS)
    kserve.kserve_group("no-affinity", nodeAffinity={})
    kserve.wait_condition("no-affinity", "NoNodeAffinity", resource=GROUPS)

    # used and available, which KServe never fills.
    status = kserve.api.get(GROUPS, "fields-and")["status"]
    assert (status["used"], status["available"]) == ("0", "10Gi")


@pytest.mark.parametrize("kind", [ISVCS, LLM_ISVCS], ids=lambda one: one.name)
def test_a_cache_in_use_is_not_deleted(kserve: KServeWorld, kind: Kind) -> None:
    field = "inferenceServices" if kind is ISVCS else "llmInferenceServices"
    name = f"used-{kind.name.lower()}"
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache(name, "first")
    kserve.kserve_cache(name, "first", namespace="used")
    kserve.service("used-b", "chat", name, resource=kind)
    kserve.service("used", "chat", name, resource=kind, of_namespace=True)
    kserve.wait_users(name, "used-b/chat", field=field)
    kserve.wait_users(name, "used/chat", namespace="used", field=field)
    assert f"{kind.name} used-b/chat" in kserve.not_deleted(CACHES, name)
    assert f"{kind.name} used/chat" in kserve.not_deleted(NAMESPACE_CACHES, name, "used")

    for number in range(4):
        kserve.service("used-b", f"more-{number}", name, resource=kind)
    kserve.until(lambda: len(kserve.status(name)[field]) == 5, "all to be listed", SECONDS)
    assert f"{kind.name} used-b/more-1 and 2 more" in kserve.not_deleted(CACHES, name)

    # A service that is gone blocks nothing.
    kserve.delete(kind, "chat", "used")
    kserve.wait_users(name, namespace="used", field=field)
    kserve.delete(NAMESPACE_CACHES, name, "used")
    # Nor does one for a person who insists.
    force = {"serving.kserve.io/localmodel-delete-in-use": "yes"}
    kserve.patch(CACHES, name, {"metadata": {"annotations": force}})
    kserve.delete(CACHES, name)
    kserve.until(lambda: not kserve.find(CACHES, name), "the cache to go", SECONDS)


def test_every_group_of_a_cache_and_every_relabel_counts(kserve: KServeWorld) -> None:
    for node in ("node-1", "node-2", "node-3"):
        kserve.node(node)
    groups = {name: {"key": name, "operator": "Exists"} for name in ("relabel-a", "relabel-b")}
    for name, expression in groups.items():
        terms = [{"matchExpressions": [expression]}]
        kserve.kserve_group(name, nodeAffinity={"required": {"nodeSelectorTerms": terms}})
    kserve.kserve_cache("relabel", *groups)

    def wait_nodes(*nodes: str) -> None:
        everywhere = ("node-1", "node-2", "node-3")

        def is_there() -> bool:
            told = list(kserve.status("relabel").get("nodeStatus", "?"))
            listing = [node for node in everywhere if "relabel" in _listed(kserve, node)]
            return told == listing == list(nodes)

        kserve.until(is_there, f"the cache to be on {nodes}", SECONDS)

    # A node that joins the second group is no less than one that joins the first.
    kserve.node("node-1", "relabel-a")
    kserve.node("node-2", "relabel-b")
    # In both groups, it has one entry for each, and one copy.
    kserve.node("node-3", "relabel-a", "relabel-b")
    wait_nodes("node-1", "node-2", "node-3")
    kserve.until(lambda: kserve.status("relabel")["copies"]["total"] == 3, "three copies", SECONDS)
    version = kserve.api.get(LOCAL_MODEL_NODES, "node-3")["metadata"]["resourceVersion"]
    kserve.patch(NODES, "node-1", {"metadata": {"labels": {"relabel-a": None}}})
    wait_nodes("node-2", "node-3")
    # Nobody writes it again and again.
    assert kserve.api.get(LOCAL_MODEL_NODES, "node-3")["metadata"]["resourceVersion"] == version
    # A group that the cache no longer names keeps no entry.
    kserve.kserve_cache("relabel", "relabel-a")
    wait_nodes("node-3")


def test_a_missing_group_is_told_and_blocks_no_deletion(kserve: KServeWorld) -> None:
    kserve.kserve_cache("nowhere", "nowhere")
    kserve.wait_condition("nowhere", "NodeGroupNotFound")
    kserve.delete(CACHES, "nowhere")
    kserve.until(lambda: not kserve.find(CACHES, "nowhere"), "the cache to go", SECONDS)


def _cache(name: str, uri: str, **spec: object) -> KubeObject:
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelCache",
        "metadata": {"name": name},
        "spec": {"sourceModelUri": uri, "modelSize": "1Mi"} | spec,
    }


@pytest.mark.parametrize("namespace", ["", "fixed"], ids=["cluster", "namespace"])
def test_the_uri_is_immutable(kserve: KServeWorld, namespace: str) -> None:
    made = kserve.kserve_cache("fixed", "first", namespace=namespace)
    changed = {key: made[key] for key in ("apiVersion", "kind")} | {
        "metadata": {key: made["metadata"].get(key) for key in ("name", "namespace")},
        "spec": made["spec"] | {"sourceModelUri": "s3://models/changed"},
    }
    assert "immutable" in kserve.refused(changed)


def test_two_cluster_caches_with_one_uri_are_refused(kserve: KServeWorld) -> None:
    kserve.kserve_cache("uri", "first", sourceModelUri="s3://models/once")
    why = kserve.until(lambda: _refused_or_empty(kserve), "the policy to see the cache", SECONDS)
    assert "LocalModelCache uri has the same sourceModelUri" in why
    # The same cache once more is no second one.
    kserve.kserve_cache("uri", "first", sourceModelUri="s3://models/once", modelSize="2Mi")
    # Caches of namespaces may share it, and the folder.
    kserve.kserve_cache("uri", "first", namespace="uri-a", sourceModelUri="s3://models/once")
    kserve.kserve_cache("uri", "first", namespace="uri-b", sourceModelUri="s3://models/once")

    def keys() -> list[object]:
        return [kserve.status("uri", namespace).get("key") for namespace in ("", "uri-a", "uri-b")]

    kserve.until(lambda: all(keys()), "all to have a key", SECONDS)
    assert len(set(keys())) == 1


def _refused_or_empty(kserve: KServeWorld) -> str:
    try:
        return kserve.refused(_cache("uri-twice", "s3://models/once", nodeGroups=["first"]))
    except AssertionError:
        kserve.delete(CACHES, "uri-twice")
        return ""


def test_a_cache_with_the_short_form_is_refused(kserve: KServeWorld) -> None:
    why = kserve.refused(_cache("short", "s3://models/short", nodeGroup="first"))
    assert "write nodeGroups: ['first']" in why


def test_a_deleted_cache_leaves_the_nodes_lists(kserve: KServeWorld) -> None:
    """KServe ends at once too, whatever the agents do: here is none."""
    kserve.node("node-9", "leave")
    kserve.kserve_group("leave", "node-9")
    kserve.kserve_cache("leave", "leave")
    kserve.until(lambda: "leave" in _listed(kserve, "node-9"), "node-9 to list it", SECONDS)
    kserve.report("node-9", {"leave": "ModelDownloaded"})
    before = kserve.api.get(LOCAL_MODEL_NODES, "node-9")["metadata"]["uid"]
    kserve.delete(CACHES, "leave")
    kserve.until(lambda: not _listed(kserve, "node-9"), "it to leave", SECONDS)
    kserve.until(lambda: not kserve.find(CACHES, "leave"), "the cache to go", SECONDS)
    # The node's object stays, empty, as KServe's does.
    node = kserve.api.get(LOCAL_MODEL_NODES, "node-9")
    assert node["metadata"]["uid"] == before
    assert node["spec"]["localModels"] == []
    kserve.cluster.node_down("node-9")


def test_entries_of_kserve_are_read_and_completed(kserve: KServeWorld) -> None:
    """A LocalModelNode as KServe's controller leaves it: no owner, no size, no group."""
    kserve.node("node-8", "none")
    entries = [
        {"sourceModelUri": "s3://models/entry", "modelName": "entry"},
        {"sourceModelUri": "s3://models/gone", "modelName": "gone"},
    ]
    node = {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNode",
        "metadata": {"name": "node-8"},
        "spec": {"localModels": entries},
    }
    kserve.api.create(node)
    kserve.report("node-8", {"entry": "ModelDownloaded"})
    kserve.kserve_group("entry", "node-8")
    kserve.kserve_cache("entry", "entry")
    kserve.until(
        lambda: kserve.status("entry").get("nodeStatus") == {"node-8": "NodeDownloaded"},
        "the copy to count",
        SECONDS,
    )
    listed = _listed(kserve, "node-8")
    assert listed["entry"]["modelSize"] == "1Mi"
    assert "gone" not in listed
    owners = kserve.api.get(LOCAL_MODEL_NODES, "node-8")["metadata"]["ownerReferences"]
    assert [owner["kind"] for owner in owners] == ["Node"]
