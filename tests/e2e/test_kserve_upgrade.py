"""An upgrade of KServe's chart puts its CRDs back. Named so that it comes last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import yaml

from deploy.local.layout import CHECKOUT
from deploy.local.manifests import CRD
from tests.e2e.kserve import SECONDS, KServeWorld
from tests.e2e.world import CACHES, CLAIMS, LOCAL_MODEL_NODES, PLACEMENTS

if TYPE_CHECKING:
    from deploy.local.kubeapi import Object

OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
STRING = {"type": "string"}
WORDS = {"type": "object", "additionalProperties": STRING}
MODEL = {
    "sourceModelUri": STRING,
    "serviceAccountName": STRING,
    "storage": OPEN,
}
CACHE = {
    "spec": MODEL
    | {
        "modelSize": {"x-kubernetes-int-or-string": True},
        "nodeGroups": {"type": "array", "items": STRING},
    },
    "status": {
        "nodeStatus": WORDS,
        "copies": OPEN,
        "inferenceServices": {"type": "array", "items": OPEN},
        "llmInferenceServices": {"type": "array", "items": OPEN},
    },
}
# The fields of KServe's types, without their descriptions.
KSERVE: dict[str, dict[str, Any]] = {
    "localmodelcaches": CACHE,
    "localmodelnamespacecaches": CACHE,
    "localmodelnodes": {
        "spec": {
            "localModels": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": MODEL
                    | {"modelName": STRING, "namespace": STRING, "nodeGroup": STRING},
                },
            }
        },
        "status": {"modelStatus": WORDS},
    },
    "localmodelnodegroups": {
        "spec": {
            "storageLimit": {"x-kubernetes-int-or-string": True},
            "persistentVolumeSpec": OPEN,
            "persistentVolumeClaimSpec": OPEN,
        },
        "status": {
            "used": {"x-kubernetes-int-or-string": True},
            "available": {"x-kubernetes-int-or-string": True},
        },
    },
}


def _ours(plural: str) -> Object:
    path = CHECKOUT / f"crds/manifests/serving.kserve.io_{plural}.yaml"
    crd: Object = yaml.safe_load(path.read_text())
    return crd


def _kserves(plural: str) -> Object:
    crd = _ours(plural)
    properties = {
        part: {"type": "object", "properties": fields} for part, fields in KSERVE[plural].items()
    }
    version: Object = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }
    if plural != "localmodelnodegroups":
        version["subresources"] = {"status": {}}
    crd["spec"]["versions"] = [version]
    return crd


def _replace(kserve: KServeWorld, crd: Object) -> None:
    name = crd["metadata"]["name"]
    stored = kserve.api.get(CRD, name)
    stored["spec"] = crd["spec"]
    kserve.api.request("PUT", CRD.path(name=name), body=stored)


def test_crds_that_drop_our_fields_stop_the_hooks(kserve: KServeWorld) -> None:
    kserve.kserve_group("back", "node-1")
    kserve.kserve_cache("back", "back")
    kserve.service("back-a", "chat", "back")
    kserve.wait_condition("back", "AllBound", kind="ClaimsBound")
    kserve.until(lambda: _listed(kserve), "node-1 to list it", SECONDS)
    # The last that comes of a service: all is at rest then.
    kserve.until(lambda: _referenced(kserve), "the plan to be whole", SECONDS)
    before = kserve.api.get(PLACEMENTS, "back")["spec"]
    log = kserve.cluster.logs_dir / "metacontroller.log"
    try:
        for plural in KSERVE:
            _replace(kserve, _kserves(plural))
        kserve.until(
            lambda: "conditions" not in kserve.status("back"), "the fields to be dropped", SECONDS
        )
        # Watches of the former schema go on for a second.
        time.sleep(3)
        start = log.stat().st_size
        kserve.patch(CACHES, "back", {"spec": {"modelSize": "2Mi"}})
        kserve.until(
            lambda: "came without" in log.read_text(errors="replace")[start:],
            "the hooks to say why they refuse",
            SECONDS,
        )
        told = log.read_text(errors="replace")[start:]
        assert "is not localmodel's, and drops its fields" in told
        # Nothing is changed meanwhile.
        assert kserve.api.get(PLACEMENTS, "back")["spec"] == before
        assert kserve.find(CLAIMS, "back-back", "back-a")
        assert _listed(kserve)
    finally:
        for plural in KSERVE:
            _replace(kserve, _ours(plural))

    def is_well() -> bool:
        plan = kserve.api.get(PLACEMENTS, "back")["spec"]["models"]
        status = kserve.status("back")
        sizes = [model["modelSize"] for model in plan]
        return sizes == ["2Mi"] and status.get("observedGeneration", 0) >= 2

    # A kind that was away is found again by looking.
    kserve.until(is_well, "all to go on once our CRDs are back", 120)
    kserve.wait_condition("back", "AllBound", kind="ClaimsBound")


def _listed(kserve: KServeWorld) -> list[str]:
    node = kserve.find(LOCAL_MODEL_NODES, "node-1") or {"spec": {}}
    return [m["modelName"] for m in node["spec"].get("localModels", ()) if m["modelName"] == "back"]


def _referenced(kserve: KServeWorld) -> bool:
    plan = kserve.find(PLACEMENTS, "back") or {"spec": {}}
    return [model["referenced"] for model in plan["spec"].get("models", ())] == [True]
