"""Performs one step on the API server."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from deploy.kube.errors import ApiError, ConflictError, NotFoundError
from deploy.kube.kinds import LOCAL_MODEL_NODES, KubeObject
from deploy.takeover import objects
from deploy.takeover.sentences import first_few
from deploy.takeover.steps import Delete, DropFinalizers, Empty, Merge

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient
    from deploy.takeover.steps import Action

POLL_SECONDS = 0.5
_NO_MODELS: KubeObject = {"spec": {"localModels": []}}
PATCH_SECONDS = 15.0
# The object was just deleted; a conflict; a test of the patch failed; and 500, because the API
# server calls a webhook for a moment after the webhook was deleted.
_RETRIED = (404, 409, 422, 500)


class DeletionTimeoutError(Exception):
    """A deletion did not end in time. The message says what may hold it, and what to do."""


class ModelsLeftError(Exception):
    """Nodes still have models. The message names the nodes, and says what to do."""


def perform(api: KubeClient, action: Action, *, wait_seconds: float) -> None:
    """Perform an action; if it was done already, do nothing.

    wait_seconds: the timeout of a Delete with `wait`, and of Empty. Raises ApiError,
    DeletionTimeoutError, ModelsLeftError.
    """
    match action:
        case DropFinalizers():
            _drop_finalizers(api, action)
        case Merge(ref, change):
            with suppress(NotFoundError):
                api.patch(ref.kind, ref.name, change, ref.namespace)
        case Delete(ref, uid, wait):
            # A conflict means another object of that name, which was not observed.
            with suppress(NotFoundError, ConflictError):
                api.delete(*ref, uid=uid, foreground=wait)
            if wait:
                _wait_until_gone(api, action, wait_seconds)
        case Empty():
            _wait_until_empty(api, wait_seconds)


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
            if error.status not in _RETRIED or time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


def _wait_until_gone(api: KubeClient, action: Delete, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _exists(api, action):
        if time.monotonic() > deadline:
            raise DeletionTimeoutError(
                f"{action.ref} is still there after {seconds:g} s: its pods have not ended, or "
                "a finalizer holds it; check its pods and finalizers, and run this again",
            )
        time.sleep(POLL_SECONDS)


def _exists(api: KubeClient, action: Delete) -> bool:
    found = api.find(*action.ref)
    return found is not None and found["metadata"]["uid"] == action.uid


def _wait_until_empty(api: KubeClient, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        nodes = api.find_all(LOCAL_MODEL_NODES)
        for node in nodes:
            # Again and again: a call of the hooks that was under way may list models once more.
            if node.get("spec", {}).get("localModels"):
                with suppress(NotFoundError):
                    api.patch(LOCAL_MODEL_NODES, node["metadata"]["name"], _NO_MODELS)
        left = [node["metadata"]["name"] for node in nodes if not objects.is_empty(node)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise ModelsLeftError(
                f"after {seconds:g} s, agents still report models, or nothing: "
                f"{first_few(left)}. See that a pod of the agent runs on the node, that no pod of "
                "the node mounts a model, and run this again; if the node is gone for good, delete "
                "the Node and its LocalModelNode"
            )
        time.sleep(POLL_SECONDS)
