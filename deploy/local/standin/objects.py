"""Objects in hook requests: their keys, and their equality. Pure."""

from __future__ import annotations

from deploy.kube import meta
from deploy.kube.kinds import KubeObject

# Hook version v2: `<Kind>.<apiVersion>` -> name or namespace/name -> object.
ObjectMap = dict[str, dict[str, KubeObject]]

GC_FINALIZERS = ("foregroundDeletion", "orphan")


def api_group(api_version: str) -> str:
    """The group of an apiVersion; empty for the core group."""
    return api_version.rpartition("/")[0]


def group_key(api_version: str, kind: str) -> str:
    """Key of a kind in a hook request."""
    return f"{kind}.{api_version}"


def object_key(obj: KubeObject) -> str:
    """Key of an object within its kind in a hook request."""
    return f"{meta.namespace(obj)}/{meta.name(obj)}" if meta.namespace(obj) else meta.name(obj)


def describe(obj: KubeObject) -> str:
    """Kind, namespace and name of an object, for messages."""
    return f"{obj.get('kind', '')} {object_key(obj)}"


def insert(objects: ObjectMap, obj: KubeObject) -> None:
    """Add an object to a map; it replaces an object with the same keys."""
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
