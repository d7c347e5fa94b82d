"""Requests and responses of Metacontroller's hooks, version v2.

Objects that are not ours stay plain dicts. What cannot be read raises BadRequest: a hook never
answers on half a view.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from crds.base import API_VERSION, Resource
from hooks.served import explain_loss, lost_field

Object = dict[str, Any]
# `<Kind>.<apiVersion>` → name, or namespace/name → object.
ObjectMap = dict[str, dict[str, Object]]

_R = TypeVar("_R", bound=Resource)
_Request = TypeVar("_Request", bound=BaseModel)


class BadRequest(Exception):  # noqa: N818 - named after the HTTP answer that it becomes
    """A request that a hook cannot answer; says what is wrong with it."""


class _Envelope(BaseModel):
    # `controller` is not read, and large.
    model_config = ConfigDict(extra="ignore", frozen=True)


class CustomizeRequest(_Envelope):
    """Which related objects does this parent need?"""

    parent: Object


class CompositeRequest(_Envelope):
    """What shall be, for a parent of a CompositeController?"""

    parent: Object
    children: ObjectMap
    related: ObjectMap
    finalizing: bool


class DecoratorRequest(_Envelope):
    """What shall be, for an object of a DecoratorController?"""

    object: Object
    attachments: ObjectMap
    related: ObjectMap
    finalizing: bool


class RelatedRule(BaseModel):
    """Objects that a parent's sync shall see, and be called for when they change."""

    api_version: str = Field(serialization_alias="apiVersion")
    resource: str
    label_selector: Object | None = Field(default=None, serialization_alias="labelSelector")
    namespace: str | None = None
    names: tuple[str, ...] | None = None


class CustomizeResponse(BaseModel):
    """Answer of a customize hook."""

    related_resources: tuple[RelatedRule, ...] = Field(serialization_alias="relatedResources")


class CompositeResponse(BaseModel):
    """Answer of a sync or finalize hook of a CompositeController.

    status replaces the parent's whole status; observedGeneration is Metacontroller's to set.
    """

    status: Object
    children: tuple[Object, ...] = ()
    resync_after_seconds: float | None = Field(
        default=None, serialization_alias="resyncAfterSeconds"
    )
    finalized: bool | None = None


class DecoratorResponse(BaseModel):
    """Answer of a sync hook of a DecoratorController. A label of None is taken off."""

    labels: dict[str, str | None] = {}
    attachments: tuple[Object, ...] = ()


def parse_request(model: type[_Request], body: bytes) -> _Request:
    """The request in a body. Raises BadRequest."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(f"not a request of this hook: {_first(error)}") from error


def parse_object(model: type[_R], obj: Object) -> _R:
    """An object of one of our kinds.

    Raises BadRequest when it is another, cannot be read, or has lost fields on its way.
    """
    kind = model.__name__
    if obj.get("kind") != kind or obj.get("apiVersion") != API_VERSION:
        raise BadRequest(
            f"expected a {kind} of {API_VERSION}, got {obj.get('kind')} of {obj.get('apiVersion')}"
        )
    try:
        parsed = model.model_validate(obj)
    except ValidationError as error:
        name = obj.get("metadata", {}).get("name")
        raise BadRequest(f"cannot read {kind} {name!r}: {_first(error)}") from error
    _check_whole(parsed)
    return parsed


def parse_objects(model: type[_R], objects: ObjectMap) -> dict[str, _R]:
    """All objects of one of our kinds, by Metacontroller's key. Raises BadRequest.

    Metacontroller sends every kind that was declared, empty if there is none: a kind that is
    missing is not the same as no objects.
    """
    kind = model.__name__
    group = objects.get(f"{kind}.{API_VERSION}")
    if group is None:
        raise BadRequest(
            f"no {kind}.{API_VERSION} in the request: is the controller's rule for it gone?"
        )
    try:
        parsed = _map_of(model).validate_python(group)
    except ValidationError as error:
        raise BadRequest(f"cannot read a {kind}: {_first(error)}") from error
    for obj in parsed.values():
        _check_whole(obj)
    return parsed


def core_objects(kind: str, objects: ObjectMap) -> dict[str, Object]:
    """All objects of a kind of core/v1, by Metacontroller's key. Raises BadRequest."""
    return foreign_objects(kind, "v1", objects)


def foreign_objects(kind: str, api_version: str, objects: ObjectMap) -> dict[str, Object]:
    """All objects of somebody else's kind, by Metacontroller's key. Raises BadRequest."""
    group = objects.get(f"{kind}.{api_version}")
    if group is None:
        raise BadRequest(
            f"no {kind}.{api_version} in the request: does the controller still declare it? "
            "Metacontroller keeps what it was told to send for 20 minutes; when the hooks' "
            "settings changed, restart it"
        )
    return group


def _check_whole(obj: Resource) -> None:
    lost = lost_field(obj)
    if lost is not None:
        raise BadRequest(explain_loss(obj, lost))


@cache
def _map_of(model: type[_R]) -> TypeAdapter[dict[str, _R]]:
    return TypeAdapter(dict[str, model])  # type: ignore[valid-type]


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
