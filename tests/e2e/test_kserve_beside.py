"""KServe's controller beside localmodel: it writes what is its own, and nothing of localmodel's."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from crds.base import API_VERSION
from deploy.kube.client import KubeClient
from deploy.kube.errors import ApiError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    CRDS,
    DEPLOYMENTS,
    GROUPS,
    JOBS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    VOLUMES,
    WEBHOOKS,
    Kind,
)
from deploy.kube.raw_client import JSON, MERGE_PATCH
from deploy.local.layout import CHECKOUT
from deploy.local.manifests import MANAGER, read
from deploy.takeover.names import KERNEL_KINDS
from tests.e2e.conftest import METACONTROLLERS
from tests.e2e.kserve import SECONDS, KServeWorld
from tests.e2e.kserve_left import CONTROLLER, FINALIZER, NAMESPACE_FINALIZER, WEBHOOK, KServeLeft
from tests.e2e.takeover import A_PERSON_FIRST, NOTHING_LEFT, OK, Takeover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.kube.kinds import KubeObject

# It has nothing to do with how Metacontroller works: one is enough.
pytestmark = pytest.mark.parametrize("kserve", METACONTROLLERS[-1:], indirect=True, scope="session")

SPACE = "beside"
ACCOUNT = f"system:serviceaccount:kserve:{CONTROLLER}"
BINDINGS = Kind(
    "rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)


@pytest.fixture
def policy(kserve: KServeWorld) -> Iterator[None]:
    """The policy of deploy/overlays/kserve/beside, in force, for a controller with all rights."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", "namespace": "kserve", "name": CONTROLLER}
    with ExitStack() as undone:
        kserve.make(
            {
                "apiVersion": BINDINGS.api_version,
                "kind": BINDINGS.name,
                "metadata": {"name": "beside"},
                "roleRef": role,
                "subjects": [subject],
            }
        )
        undone.callback(kserve.delete, BINDINGS, "beside")
        path = CHECKOUT / "deploy/overlays/kserve/beside/policy.yaml"
        for obj in read([path], hooks_url=""):
            kserve.api.apply(obj, manager=MANAGER)
            kind = kserve.api.kind_of(obj)
            undone.callback(kserve.delete, kind, obj["metadata"]["name"])
        kserve.until(lambda: _write(kserve, "PATCH", GROUPS, "beside", {}), "the policy", SECONDS)
        yield


def _write(
    kserve: KServeWorld,
    method: str,
    resource: Kind,
    name: str,
    body: KubeObject | None,
    *,
    namespace: str = "",
    subresource: str = "",
) -> str:
    """What the API server answers to KServe's controller; empty where it does it."""
    api = KubeClient.connect(kserve.cluster.kubeconfig, headers={"Impersonate-User": ACCOUNT})
    path = resource.path(name, namespace, subresource)
    content_type = MERGE_PATCH if method == "PATCH" else JSON
    try:
        api.request(method, path, body=body, content_type=content_type)
    except ApiError as error:
        return error.message
    return ""


def _finalizers(*names: str) -> KubeObject:
    return {"metadata": {"finalizers": [*names]}}


@pytest.fixture
def shared(kserve: KServeWorld) -> Iterator[None]:
    """A group, a cache on it, one of a namespace, and one with pvcRef."""
    kserve.space(SPACE)
    kserve.kserve_group("beside", "node-1")
    kserve.kserve_cache("plain", "beside")
    kserve.kserve_cache("plain", "beside", namespace=SPACE)
    spec = {"sourceModelUri": "s3://m/shared", "modelSize": "1Mi", "pvcRef": "models"}
    kind = {"apiVersion": API_VERSION, "kind": "LocalModelNamespaceCache"}
    kserve.make(kind | {"metadata": {"name": "shared", "namespace": SPACE}, "spec": spec})
    kserve.until(lambda: kserve.find(LOCAL_MODEL_NODES, "node-1"), "its object", SECONDS)
    yield
    kserve.delete(CACHES, "plain")
    for name in ("plain", "shared"):
        if kserve.find(NAMESPACE_CACHES, name, SPACE):
            kserve.api.patch(NAMESPACE_CACHES, name, _finalizers(), SPACE)
            if kserve.find(NAMESPACE_CACHES, name, SPACE):
                kserve.delete(NAMESPACE_CACHES, name, SPACE)
    # The next test creates a cache of this name, and would otherwise patch the one being deleted.
    kserve.until(lambda: not kserve.find(CACHES, "plain"), "the cache to be deleted", SECONDS)


@pytest.mark.usefixtures("shared", "policy")
def test_it_writes_nothing_of_localmodels(kserve: KServeWorld) -> None:
    status = {"status": {"copies": {"total": 9}}}
    size = {"spec": {"modelSize": "9Mi"}}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "plain-beside-download"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/models"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "plain-beside", "namespace": SPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    node = {"apiVersion": API_VERSION, "kind": "LocalModelNode", "metadata": {"name": "node-1"}}
    answers = [
        _write(kserve, "PATCH", CACHES, "plain", _finalizers(FINALIZER)),
        _write(kserve, "PATCH", CACHES, "plain", status, subresource="status"),
        _write(kserve, "PATCH", NAMESPACE_CACHES, "plain", size, namespace=SPACE),
        _write(
            kserve,
            "PATCH",
            NAMESPACE_CACHES,
            "plain",
            status,
            namespace=SPACE,
            subresource="status",
        ),
        _write(kserve, "DELETE", NAMESPACE_CACHES, "plain", None, namespace=SPACE),
        _write(kserve, "PATCH", LOCAL_MODEL_NODES, "node-1", {"spec": {"localModels": []}}),
        _write(kserve, "DELETE", LOCAL_MODEL_NODES, "node-1", None),
        _write(kserve, "POST", LOCAL_MODEL_NODES, "", node | {"metadata": {"name": "node-99"}}),
        _write(kserve, "POST", VOLUMES, "", volume),
        _write(kserve, "POST", CLAIMS, "", claim, namespace=SPACE),
    ]
    assert [one for one in answers if "this is localmodel's to write" not in one] == []
    # Anybody else does.
    kserve.patch(CACHES, "plain", size)


