"""What versions of KServe after 0.21 have: claims to import into, and fields of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crds.base import API_VERSION
from deploy.kube.errors import ApiError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    VOLUMES,
)
from tests.e2e.kserve import SECONDS, KServeWorld

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject

SPACE = "newer"
KSERVES_FINALIZER = "localmodelnamespacecache.kserve.io/finalizer"


def _cache(name: str, namespace: str = "", **spec: Any) -> KubeObject:
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNamespaceCache" if namespace else "LocalModelCache",
        "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
        "spec": {"sourceModelUri": f"s3://models/{name}", "modelSize": "1Mi"} | spec,
    }


def _told(kserve: KServeWorld, name: str) -> dict[str, KubeObject]:
    conditions = kserve.status(name, SPACE).get("conditions", ())
    return {one["type"]: one for one in conditions}


def _patch(kserve: KServeWorld, name: str, change: KubeObject, subresource: str = "") -> None:
    kserve.api.patch(NAMESPACE_CACHES, name, change, SPACE, subresource=subresource)


def test_a_cache_with_pvc_ref_is_kserves(kserve: KServeWorld) -> None:
    kserve.space(SPACE)
    kserve.kserve_group("newer", "node-1")
    kserve.kserve_cache("near", "newer", namespace=SPACE, sourceModelUri="s3://models/shared")
    secrets = [{"name": "registry"}]
    kserve.make(_cache("shared", SPACE, pvcRef="shared-models", imagePullSecrets=secrets))
    kserve.until(lambda: set(_told(kserve, "shared")) == {"Admitted", "Ready"}, "it to be told")
    for one in _told(kserve, "shared").values():
        assert (one["status"], one["reason"]) == ("False", "ImportedByKServe")

    # KServe's controller comes: its finalizer, and its status, which drops what it does not know.
    stored = kserve.api.get(NAMESPACE_CACHES, "shared", SPACE)
    finalizers = [*stored["metadata"]["finalizers"], KSERVES_FINALIZER]
    _patch(kserve, "shared", {"metadata": {"finalizers": finalizers}})
    ready = {
        "type": "Ready",
        "status": "True",
        "observedGeneration": stored["metadata"]["generation"],
        "lastTransitionTime": "2026-11-24T03:40:00Z",
        "reason": "ImportSucceeded",
        "message": "Model import completed",
    }
    says = {
        "copies": {"total": 1, "available": 1},
        "inferenceServices": [{"namespace": SPACE, "name": "chat"}],
        "sharedPVCImport": {"pvcUID": "u", "completionTime": "2026-11-24T03:40:00Z", "files": 3},
        "ofANewerVersion": {"a": [1]},
    }

    def import_ends() -> None:
        found = kserve.api.get(NAMESPACE_CACHES, "shared", SPACE)
        admitted = [c for c in found["status"]["conditions"] if c["type"] == "Admitted"]
        found["status"] = says | {"conditions": [ready, *admitted]}
        kserve.api.replace(found, subresource="status")

    def is_as_kserve_wrote_it() -> bool:
        status = kserve.status("shared", SPACE)
        return says.items() <= status.items() and _told(kserve, "shared")["Ready"] == ready

    kserve.write_until_kept("shared", SPACE, import_ends, is_as_kserve_wrote_it)
    assert _told(kserve, "shared")["Admitted"]["reason"] == "ImportedByKServe"
    spec = kserve.api.get(NAMESPACE_CACHES, "shared", SPACE)["spec"]
    assert spec["imagePullSecrets"] == secrets

    # Nothing is made of it, and its neighbour with the same URI is alone in its folder.
    kserve.until(lambda: kserve.find(CLAIMS, "near-newer", SPACE), "the neighbour's claim", SECONDS)
    node = kserve.api.get(LOCAL_MODEL_NODES, "node-1")
    assert "shared" not in {one["modelName"] for one in node["spec"]["localModels"]}
    made = kserve.api.list(CLAIMS, SPACE) + kserve.api.list(VOLUMES)
    assert not [one for one in made if one["metadata"]["name"].startswith("shared")]

    # Localmodel holds its deletion no longer than that.
    _patch(kserve, "shared", {"status": {"inferenceServices": None}}, "status")
    kserve.delete(NAMESPACE_CACHES, "shared", SPACE)

    def only_kserve_holds_it() -> bool:
        found = kserve.find(NAMESPACE_CACHES, "shared", SPACE) or {"metadata": {}}
        return bool(found["metadata"].get("finalizers") == [KSERVES_FINALIZER])

    kserve.until(only_kserve_holds_it, "localmodel to let it go", SECONDS)
    _patch(kserve, "shared", {"metadata": {"finalizers": None}})
    kserve.until(lambda: not kserve.find(NAMESPACE_CACHES, "shared", SPACE), "it to go", SECONDS)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, "give exactly one of"),
        ({"nodeGroups": ["newer"], "pvcRef": "claim"}, "give exactly one of"),
        ({"nodeGroup": "newer", "pvcRef": "claim"}, "give exactly one of"),
        ({"pvcRef": ""}, "at least 1 chars long"),
        ({"pvcRef": "Claim"}, "should match"),
        ({"pvcRef": "a..b"}, "should match"),
        ({"pvcRef": "c" * 254}, "may not be more than 253"),
    ],
    ids=["neither", "both", "both-short", "empty", "capital", "no-name", "long"],
)
def test_a_cache_of_a_namespace_names_groups_or_a_claim(
    kserve: KServeWorld, spec: KubeObject, why: str
) -> None:
    kserve.space(SPACE)
    assert why in kserve.refused(_cache("either", SPACE, **spec))


def test_pvc_ref_is_immutable_and_may_be_long(kserve: KServeWorld) -> None:
    kserve.space(SPACE)
    longest = ".".join(["c" * 63] * 3 + ["c" * 61])
    kserve.make(_cache("fixed", SPACE, pvcRef=longest))
    with pytest.raises(ApiError, match="pvcRef is immutable"):
        _patch(kserve, "fixed", {"spec": {"pvcRef": "another"}})
    with pytest.raises(ApiError, match="pvcRef is immutable"):
        _patch(kserve, "fixed", {"spec": {"pvcRef": None, "nodeGroups": ["newer"]}})
    kserve.make(_cache("grouped", SPACE, nodeGroups=["newer"]))
    with pytest.raises(ApiError, match="pvcRef is immutable"):
        _patch(kserve, "grouped", {"spec": {"pvcRef": "claim", "nodeGroups": None}})
    names = ("fixed", "grouped")
    for name in names:
        kserve.delete(NAMESPACE_CACHES, name, SPACE)

    def are_gone() -> bool:
        return not any(kserve.find(NAMESPACE_CACHES, name, SPACE) for name in names)

    kserve.until(are_gone, "them to go", SECONDS)


def test_pvc_ref_is_no_field_of_a_localmodelcache(kserve: KServeWorld) -> None:
    """As in KServe: kubectl refuses the unknown field, and who does not ask has it dropped."""
    cache = _cache("plain", nodeGroups=["newer"], pvcRef="claim")
    with pytest.raises(ApiError, match=r'unknown field "spec.pvcRef"'):
        kserve.api.create(cache, dry_run=True, strict=True)
    assert "pvcRef" not in kserve.api.create(cache, dry_run=True)["spec"]
    with pytest.raises(ApiError, match="nodeGroups"):
        kserve.api.create(_cache("plain", pvcRef="claim"), dry_run=True)


def test_fields_of_newer_versions_stay(kserve: KServeWorld) -> None:
    tolerations = [{"key": "gpu", "operator": "Exists", "ofANewerVersion": 1}]
    group = kserve.kserve_group("tolerant", "node-2")
    of_kserve = {"tolerations": tolerations, "jobTolerations": tolerations}
    kserve.make(
        {name: group[name] for name in ("apiVersion", "kind")}
        | {"metadata": {"name": "tolerant"}, "spec": group["spec"] | of_kserve}
    )
    secrets = [{"name": "registry"}]
    kserve.kserve_cache("pulled", "tolerant", imagePullSecrets=secrets)
    kserve.until(lambda: kserve.status("pulled").get("conditions"), "the hooks to see it", SECONDS)
    kserve.patch(CACHES, "pulled", {"metadata": {"labels": {"seen": "yes"}}})
    kserve.patch(GROUPS, "tolerant", {"spec": {"storageLimit": "11Gi"}})
    assert kserve.api.get(CACHES, "pulled")["spec"]["imagePullSecrets"] == secrets
    assert of_kserve.items() <= kserve.api.get(GROUPS, "tolerant")["spec"].items()


@pytest.mark.parametrize(
    "uri",
    [
        "git://host/model.git",
        "git+https://host/model.git",
        "https://host/model.git",
        "model-registry://iris/v1",
        "modelscope://owner/model:master",
        "oci+fetch://registry/model:v1",
        "oci+modelcar://registry/model:v1",
        "oci+native://registry/model@sha256:0",
        "oci://registry:5000/model",
    ],
)
def test_what_kserve_has_schemes_for_is_taken(kserve: KServeWorld, uri: str) -> None:
    cache = _cache("scheme", nodeGroups=["newer"], sourceModelUri=uri)
    kserve.api.create(cache, dry_run=True)


@pytest.mark.parametrize(
    "uri", ["s4://b/m", "S3://b/m", "ocu://r/m", "oci+://r/m", "oci+fetch:/r/m", "git+:", "oci://"]
)
def test_what_is_mistyped_is_refused_with_the_schemes(kserve: KServeWorld, uri: str) -> None:
    why = kserve.refused(_cache("scheme", nodeGroups=["newer"], sourceModelUri=uri))
    assert "must begin with one of" in why
    assert "s3://" in why
    assert "oci+fetch://" in why
