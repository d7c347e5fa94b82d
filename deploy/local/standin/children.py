"""Decides which children to adopt, release, delete and apply. Pure."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from deploy.kube import meta
from deploy.local.standin import objects
from deploy.local.standin.errors import SyncError

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject
    from deploy.local.standin.objects import ObjectMap

CONTROLLER_UID = "controller-uid"
DECORATOR_ANNOTATION = "metacontroller.k8s.io/decorator-controller"
LAST_APPLIED_ANNOTATION = "metacontroller.k8s.io/last-applied-configuration"

SYSTEM_METADATA = (
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
)


class Claim(Enum):
    """The action of a composite on an object of one of its child kinds."""

    KEEP = auto()
    RELEASE = auto()
    ADOPT = auto()
    IGNORE = auto()


def claim(parent: KubeObject, obj: KubeObject) -> Claim:
    """Whether a parent keeps, adopts, releases or ignores an object."""
    matches = meta.labels(obj).get(CONTROLLER_UID) == meta.uid(parent)
    controller = meta.controller_of(obj)
    if controller is not None:
        if controller.get("uid") != meta.uid(parent):
            return Claim.IGNORE
        if matches:
            return Claim.KEEP
        return Claim.IGNORE if meta.is_deleting(parent) else Claim.RELEASE
    if matches and not meta.is_deleting(parent) and not meta.is_deleting(obj):
        return Claim.ADOPT
    return Claim.IGNORE


def controller_reference(parent: KubeObject) -> dict[str, Any]:
    """The owner reference that makes a parent the controller of an object."""
    return {
        "apiVersion": parent["apiVersion"],
        "kind": parent["kind"],
        "name": meta.name(parent),
        "uid": meta.uid(parent),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def desired_map(parent: KubeObject, children: list[KubeObject]) -> ObjectMap:
    """The desired children by key. A child without a namespace is put in the parent's."""
    desired: ObjectMap = {}
    for child in children:
        metadata = {**meta.metadata(child)}
        if meta.namespace(parent) and not metadata.get("namespace"):
            metadata["namespace"] = meta.namespace(parent)
        objects.insert(desired, {**child, "metadata": metadata})
    return desired


def label_for(parent: KubeObject, child: KubeObject) -> None:
    """Set the label of the generated selector on a composite's desired child.

    Raises SyncError if the child's own labels do not match the selector.
    """
    metadata = child.setdefault("metadata", {})
    labels = metadata.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise SyncError(f"invalid labels on desired child {objects.describe(child)}")
    metadata["labels"] = labels = {CONTROLLER_UID: meta.uid(parent), **labels}
    if labels[CONTROLLER_UID] != meta.uid(parent):
        raise SyncError(
            f"labels on desired child {objects.describe(child)} don't match parent selector"
        )


def annotate_for(controller: str, child: KubeObject) -> None:
    """Set on a desired attachment the annotation that names its decorator."""
    metadata = child.setdefault("metadata", {})
    metadata["annotations"] = {**(metadata.get("annotations") or {})}
    metadata["annotations"][DECORATOR_ANNOTATION] = controller


def undesired(observed: dict[str, KubeObject], desired: dict[str, KubeObject]) -> list[KubeObject]:
    """The observed children to delete."""
    return [
        child
        for key, child in observed.items()
        if key not in desired and not meta.is_deleting(child)
    ]


def to_apply(parent: KubeObject, child: KubeObject) -> KubeObject:
    """A desired child to send: with the parent as owner, without fields that only servers write."""
    applied = comparable(child)
    metadata = applied["metadata"]
    references = metadata.get("ownerReferences") or []
    if all(reference.get("uid") != meta.uid(parent) for reference in references):
        references = [*references, controller_reference(parent)]
    metadata["ownerReferences"] = references
    return applied


def comparable(obj: KubeObject) -> KubeObject:
    """A copy of an object without its status and the fields that only servers write."""
    kept = {key: value for key, value in obj.items() if key != "status"}
    kept["metadata"] = metadata = {
        key: value for key, value in meta.metadata(obj).items() if key not in SYSTEM_METADATA
    }
    annotations = {**meta.annotations_of(obj)}
    if annotations.pop(LAST_APPLIED_ANNOTATION, None) is not None:
        metadata["annotations"] = annotations
        if not annotations:
            del metadata["annotations"]
    return kept


def digest(obj: KubeObject) -> str:
    """The hash of an object to apply."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Applied:
    """The digest of the last apply, and the versions of the object that it returned."""

    digest: str
    uid: str
    generation: int
    resource_version: str

    @classmethod
    def of(cls, digest: str, stored: KubeObject) -> Applied:
        """The record of an apply that returned the object `stored`."""
        return cls(
            digest,
            meta.uid(stored),
            meta.generation(stored),
            meta.resource_version(stored),
        )

    def holds(self, digest: str, observed: KubeObject) -> bool:
        """Whether neither the desired nor the stored object changed since, except in its status."""
        if self.digest != digest or self.uid != meta.uid(observed):
            return False
        generation = meta.generation(observed)
        if generation == 0 and self.resource_version != meta.resource_version(observed):
            return False
        return self.generation == generation


class ApplyCache:
    """The last apply to each object, for all controllers of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, ...], Applied] = {}

    def get(self, key: tuple[str, ...]) -> Applied | None:
        """The entry of an object."""
        with self._lock:
            return self._entries.get(key)

    def set(self, key: tuple[str, ...], applied: Applied) -> None:
        """Record the last apply to an object."""
        with self._lock:
            self._entries[key] = applied

    def drop(self, key: tuple[str, ...]) -> None:
        """Drop the record of an object."""
        with self._lock:
            self._entries.pop(key, None)


def cache_key(child: KubeObject) -> tuple[str, ...]:
    """Identity of an object: group, kind, namespace and name."""
    group = objects.api_group(child["apiVersion"])
    return (group, child["kind"], meta.namespace(child), meta.name(child))
