"""KServe's CRDs of the kinds that localmodel has too, with KServe's fields only."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from deploy.kube.errors import ApiError
from deploy.kube.kinds import CRDS, POLICY_BINDINGS
from deploy.local.layout import CHECKOUT
from deploy.local.manifests import MANAGER, parse
from deploy.local.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject

POLICY = "localmodel-crds"

OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
STRING = {"type": "string"}
WORDS = {"type": "object", "additionalProperties": STRING}
MODEL = {
    "sourceModelUri": STRING,
    "serviceAccountName": STRING,
    "storage": OPEN,
}
CACHE: dict[str, Any] = {
    "spec": MODEL
    | {
        "modelSize": {"x-kubernetes-int-or-string": True},
        "nodeGroups": {"type": "array", "items": STRING},
        "imagePullSecrets": {"type": "array", "items": OPEN},
    },
    "status": {
        "conditions": {"type": "array", "items": OPEN},
        "sharedPVCImport": OPEN,
        "nodeStatus": WORDS,
        "copies": OPEN,
        "inferenceServices": {"type": "array", "items": OPEN},
        "llmInferenceServices": {"type": "array", "items": OPEN},
    },
}
# The fields of KServe's types, without their descriptions.
KSERVE: dict[str, dict[str, Any]] = {
    "localmodelcaches": CACHE,
    "localmodelnamespacecaches": CACHE | {"spec": CACHE["spec"] | {"pvcRef": STRING}},
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
            "tolerations": {"type": "array", "items": OPEN},
        },
        "status": {
            "used": {"x-kubernetes-int-or-string": True},
            "available": {"x-kubernetes-int-or-string": True},
        },
    },
}


def ours(plural: str) -> KubeObject:
    """Localmodel's CRD."""
    path = CHECKOUT / f"crds/manifests/serving.kserve.io_{plural}.yaml"
    crd: KubeObject = yaml.safe_load(path.read_text())
    return crd


def kserves(plural: str) -> KubeObject:
    """KServe's CRD of that name."""
    crd = ours(plural)
    properties = {
        part: {"type": "object", "properties": fields} for part, fields in KSERVE[plural].items()
    }
    version: KubeObject = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }
    if plural != "localmodelnodegroups":
        version["subresources"] = {"status": {}}
    crd["spec"]["versions"] = [version]
    return crd


def replace(api: KubeClient, crd: KubeObject, *, dry_run: bool = False) -> None:
    """Replace a CRD, as an upgrade of a chart does."""
    stored = api.get(CRDS, crd["metadata"]["name"])
    stored["spec"] = crd["spec"]
    api.replace(stored, dry_run=dry_run)


def refusal(api: KubeClient, crd: KubeObject) -> str:
    """Try to replace a CRD without writing it. Returns why that is refused, or empty."""
    try:
        replace(api, crd, dry_run=True)
    except ApiError as error:
        return error.message
    return ""


@contextmanager
def unguarded(api: KubeClient) -> Iterator[None]:
    """Remove the policy that protects localmodel's CRDs, as on Kubernetes older than 1.30."""
    text = (CHECKOUT / "deploy/overlays/kserve/policies.yaml").read_text()
    (binding,) = (
        one
        for one in parse(text, hooks_url="")
        if one["kind"] == POLICY_BINDINGS.name and one["metadata"]["name"] == POLICY
    )
    api.delete(POLICY_BINDINGS, POLICY)
    crd = kserves("localmodelnodes")
    wait_until(lambda: not refusal(api, crd), "the policy to be out of force", seconds=10)
    try:
        yield
    finally:
        api.apply(binding, manager=MANAGER)
