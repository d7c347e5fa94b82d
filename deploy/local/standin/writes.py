"""Writes to the API server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from deploy.local.kubeapi import ApiError, KubeApi
from deploy.local.standin import objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.local.kubeapi import Resource
    from deploy.local.standin.objects import Object

FIELD_MANAGER = "metacontroller"
# Seconds to wait before each new try after a conflict.
CONFLICT_WAITS = (0.01, 0.05, 0.25)


def is_conflict(error: ApiError) -> bool:
    """Whether a newer version of the object was there."""
    return error.reason == "Conflict"


def is_not_found(error: ApiError) -> bool:
    """Whether the object is gone."""
    return error.reason == "NotFound"


class Writer:
    """Writes objects as Metacontroller's field manager."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    def apply(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply with force."""
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        if dry_run:
            params["dryRun"] = "All"
        return self._api.request(  # type: ignore[no-any-return]
            "PATCH",
            _path(resource, obj),
            body=obj,
            params=params,
            content_type="application/apply-patch+yaml",
        )

    def delete(self, resource: Resource, obj: Object) -> None:
        """Delete an object, if it still is this one; its dependents go in the background."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": objects.uid(obj)},
            "propagationPolicy": "Background",
        }
        self._api.request("DELETE", _path(resource, obj), body=options)

    def update(self, resource: Resource, obj: Object, subresource: str = "") -> Object:
        """Replace an object or its status, if it still has this version."""
        return self._api.request(  # type: ignore[no-any-return]
            "PUT",
            _path(resource, obj, subresource),
            body=obj,
            params={"fieldManager": FIELD_MANAGER},
        )

    def change(
        self,
        resource: Resource,
        known: Object,
        edit: Callable[[Object], bool],
        subresource: str = "",
    ) -> Object:
        """Read, edit and replace an object, again after a conflict.

        The edit returns whether it changed anything. Raises ApiError: not found when the object
        was deleted or replaced, conflict when the tries were in vain.
        """
        waits = iter(CONFLICT_WAITS)
        while True:
            current = self._api.get(resource, objects.name(known), objects.namespace(known))
            if objects.uid(current) != objects.uid(known):
                raise ApiError(404, "NotFound", f"{objects.describe(known)} was replaced")
            if not edit(current):
                return current
            try:
                return self.update(resource, current, subresource)
            except ApiError as error:
                wait = next(waits, None)
                if not is_conflict(error) or wait is None:
                    raise
            time.sleep(wait)

    def add_finalizer(self, resource: Resource, obj: Object, finalizer: str) -> Object:
        """Add a finalizer, if it is missing."""

        def edit(current: Object) -> bool:
            if finalizer in objects.finalizers(current):
                return False
            current["metadata"]["finalizers"] = [*objects.finalizers(current), finalizer]
            return True

        return self.change(resource, obj, edit)

    def remove_finalizer(self, resource: Resource, obj: Object, finalizer: str) -> Object:
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


def _path(resource: Resource, obj: Object, subresource: str = "") -> str:
    return resource.path(objects.namespace(obj), objects.name(obj), subresource)