@pytest.mark.usefixtures("shared", "policy")
def test_it_imports_into_claims(kserve: KServeWorld) -> None:
    cache = kserve.api.get(NAMESPACE_CACHES, "shared", SPACE)
    both = [*cache["metadata"].get("finalizers", ()), NAMESPACE_FINALIZER]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "shared-import", "namespace": SPACE, "labels": {"model": "shared"}},
        "spec": {
            "suspend": True,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "none"}],
                }
            },
        },
    }
    imported = {"status": {"sharedPVCImport": {"pvcUID": "u"}}}
    named: dict[str, Any] = {"namespace": SPACE}
    assert _write(kserve, "PATCH", NAMESPACE_CACHES, "shared", _finalizers(*both), **named) == ""
    assert _write(kserve, "POST", JOBS, "", job, **named) == ""

    def import_ends() -> None:
        told = _write(
            kserve, "PATCH", NAMESPACE_CACHES, "shared", imported, **named, subresource="status"
        )
        assert told == ""

    def stays() -> bool:
        return bool(kserve.status("shared", SPACE).get("sharedPVCImport") == {"pvcUID": "u"})

    kserve.write_until_kept("shared", SPACE, import_ends, stays)
    kserve.delete(NAMESPACE_CACHES, "shared", SPACE)
    assert _write(kserve, "DELETE", JOBS, "shared-import", None, **named) == ""
    assert _write(kserve, "PATCH", NAMESPACE_CACHES, "shared", _finalizers(), **named) == ""


def _kernel_crd(plural: str, kind: str, *, namespaced: bool) -> KubeObject:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True}
    return {
        "apiVersion": CRDS.api_version,
        "kind": CRDS.name,
        "metadata": {"name": f"{plural}.serving.kserve.io"},
        "spec": {
            "group": "serving.kserve.io",
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.mark.usefixtures("shared")
def test_the_takeover_says_what_stops_and_leaves_it_alone(
    kserve: KServeWorld, tmp_path: Path
) -> None:
    left, takeover = KServeLeft(kserve.api), Takeover.on(kserve.cluster, tmp_path)
    with ExitStack() as undone:
        made = []
        for one in KERNEL_KINDS:
            crd = kserve.make(_kernel_crd(one.plural, one.name, namespaced=one.namespaced))
            undone.callback(kserve.delete, CRDS, crd["metadata"]["name"])
            resource = Kind(API_VERSION, one.plural, one.name, namespaced=one.namespaced)
            space = {"namespace": SPACE} if one.namespaced else {}
            obj = {"apiVersion": API_VERSION, "kind": one.name}
            named = obj | {"metadata": {"name": "vllm"} | space}
            kserve.until(partial(_made, kserve, named), one.name, SECONDS)
            made.append((resource, space.get("namespace", "")))
        left.program(DEPLOYMENTS, CONTROLLER, replicas=1)
        undone.callback(kserve.delete, DEPLOYMENTS, CONTROLLER, "kserve")
        ran = takeover.run("--apply")
        assert ran.code == A_PERSON_FIRST
        first = ran.said.partition("  2. ")[0]
        assert f"LocalModelNamespaceCache {SPACE}/shared (pvcRef)" in first, ran.said
        assert f"KernelCache {SPACE}/vllm" in first
        assert "deploy/overlays/kserve/beside" in first
        # Without it, all of that is there as before.
        kserve.api.patch(DEPLOYMENTS, CONTROLLER, {"spec": {"replicas": 0}}, "kserve")
        ran = takeover.run("--apply")
        assert "only KServe's controller runs" in ran.said, ran.said
        for resource, namespace in made:
            assert (
                "deletionTimestamp" not in kserve.api.get(resource, "vllm", namespace)["metadata"]
            )


def _made(kserve: KServeWorld, obj: KubeObject) -> bool:
    try:
        kserve.make(obj)
    except (ApiError, KeyError):
        return False
    return True


@pytest.mark.usefixtures("shared", "policy")
def test_the_takeover_lets_it_go_on_beside(kserve: KServeWorld, tmp_path: Path) -> None:
    left, takeover = KServeLeft(kserve.api), Takeover.on(kserve.cluster, tmp_path)
    cache = kserve.api.get(NAMESPACE_CACHES, "shared", SPACE)
    both = [*cache["metadata"].get("finalizers", ()), NAMESPACE_FINALIZER]
    kserve.api.patch(NAMESPACE_CACHES, "shared", _finalizers(*both), SPACE)
    with ExitStack() as undone:
        left.program(DEPLOYMENTS, CONTROLLER, replicas=1)
        undone.callback(kserve.delete, DEPLOYMENTS, CONTROLLER, "kserve")
        left.webhook()
        undone.callback(kserve.delete, WEBHOOKS, WEBHOOK)
        kserve.until(lambda: takeover.run("--apply").code == OK, "all to be done", SECONDS)
        ran = takeover.run("--apply")
        assert NOTHING_LEFT in ran.said, ran.said
        assert f"keeps running for LocalModelNamespaceCache {SPACE}/shared (pvcRef)" in ran.said
        assert kserve.find(WEBHOOKS, WEBHOOK)
        found = kserve.api.get(NAMESPACE_CACHES, "shared", SPACE)["metadata"]["finalizers"]
        assert NAMESPACE_FINALIZER in found
