"""The cached objects of a kind, with the indexes that syncs need."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING

from deploy.kube import meta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.kube.kinds import KubeObject

Key = tuple[str, str]
# The old and the new object: None before the creation, and after the deletion.
Change = tuple["KubeObject | None", "KubeObject | None"]

# The index key of objects without a controller.
NOBODY = ""


class Store:
    """Objects by namespace and name, and by the uid of their controller.

    The objects are shared: copy an object before you change it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[Key, KubeObject] = {}
        self._owned: defaultdict[str, dict[Key, KubeObject]] = defaultdict(dict)

    def get(self, namespace: str, name: str) -> KubeObject | None:
        """An object; None if it is not cached."""
        with self._lock:
            return self._objects.get((namespace, name))

    def all(self) -> list[KubeObject]:
        """Every object."""
        with self._lock:
            return list(self._objects.values())

    def owned_by(self, uid: str) -> list[KubeObject]:
        """The objects whose controller has this uid; with NOBODY, objects without a controller."""
        with self._lock:
            return list(self._owned.get(uid, {}).values())

    def put(self, obj: KubeObject) -> Change:
        """Add or replace an object."""
        with self._lock:
            return self._put(obj)

    def remove(self, obj: KubeObject) -> Change:
        """Remove an object. obj: its last state."""
        with self._lock:
            self._take(_key(obj))
        return obj, None

    def replace(self, listed: Iterable[KubeObject]) -> list[Change]:
        """Replace all objects by those of a list, and return the changes."""
        listed = list(listed)
        with self._lock:
            gone = set(self._objects) - {_key(obj) for obj in listed}
            changes: list[Change] = [(self._take(key), None) for key in gone]
            for obj in listed:
                old, new = self._put(obj)
                same = old is not None and (
                    meta.resource_version(old) == meta.resource_version(obj)
                )
                if not same:
                    changes.append((old, new))
        return changes

    def _put(self, obj: KubeObject) -> Change:
        old = self._take(_key(obj))
        self._objects[_key(obj)] = obj
        self._owned[_owner(obj)][_key(obj)] = obj
        return old, obj

    def _take(self, key: Key) -> KubeObject | None:
        old = self._objects.pop(key, None)
        if old is not None:
            owned = self._owned[_owner(old)]
            del owned[key]
            if not owned:
                del self._owned[_owner(old)]
        return old


def _key(obj: KubeObject) -> Key:
    return meta.namespace(obj), meta.name(obj)


def _owner(obj: KubeObject) -> str:
    return str((meta.controller_of(obj) or {}).get("uid", NOBODY))
