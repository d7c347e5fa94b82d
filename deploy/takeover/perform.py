"""Does one step of a plan on the API server."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from deploy.kube.errors import ApiError, ConflictError, NotFoundError
from deploy.takeover import objects
from deploy.takeover.steps import Delete, DropFinalizers, Merge

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient
    from deploy.takeover.steps import Action

POLL_SECONDS = 0.5
PATCH_SECONDS = 15.0
# Of a change of what is just going, of a conflict, of a patch whose test fails; and of a webhook
# that the API server calls for a moment after it was deleted.
_ONCE_MORE = (404, 409, 422, 500)


class StillThereError(Exception):
    """What was deleted did not go in time. The message says what holds it, and what to do."""


def perform(api: KubeClient, action: Action, *, wait_seconds: float) -> None:
    """Do it, and find it done where somebody was faster. Raises ApiError, StillThereError.

    wait_seconds: how long a deletion that is waited for may take.
    """
    match action:
        case DropFinalizers():
            _drop_finalizers(api, action)
        case Merge(ref, change):
            with suppress(NotFoundError):
                api.patch(ref.kind, ref.name, change, ref.namespace)
        case Delete(ref, uid, wait):
            # A conflict is another object of that name, which nobody has looked at.
            with suppress(NotFoundError, ConflictError):
                api.delete(*ref, uid=uid, foreground=wait)
            if wait:
                _wait_until_gone(api, action, wait_seconds)


def _drop_finalizers(api: KubeClient, action: DropFinalizers) -> None:
    deadline = time.monotonic() + PATCH_SECONDS
    ref = action.ref
    while True:
        found = api.find(*ref)
        patch = objects.without_finalizers(found, action.finalizers) if found else []
        if not patch:
            return
        try:
            api.patch(ref.kind, ref.name, patch, ref.namespace)
        except ApiError as error:
            if error.status not in _ONCE_MORE or time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


def _wait_until_gone(api: KubeClient, action: Delete, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _is_there(api, action):
        if time.monotonic() > deadline:
            raise StillThereError(
                f"{action.ref} is still there after {seconds:g} s: its pods have not ended, or "
                "somebody's finalizer holds it; look at it, and run this again",
            )
        time.sleep(POLL_SECONDS)


def _is_there(api: KubeClient, action: Delete) -> bool:
    found = api.find(*action.ref)
    return found is not None and found["metadata"]["uid"] == action.uid
