"""Policies that every overlay has: what an agent may write, and how important a namespace is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy.kube.client import KubeClient
from deploy.kube.errors import ApiError
from deploy.kube.kinds import LOCAL_MODEL_NODES, NAMESPACE_CACHES, NAMESPACES, PODS
from deploy.local.users import AGENT
from tests.e2e.world import an_object

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject
    from tests.e2e.kserve import KServeWorld

NODE_OF_TOKEN = "Impersonate-Extra-authentication.kubernetes.io%2Fnode-name"


def _write(kserve: KServeWorld, node: str, node_of_token: str = "") -> str:
    """What the API server answers to an agent that writes the status of a node's object.

    `node_of_token` is that of the pod that the token is bound to; empty: it is not bound to a pod.
    """
    headers = {"Impersonate-User": AGENT.name}
    if node_of_token:
        headers[NODE_OF_TOKEN] = node_of_token
    api = KubeClient.connect(kserve.cluster.kubeconfig, headers=headers)
    try:
        api.patch(LOCAL_MODEL_NODES, node, {"status": {"models": []}}, subresource="status")
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
    # A token that is not bound to a pod names no node. No agent has the right to make one.
    refused = _write(kserve, "node-2")
    assert "token is not bound to a pod of a node may not write the status of node-2" in refused
    may = kserve.cluster.kubectl(
        "auth", "can-i", "create", "serviceaccounts/token", "-A", f"--as={AGENT.name}"
    )
    assert may.stdout.strip() == "no"


def _annotate_pod(kserve: KServeWorld, pod: str, change: KubeObject, *, node: str = "") -> str:
    """What the API server answers to an agent that changes a pod. `node` is that of its token.

    The agent has every right here, so that only the policy refuses.
    """
    headers = {"Impersonate-User": AGENT.name, "Impersonate-Group": "system:masters"}
    headers |= {NODE_OF_TOKEN: node} if node else {}
    api = KubeClient.connect(kserve.cluster.kubeconfig, headers=headers)
    try:
        api.patch(PODS, pod, change, "annotated")
    except ApiError as error:
        return error.message
    return ""


def _metadata(**fields: Any) -> KubeObject:
    return {"metadata": fields}


OURS = "localmodel.serving.kserve.io/cached-at"


def test_an_agent_annotates_the_pods_of_its_own_node_only(kserve: KServeWorld) -> None:
    kserve.space("annotated")
    for name, node in (("here", "node-1"), ("elsewhere", "node-2"), ("nowhere", "")):
        pod = an_object(PODS, name, "annotated")
        pod["metadata"] |= {"labels": {"app": "x"}, "annotations": {"example.com/a": "1"}}
        pod["metadata"]["finalizers"] = ["example.com/held"]
        pod["spec"] = {
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": "c"}],
            **({"nodeName": node} if node else {}),
        }
        kserve.make(pod)

    def here(change: KubeObject) -> str:
        return _annotate_pod(kserve, "here", change, node="node-1")

    cached = _metadata(annotations={OURS: "2026-08-01T12:00:00Z"})
    assert here(cached) == ""
    found = kserve.find(PODS, "here", "annotated") or {}
    assert found["metadata"]["annotations"] == {
        "example.com/a": "1",
        OURS: "2026-08-01T12:00:00Z",
    }
    assert here(_metadata(annotations={OURS: None})) == ""

    refused = _annotate_pod(kserve, "elsewhere", cached, node="node-1")
    assert "the agent of the node node-1 may not change a pod of the node node-2" in refused
    refused = _annotate_pod(kserve, "nowhere", cached, node="node-1")
    assert "the agent of the node node-1 may not change a pod of no node" in refused
    # A token that is not bound to a pod names no node.
    refused = _annotate_pod(kserve, "elsewhere", cached)
    assert "not bound to a pod of a node may not change a pod of the node node-2" in refused
    refused = _annotate_pod(kserve, "nowhere", cached)
    assert "not bound to a pod of a node may not change a pod of no node" in refused

    for name in ("example.com/a", "example.com/b", f"x.{OURS}"):
        refused = here(_metadata(annotations={name: "2"}))
        assert "annotations of localmodel.serving.kserve.io/ only" in refused
        assert refused.endswith(f"and not {name}")
    assert "and not example.com/a" in here(_metadata(annotations={"example.com/a": None}))
    labels, other = {"app": "y"}, {"spec": {"activeDeadlineSeconds": 1000}}
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"}
    for change in (
        _metadata(labels=labels),
        _metadata(labels={"app": None}),
        _metadata(labels=labels, annotations={OURS: "x"}),
        _metadata(finalizers=None),
        _metadata(ownerReferences=[owner]),
        other,
    ):
        assert "annotations of a pod only, and neither its spec nor its labels" in here(change)

    # The right is to patch pods, and no subresource of them.
    for verb in ("update", "delete", "create"):
        may = kserve.cluster.kubectl("auth", "can-i", verb, "pods", "-A", f"--as={AGENT.name}")
        assert may.stdout.strip() == "no"
    may = kserve.cluster.kubectl(
        "auth", "can-i", "patch", "pods", "--subresource=status", "-A", f"--as={AGENT.name}"
    )
    assert may.stdout.strip() == "no"

    # Nobody else is concerned.
    everything = _metadata(labels=labels, annotations={"example.com/a": None}, finalizers=None)
    for name in ("here", "elsewhere", "nowhere"):
        kserve.api.patch(PODS, name, everything | other, "annotated")
    kserve.kubectl("delete", "pods", "--all", "-n", "annotated", "--force")


def _make_cache(kserve: KServeWorld, namespace: str, name: str, **spec: object) -> str:
    """What the API server answers to a cache of a namespace."""
    cache = {
        "apiVersion": NAMESPACE_CACHES.api_version,
        "kind": NAMESPACE_CACHES.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "sourceModelUri": f"s3://importance/{name}",
            "modelSize": "1Gi",
            # None: nothing is downloaded.
            "nodeGroups": ["importance-of-nobody"],
            **spec,
        },
    }
    try:
        kserve.cluster.api.create(cache)
    except ApiError as error:
        return error.message
    return ""


def _patch_cache(kserve: KServeWorld, namespace: str, name: str, **spec: object) -> str:
    try:
        kserve.cluster.api.patch(NAMESPACE_CACHES, name, {"spec": spec}, namespace)
    except ApiError as error:
        return error.message
    return ""


def _annotate(kserve: KServeWorld, namespace: str, **annotations: str | None) -> None:
    named = {f"serving.kserve.io/{n.replace('_', '-')}": v for n, v in annotations.items()}
    kserve.cluster.api.patch(NAMESPACES, namespace, {"metadata": {"annotations": named}})


def test_a_namespace_says_no_more_of_importance_than_it_may(kserve: KServeWorld) -> None:
    ours = "importance"
    kserve.namespace(ours)
    assert _make_cache(kserve, ours, "usual", retention="Evictable", priority=0) == ""
    assert _make_cache(kserve, ours, "low", priority=-5) == ""
    refused = _make_cache(kserve, ours, "high", priority=1)
    assert "spec.priority may be 0 at most in this namespace" in refused
    assert "may not be pinned" in _make_cache(kserve, ours, "pinned", retention="Pinned")
    # By a change neither.
    assert "may be 0 at most" in _patch_cache(kserve, ours, "usual", priority=1_000_000)
    assert "may not be pinned" in _patch_cache(kserve, ours, "usual", retention="Pinned")

    _annotate(kserve, ours, localmodel_max_priority="10", localmodel_may_pin="true")
    # The API server follows namespaces a moment late.
    kserve.until(
        lambda: _make_cache(kserve, ours, "high", priority=10, retention="Pinned") == "",
        "the annotations to count",
    )
    assert "may be 10 at most" in _make_cache(kserve, ours, "higher", priority=11)

    # What is stored stays writable when less is allowed, and does not come back once lowered.
    _annotate(kserve, ours, localmodel_max_priority="-1", localmodel_may_pin=None)
    kserve.until(
        lambda: "may be -1 at most" in _make_cache(kserve, ours, "zero", priority=0),
        "the annotations to be gone",
    )
    assert _patch_cache(kserve, ours, "high", modelSize="2Gi") == ""
    assert _patch_cache(kserve, ours, "high", priority=5, retention="Evictable") == ""
    assert "may be -1 at most" in _patch_cache(kserve, ours, "high", priority=10)
    assert "may not be pinned" in _patch_cache(kserve, ours, "high", retention="Pinned")
    for name in ("usual", "low", "high"):
        kserve.delete(NAMESPACE_CACHES, name, ours)
