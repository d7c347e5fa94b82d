"""Which important models a node's startup taint waits for, and the words for that. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.control import reasons
from agent.structs.failures import DISK_KINDS, TRANSIENT_KINDS, FailureKind
from crds.quantity import format_quantity
from crds.states import ModelState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.control.wanted import Wanted
    from crds.node import NodeModelStatus

# Failures of a model that stay until a person acts. A failed disk is a failure of the node, which
# can serve no model: its taint stays.
FINAL_KINDS = frozenset(FailureKind) - TRANSIENT_KINDS - DISK_KINDS

_AWAITS_ANOTHER = {reasons.AWAITING_CLUSTER_CACHE, reasons.AWAITING_OLDER_CACHE}
_MAX_NAMED = 10


@dataclass(frozen=True)
class Important:
    """The models of a node at or above a priority, by what the startup taint has to expect of them.

    `awaited` are on their way. `given_up` will not come without a change: failed, evicted, or too
    large for the node.
    """

    priority: int
    cached: tuple[NodeModelStatus, ...] = ()
    awaited: tuple[NodeModelStatus, ...] = ()
    given_up: tuple[NodeModelStatus, ...] = ()

    @property
    def states(self) -> frozenset[tuple[str, ...]]:
        """The states of the models, without progress."""
        return frozenset(
            (*model.identity, model.state.value, model.reason or "")
            for model in (*self.cached, *self.awaited, *self.given_up)
        )

    @property
    def message(self) -> str:
        """How many models are cached, and the names of the others."""
        total = len(self.cached) + len(self.awaited) + len(self.given_up)
        if not total:
            return f"no model of priority {self.priority} or higher is listed for this node"
        noun = "model" if total == 1 else "models"
        text = (
            f"{len(self.cached)} of {total} {noun} of priority {self.priority} or higher "
            f"{'is' if total == 1 else 'are'} cached"
        )
        if self.awaited:
            text += f"; on the way: {_named(self.awaited)}"
        if self.given_up:
            text += f"; not waited for: {_named(self.given_up)}"
        return text


def important_models(wanted: Wanted, models: Iterable[NodeModelStatus], priority: int) -> Important:
    """The entries of `wanted` at or above the priority. `models` is the status of all entries."""
    by_identity = {model.identity: model for model in models}
    listed = [
        (entry.model.priority, by_identity[entry.identity])
        for entry in wanted.entries
        if entry.identity in by_identity
    ]
    # An entry that waits for another cache's copy is on its way only while that copy is.
    coming = {
        model.key
        for _, model in listed
        if not model.cached and not _is_final(model) and model.reason not in _AWAITS_ANOTHER
    }
    found: dict[str, list[NodeModelStatus]] = {"cached": [], "awaited": [], "given_up": []}
    for importance, model in listed:
        if importance < priority:
            continue
        if model.cached:
            found["cached"].append(model)
        elif _is_final(model) or (model.reason in _AWAITS_ANOTHER and model.key not in coming):
            found["given_up"].append(model)
        else:
            found["awaited"].append(model)
    return Important(priority, **{kind: tuple(some) for kind, some in found.items()})


def _is_final(model: NodeModelStatus) -> bool:
    """Whether the model does not come without a change of something else."""
    if model.state is ModelState.EVICTED:
        return True
    if model.state is ModelState.FAILED:
        return model.reason in FINAL_KINDS
    return model.state is ModelState.PENDING and model.reason in reasons.NO_ROOM


def _named(models: Sequence[NodeModelStatus]) -> str:
    shown = ", ".join(map(_described, models[:_MAX_NAMED]))
    rest = len(models) - _MAX_NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown


def _described(model: NodeModelStatus) -> str:
    name = f"{model.namespace}/{model.name}" if model.namespace else model.name
    details = [model.reason] if model.reason else []
    if model.downloaded_bytes is not None and model.size:
        done, size = format_quantity(model.downloaded_bytes), format_quantity(model.size)
        details.append(f"{done} of {size}")
    told = f": {', '.join(details)}" if details else ""
    return f"{name} ({model.state.value}{told})"
