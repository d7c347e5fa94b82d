"""The answer for an unreadable parent: conditions say what is wrong, and its children stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from crds.cache import CacheStatus
from crds.conditions import Finding, conditions
from crds.nodegroup import LocalModelNodeGroupStatus
from hooks import reasons
from hooks.envelope import CompositeResponse, decoder, parse_foreign
from hooks.messages import MESSAGE_MAX, cut
from hooks.observed import Condition
from hooks.reading import CACHE, NAMESPACE_CACHE, NODE_GROUP, salvage
from hooks.volumes import unchanged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from msgspec import Raw
    from pydantic import BaseModel

    from hooks.envelope import CompositeRequest, Object
    from hooks.reading import UnreadableError


# By kind: the type of the status, and the conditions that say what is wrong.
_STATUS: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    CACHE: (CacheStatus, (reasons.READY, reasons.ADMITTED)),
    NAMESPACE_CACHE: (CacheStatus, (reasons.READY, reasons.ADMITTED)),
    NODE_GROUP: (LocalModelNodeGroupStatus, (reasons.READY,)),
}


def _unchanged_children(request: CompositeRequest) -> tuple[Object, ...]:
    """The existing children as desired children, unchanged."""
    return tuple(
        unchanged(parse_foreign(raw))
        for objects in request.children.values()
        for raw in objects.values()
    )


def unreadable_answer(
    request: CompositeRequest,
    error: UnreadableError,
    now: datetime,
    *,
    children: tuple[Object, ...] | None = None,
    more: Iterable[Finding] = (),
) -> CompositeResponse:
    """The answer for the parent that the error names: conditions say what is wrong with it.

    children: by default, those that exist stay as they are. more: further conditions.
    """
    parent = request.parent
    status, types = _STATUS[error.kind]
    message = cut(
        f"the object cannot be read: {error.why}: correct it (kubectl edit) or delete it; until "
        "then, what there is of it stays as it is",
        MESSAGE_MAX,
    )
    found = conditions(
        [*(Finding(one, "False", reasons.INVALID_SPEC, message) for one in types), *more],
        observed=conditions_of(parent),
        generation=generation_of(parent),
        now=now,
    )
    stored = _whole(parent, status)
    # Metacontroller sets it.
    stored.pop("observedGeneration", None)
    return CompositeResponse(
        status=stored | {"conditions": [one.to_json() for one in found]},
        children=_unchanged_children(request) if children is None else children,
    )


def conditions_of(parent: Raw) -> tuple[Condition, ...]:
    """The readable conditions of a parent."""
    return (salvage(_Parent, parent) or _Parent()).status.conditions


def generation_of(parent: Raw) -> int:
    """The metadata.generation of a parent; 0 if it cannot be read."""
    return (salvage(_Parent, parent) or _Parent()).metadata.generation


def status_of(parent: Raw) -> Object:
    """The stored status of a parent; empty if it is not an object."""
    try:
        stored = decoder(_Any).decode(parent).status
    except (msgspec.MsgspecError, ValueError):
        return {}
    return dict(stored) if isinstance(stored, dict) else {}


class _Metadata(Struct, frozen=True):
    generation: Annotated[int, Meta(ge=0)] = 0


class _Status(Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()


class _Parent(Struct):
    metadata: _Metadata = _Metadata()
    status: _Status = _Status()


class _Any(Struct):
    status: Any = None


def _whole(parent: Raw, status: type[BaseModel]) -> Object:
    """The stored status if our CRD would accept it; otherwise empty."""
    stored = status_of(parent)
    try:
        status.model_validate(stored)
    except ValueError:
        return {}
    return stored
