"""A status that the API server stores: 1.5 MiB for the whole object, its spec included. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from crds.node import LocalModelNodeStatus, NodeModelStatus

# hooks.object_size has what is left of it for the spec.
STATUS_BYTES = 800_000
# A message that is cut still says what is the matter.
_SHORT_MESSAGE = 120
# An entry without names and message, and its line in modelStatus.
_ENTRY_BYTES = 320
_TIMES_BYTES = 80
_MANIFEST_HASH_BYTES = 96
_RECEIVED_BYTES = 64
_BARE_ENTRY_BYTES = 160


def storable(status: LocalModelNodeStatus) -> LocalModelNodeStatus:
    """The status with every model: messages are cut, then left out, then all but states."""
    for shorten in (None, _cut, _without_message, _bare):
        shorter = _each(status, shorten) if shorten else status
        each = _BARE_ENTRY_BYTES if shorten is _bare else _ENTRY_BYTES
        if sum(_bytes(model, each) for model in shorter.models) <= STATUS_BYTES:
            return shorter
    return shorter


def _bytes(model: NodeModelStatus, each: int) -> int:
    names = 2 * (len(model.name) + len(model.namespace))
    has_times = model.downloaded_time or model.estimated_completion_time
    times = _TIMES_BYTES if has_times or model.last_download_seconds is not None else 0
    told = _MANIFEST_HASH_BYTES if model.manifest_hash else 0
    told += _RECEIVED_BYTES if model.origin_bytes is not None else 0
    return each + names + times + told + len((model.message or "").encode())


def _each(
    status: LocalModelNodeStatus, shorten: Callable[[NodeModelStatus], NodeModelStatus]
) -> LocalModelNodeStatus:
    return status.model_copy(update={"models": tuple(map(shorten, status.models))})


def _cut(model: NodeModelStatus) -> NodeModelStatus:
    if model.message is None or len(model.message) <= _SHORT_MESSAGE:
        return model
    return model.model_copy(update={"message": model.message[: _SHORT_MESSAGE - 1] + "…"})


def _without_message(model: NodeModelStatus) -> NodeModelStatus:
    return model.model_copy(update={"message": None})


def _bare(model: NodeModelStatus) -> NodeModelStatus:
    return type(model)(
        name=model.name,
        namespace=model.namespace,
        key=model.key,
        state=model.state,
        cached=model.cached,
        size=model.size,
    )
