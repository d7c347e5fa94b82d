"""Writes objects to the API server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.kube.errors import ConflictError, NotFoundError
from deploy.kube.kinds import ref_to
from deploy.local.standin import objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import Kind, KubeObject

FIELD_MANAGER = "metacontroller"
# Seconds before each retry after a conflict.
CONFLICT_WAITS = (0.01, 0.05, 0.25)


class Writer:
    """Writes objects as Metacontroller's field manager."""

    def __init__(self, api: KubeClient) -> None:
        self._api = api

    def apply(self, obj: KubeObject, *, dry_run: bool = False) -> KubeObject:
        """Server-side apply with force."""
        return self._api.apply(obj, manager=FIELD_MANAGER, dry_run=dry_run)

    def delete(self, resource: Kind, obj: KubeObject) -> None:
        """Delete an object if its uid is the same, with its dependents in the background."""
        self._api.delete(*ref_to(resource, obj), uid=meta.uid(obj))

    def update(self, obj: KubeObject, subresource: str = "") -> KubeObject:
        """Replace an object or its status, if its resourceVersion is the same."""
        return self._api.replace(obj, manager=FIELD_MANAGER, subresource=subresource)

    def change(
        self,
        resource: Kind,
        known: KubeObject,
        edit: Callable[[KubeObject], bool],
        subresource: str = "",
    ) -> KubeObject:
        """Read, edit and replace an object, with retries after a conflict.

        edit: changes the object and returns whether it did. Raises NotFoundError if the object was
        deleted or has another uid, ConflictError after the last try.
        """
        waits = iter(CONFLICT_WAITS)
        while True:
            current = self._api.get(*ref_to(resource, known))
            if meta.uid(current) != meta.uid(known):
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

    def add_finalizer(self, resource: Kind, obj: KubeObject, finalizer: str) -> KubeObject:
        """Add a finalizer to an object, if it is missing."""

        def edit(current: KubeObject) -> bool:
            if finalizer in meta.finalizers(current):
                return False
            current["metadata"]["finalizers"] = [*meta.finalizers(current), finalizer]
            return True

        return self.change(resource, obj, edit)

    def remove_finalizer(self, resource: Kind, obj: KubeObject, finalizer: str) -> KubeObject:
        """Remove a finalizer from an object, if it is set."""

        def edit(current: KubeObject) -> bool:
            return drop_finalizer(current, finalizer)

        return self.change(resource, obj, edit)


def drop_finalizer(obj: KubeObject, finalizer: str) -> bool:
    """Remove a finalizer from an object in memory. Returns whether it was set."""
    kept = [name for name in meta.finalizers(obj) if name != finalizer]
    if len(kept) == len(meta.finalizers(obj)):
        return False
    obj["metadata"]["finalizers"] = kept
    return True
