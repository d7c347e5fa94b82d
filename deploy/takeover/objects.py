"""What objects of Kubernetes say of themselves. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy.takeover import names

if TYPE_CHECKING:
    from collections.abc import Collection

    from deploy.kube.kinds import KubeObject

_ENDED = ("Succeeded", "Failed")


def finalizers(obj: KubeObject) -> list[str]:
    """Its finalizers, in their order."""
    return obj["metadata"].get("finalizers") or []


def annotations_of(obj: KubeObject) -> dict[str, str]:
    """Its annotations."""
    return obj["metadata"].get("annotations") or {}


def labels_of(obj: KubeObject) -> dict[str, str]:
    """Its labels."""
    return obj["metadata"].get("labels") or {}


def owners(obj: KubeObject) -> list[dict[str, Any]]:
    """References to its owners."""
    return obj["metadata"].get("ownerReferences") or []


def controller(obj: KubeObject) -> dict[str, Any]:
    """The reference to the owner that controls it; empty where none does."""
    return next((owner for owner in owners(obj) if owner.get("controller")), {})


def is_going(obj: KubeObject) -> bool:
    """Whether its deletion was asked for."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def users(cache: KubeObject) -> list[str]:
    """The services that a cache's status lists, each as namespace/name."""
    status = cache.get("status") or {}
    return [
        f"{service['namespace']}/{service['name']}"
        for field in ("inferenceServices", "llmInferenceServices")
        for service in status.get(field) or ()
    ]


def is_imported(cache: KubeObject) -> bool:
    """Whether a cache is KServe's controller's to import, into a claim."""
    return "namespace" in cache["metadata"] and bool(cache["spec"].get("pvcRef"))


def has_ended(pod: KubeObject) -> bool:
    """Whether no container of a pod will run again."""
    return (pod.get("status") or {}).get("phase") in _ENDED


def mounted_claims(pod: KubeObject) -> set[str]:
    """Names of the claims that a pod mounts, in its namespace."""
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or ()
        if volume.get("persistentVolumeClaim")
    }


def helm_release(obj: KubeObject) -> tuple[str, str] | None:
    """Namespace and name of the Helm release that made it, or None."""
    found = annotations_of(obj)
    if names.HELM_RELEASE not in found:
        return None
    return found.get(names.HELM_NAMESPACE, "default"), found[names.HELM_RELEASE]


def without_finalizers(obj: KubeObject, unwanted: Collection[str]) -> list[dict[str, Any]]:
    """The JSON patch that takes finalizers off; empty if it has none of them.

    Each removal is guarded by a test, so that it fails where somebody has changed the list since.
    From the end, since a removal moves those behind it.
    """
    patch: list[dict[str, Any]] = []
    for index, name in reversed(list(enumerate(finalizers(obj)))):
        if name in unwanted:
            path = f"/metadata/finalizers/{index}"
            patch.append({"op": "test", "path": path, "value": name})
            patch.append({"op": "remove", "path": path})
    return patch
