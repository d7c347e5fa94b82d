"""Reading Kubernetes objects, which are plain dicts here. Pure."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
# Hook version v2: `<Kind>.<apiVersion>` -> name or namespace/name -> object.
ObjectMap = dict[str, dict[str, Object]]

GC_FINALIZERS = ("foregroundDeletion", "orphan")


def meta(obj: Object) -> dict[str, Any]:
    """The object's metadata; empty if it has none."""
    return obj.get("metadata") or {}


def name(obj: Object) -> str:
    """metadata.name."""
    return str(meta(obj).get("name", ""))


def namespace(obj: Object) -> str:
    """metadata.namespace; empty for a cluster-scoped object."""
    return str(meta(obj).get("namespace") or "")


def uid(obj: Object) -> str:
    """metadata.uid."""
    return str(meta(obj).get("uid", ""))


def generation(obj: Object) -> int:
    """metadata.generation; 0 for a kind that has none, such as Node."""
    return int(meta(obj).get("generation") or 0)


def resource_version(obj: Object) -> str:
    """metadata.resourceVersion."""
    return str(meta(obj).get("resourceVersion", ""))


def labels(obj: Object) -> dict[str, str]:
    """metadata.labels; empty if there are none."""
    return meta(obj).get("labels") or {}


def annotations_of(obj: Object) -> dict[str, str]:
    """metadata.annotations; empty if there are none."""
    return meta(obj).get("annotations") or {}


def finalizers(obj: Object) -> list[str]:
    """metadata.finalizers; empty if there are none."""
    return meta(obj).get("finalizers") or []


def is_deleting(obj: Object) -> bool:
    """Whether the object waits for its finalizers."""
    return bool(meta(obj).get("deletionTimestamp"))


def controller_of(obj: Object) -> dict[str, Any] | None:
    """The owner reference that is marked as the controller."""
    for reference in meta(obj).get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def api_group(api_version: str) -> str:
    """The group of an apiVersion; empty for the core group."""
    return api_version.rpartition("/")[0]


def group_key(api_version: str, kind: str) -> str:
    """Key of a kind in a hook request."""
    return f"{kind}.{api_version}"


def object_key(obj: Object) -> str:
    """Key of an object within its kind in a hook request."""
    return f"{namespace(obj)}/{name(obj)}" if namespace(obj) else name(obj)


def describe(obj: Object) -> str:
    """Kind and name, for people."""
    return f"{obj.get('kind', '')} {object_key(obj)}"


def insert(objects: ObjectMap, obj: Object) -> None:
    """Put an object under its keys. A later one replaces an earlier one."""
    group = objects.setdefault(group_key(obj.get("apiVersion", ""), obj.get("kind", "")), {})
    group[object_key(obj)] = obj


def same(left: object, right: object) -> bool:
    """Deep equality in which 1, 1.0 and True differ, as they do for Metacontroller."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right
