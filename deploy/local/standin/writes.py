"""Writes to the API server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deploy.kube.errors import ConflictError, NotFoundError
from deploy.kube.kinds import ref_to
from deploy.local.standin import objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import Kind
    from deploy.local.standin.objects import Object

FIELD_MANAGER = "metacontroller"
# Seconds to wait before each new try after a conflict.
CONFLICT_WAITS = (0.01, 0.05, 0.25)


class Writer:
    """Writes objects as Metacontroller's field manager."""

    def __init__(self, api: KubeClient) -> None:
        self._api = api

    def apply(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply with force."""
        return self._api.apply(obj, manager=FIELD_MANAGER, dry_run=dry_run)

    def delete(self, resource: Kind, obj: Object) -> None:
        """Delete an object, if it still is this one; its dependents go in the background."""
        self._api.delete(*ref_to(resource, obj), uid=objects.uid(obj))

    def update(self, obj: Object, subresource: str = "") -> Object:
        """Replace an object or its status, if it still has this version."""
        return self._api.replace(obj, manager=FIELD_MANAGER, subresource=subresource)

    def change(
        self,
        resource: Kind,
        known: Object,
        edit: Callable[[Object], bool],
        subresource: str = "",
    ) -> Object:
        """Read, edit and replace an object, again after a conflict.

        The edit returns whether it changed anything. Raises NotFoundError when the object was
        deleted or replaced, ConflictError when the tries were in vain.
        """
        waits = iter(CONFLICT_WAITS)
        while True:
            current = self._api.get(*ref_to(resource, known))
            if objects.uid(current) != objects.uid(known):
                raise NotFoundError(f"changing {objects.describe(known)}", "it was replaced", 404)
            if not edit(current):
                return current
            try:
                return self.update(current, subresource)
            except ConflictError:
                wait = next(waits, None)
                if wait is None:
                    raise
            time.sleep(wait)

    def add_finalizer(self, resource: Kind, obj: Object, finalizer: str) -> Object:
        """Add a finalizer, if it is missing."""

        def edit(current: Object) -> bool:
            if finalizer in objects.finalizers(current):
                return False
            current["metadata"]["finalizers"] = [*objects.finalizers(current), finalizer]
            return True

        return self.change(resource, obj, edit)

    def remove_finalizer(self, resource: Kind, obj: Object, finalizer: str) -> Object:
        """Remove a finalizer, if it is there."""

        def edit(current: Object) -> bool:
            return drop_finalizer(current, finalizer)

        return self.change(resource, obj, edit)


def drop_finalizer(obj: Object, finalizer: str) -> bool:
    """Take a finalizer out of an object in memory; whether it was there."""
    kept = [name for name in objects.finalizers(obj) if name != finalizer]
    if len(kept) == len(objects.finalizers(obj)):
        return False
    obj["metadata"]["finalizers"] = kept
    return True
