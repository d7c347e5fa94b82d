"""Does one step of a plan on the API server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from localmodel.takeover import objects
from localmodel.takeover.api import JSON_PATCH, MERGE_PATCH, ApiError
from localmodel.takeover.steps import Delete, DropFinalizers, Merge

if TYPE_CHECKING:
    from collections.abc import Callable

    from localmodel.takeover.api import Api
    from localmodel.takeover.steps import Action

POLL_SECONDS = 0.5
PATCH_SECONDS = 15.0
# Of a change of what is just going, of a conflict, of a patch whose test fails; and of a webhook
# that the API server calls for a moment after it was deleted.
_ONCE_MORE = (404, 409, 422, 500)


def perform(api: Api, action: Action, *, wait_seconds: float) -> None:
    """Do it, and find it done where somebody was faster. Raises ApiError.

    wait_seconds: how long a deletion that is waited for may take.
    """
    match action:
        case DropFinalizers():
            _drop_finalizers(api, action)
        case Merge(ref, change):
            _unless_gone(lambda: api.patch(ref, change, MERGE_PATCH))
        case Delete(ref, uid, wait):
            # A conflict is another object of that name, which nobody has looked at.
            _unless_gone(lambda: api.delete(ref, uid, foreground=wait), gone=(404, 409))
            if wait:
                _wait_until_gone(api, action, wait_seconds)


def _drop_finalizers(api: Api, action: DropFinalizers) -> None:
    deadline = time.monotonic() + PATCH_SECONDS
    while True:
        found = api.find(action.ref)
        patch = objects.without_finalizers(found, action.finalizers) if found else []
        if not patch:
            return
        try:
            api.patch(action.ref, patch, JSON_PATCH)
        except ApiError as error:
            if error.status not in _ONCE_MORE or time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


def _unless_gone(call: Callable[[], None], gone: tuple[int, ...] = (404,)) -> None:
    try:
        call()
    except ApiError as error:
        if error.status not in gone:
            raise


def _wait_until_gone(api: Api, action: Delete, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _is_there(api, action):
        if time.monotonic() > deadline:
            raise ApiError(
                0,
                f"{action.ref} is still there after {seconds:g} s: its pods have not ended, or "
                "somebody's finalizer holds it; look at it, and run this again",
            )
        time.sleep(POLL_SECONDS)


def _is_there(api: Api, action: Delete) -> bool:
    found = api.find(action.ref)
    return found is not None and found["metadata"]["uid"] == action.uid
