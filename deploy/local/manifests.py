"""Applies to a local cluster, in order, the manifests that are installed in a real cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import yaml

from deploy.kube.errors import ApiError, NotFoundError
from deploy.kube.kinds import CRDS, KubeObject
from deploy.local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from deploy.kube.client import KubeClient

MANAGER = "localmodel-local"
HOOKS_IN_CLUSTER = "localmodel-hooks.localmodel.svc:8080"
# The API server serves a kind a moment after the condition Established of its CRD.
SERVED_SECONDS = 10.0

DEFAULT_STORAGE_CLASS: KubeObject = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "kubernetes.io/no-provisioner",
}


def install_files(checkout: Path) -> list[Path]:
    """Manifests of namespaces, CRDs and RBAC, in the order in which they are applied."""
    crds = sorted((checkout / "crds" / "manifests").glob("*.yaml"))
    return [
        checkout / "deploy/base/namespace.yaml",
        checkout / "metacontroller/install/namespace.yaml",
        *(path for path in crds if path.name != "kustomization.yaml"),
        checkout / "deploy/local/standin/crds.yaml",
        checkout / "deploy/base/rbac.yaml",
        checkout / "deploy/base/roles.yaml",
        # Without its class, the API server refuses the agents' pods.
        checkout / "deploy/base/priorities.yaml",
        checkout / "metacontroller/install/rbac.yaml",
    ]


def controller_files(checkout: Path) -> list[Path]:
    """Manifests of localmodel's controllers for Metacontroller."""
    names = ("nodegroups", "nodes", "caches", "namespace-caches")
    return [checkout / f"metacontroller/{name}.yaml" for name in names]


def parse(text: str, *, hooks_url: str) -> list[KubeObject]:
    """The objects of a manifest, with host and port of the local hooks in the controllers."""
    local = text.replace(HOOKS_IN_CLUSTER, hooks_url.removeprefix("http://"))
    return [document for document in yaml.load_all(local, yaml.CSafeLoader) if document]


def read(files: Iterable[Path], *, hooks_url: str) -> list[KubeObject]:
    """The objects of manifest files, as by `parse`. Raises LocalError."""
    objects: list[KubeObject] = []
    for path in files:
        try:
            objects += parse(path.read_text(), hooks_url=hooks_url)
        except FileNotFoundError as error:
            raise LocalError(
                f"the manifest {path} is missing", todo="check that the checkout is complete"
            ) from error
        except yaml.YAMLError as error:
            raise LocalError(f"the manifest {path} is not YAML", detail=str(error)) from error
    return objects


def apply_all(api: KubeClient, objects: Sequence[KubeObject]) -> None:
    """Apply objects in their order, each when the API server serves its kind."""
    deadline = time.monotonic() + SERVED_SECONDS
    for obj in objects:
        while not _apply(api, obj, last_try=time.monotonic() > deadline):
            time.sleep(0.05)


def _apply(api: KubeClient, obj: KubeObject, *, last_try: bool) -> bool:
    try:
        api.apply(obj, manager=MANAGER)
    except ApiError as error:
        if isinstance(error, NotFoundError) and not last_try:
            return False
        what = f"{obj.get('kind')} {obj.get('metadata', {}).get('name')}"
        raise LocalError(f"the API server refuses {what}", detail=str(error)) from error
    return True


def established(api: KubeClient, names: Iterable[str]) -> bool:
    """Whether the API server serves all these CRDs."""
    ready = {
        crd["metadata"]["name"]
        for crd in api.list(CRDS)
        # The conditions are null at first.
        for condition in crd.get("status", {}).get("conditions") or ()
        if condition["type"] == "Established" and condition["status"] == "True"
    }
    return ready.issuperset(names)


def crd_names(objects: Iterable[KubeObject]) -> list[str]:
    """Names of the CRDs among some objects."""
    return [obj["metadata"]["name"] for obj in objects if obj["kind"] == CRDS.name]
