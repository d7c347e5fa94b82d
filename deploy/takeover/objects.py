"""Facts about caches, pods and other objects, from their JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy.kube import meta
from deploy.takeover import names

if TYPE_CHECKING:
    from collections.abc import Collection

    from deploy.kube.kinds import KubeObject

_ENDED = ("Succeeded", "Failed")


def services_of(cache: KubeObject) -> list[str]:
    """The services that a cache's status lists, each as namespace/name."""
    status = cache.get("status") or {}
    return [
        f"{service['namespace']}/{service['name']}"
        for field in ("inferenceServices", "llmInferenceServices")
        for service in status.get(field) or ()
    ]


def is_imported(cache: KubeObject) -> bool:
    """Whether KServe's controller imports a cache's model into a claim."""
    return "namespace" in cache["metadata"] and bool(cache["spec"].get("pvcRef"))


def is_empty(node: KubeObject) -> bool:
    """Whether a LocalModelNode lists no models, and its agent has reported after that none is left.

    A LocalModelNode without a status never had an agent, and so no models.
    """
    if node.get("spec", {}).get("localModels"):
        return False
    status = node.get("status") or {}
    if not status:
        return True
    generation = node["metadata"]["generation"]
    return not status.get("models") and status.get("observedGeneration", 0) >= generation


def has_ended(pod: KubeObject) -> bool:
    """Whether a pod is over: none of its containers will run again."""
    return (pod.get("status") or {}).get("phase") in _ENDED


def mounted_claims(pod: KubeObject) -> set[str]:
    """Names of the claims that a pod mounts, in its namespace."""
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or ()
        if volume.get("persistentVolumeClaim")
    }


def helm_release(obj: KubeObject) -> tuple[str, str] | None:
    """Namespace and name of the Helm release that made an object; None without one."""
    found = meta.annotations_of(obj)
    if names.HELM_RELEASE not in found:
        return None
    return found.get(names.HELM_NAMESPACE, "default"), found[names.HELM_RELEASE]


def without_finalizers(obj: KubeObject, unwanted: Collection[str]) -> list[dict[str, Any]]:
    """The JSON patch that removes finalizers from an object; empty if it has none of them.

    A test before each removal makes the patch fail if the list was changed meanwhile. The removals
    go from the end of the list, because each moves the items after it.
    """
    patch: list[dict[str, Any]] = []
    for index, name in reversed(list(enumerate(meta.finalizers(obj)))):
        if name in unwanted:
            path = f"/metadata/finalizers/{index}"
            patch.append({"op": "test", "path": path, "value": name})
            patch.append({"op": "remove", "path": path})
    return patch
