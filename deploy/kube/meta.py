"""Fields of an object's metadata. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject


def metadata(obj: KubeObject) -> dict[str, Any]:
    """The object's metadata; empty if it has none."""
    return obj.get("metadata") or {}


def name(obj: KubeObject) -> str:
    """metadata.name."""
    return str(metadata(obj).get("name", ""))


def namespace(obj: KubeObject) -> str:
    """metadata.namespace; empty for a cluster-scoped object."""
    return str(metadata(obj).get("namespace") or "")


def uid(obj: KubeObject) -> str:
    """metadata.uid."""
    return str(metadata(obj).get("uid", ""))


def generation(obj: KubeObject) -> int:
    """metadata.generation; 0 for a kind that has none, such as Node."""
    return int(metadata(obj).get("generation") or 0)


def resource_version(obj: KubeObject) -> str:
    """metadata.resourceVersion."""
    return str(metadata(obj).get("resourceVersion", ""))


def labels(obj: KubeObject) -> dict[str, str]:
    """metadata.labels; empty if there are none."""
    return metadata(obj).get("labels") or {}


def annotations_of(obj: KubeObject) -> dict[str, str]:
    """metadata.annotations; empty if there are none."""
    return metadata(obj).get("annotations") or {}


def finalizers(obj: KubeObject) -> list[str]:
    """metadata.finalizers, in their order; empty if there are none."""
    return metadata(obj).get("finalizers") or []


def is_deleting(obj: KubeObject) -> bool:
    """Whether the object's deletion was requested."""
    return bool(metadata(obj).get("deletionTimestamp"))


def owners(obj: KubeObject) -> list[dict[str, Any]]:
    """metadata.ownerReferences; empty if there are none."""
    return metadata(obj).get("ownerReferences") or []


def controller_of(obj: KubeObject) -> dict[str, Any] | None:
    """The owner reference that is marked as the controller."""
    return next((owner for owner in owners(obj) if owner.get("controller")), None)
