"""Requests and responses of Metacontroller's hooks, version v2.

Objects that are not ours stay plain dicts. What cannot be read raises BadRequest: a hook never
answers on half a view. Objects are read one by one, and only those that a hook asks for.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from pydantic import ValidationError

from crds.base import API_VERSION
from crds.cache import LocalModelCache, LocalModelNamespaceCache
from crds.node import LocalModelNode
from crds.nodegroup import LocalModelNodeGroup
from crds.placement import LocalModelPlacement
from hooks.observed import Cache, CoreNode, Node
from hooks.observed import Resource as Stored
from hooks.served import explain_loss, lost_field

if TYPE_CHECKING:
    from collections.abc import Callable

Object = dict[str, Any]
# `<Kind>.<apiVersion>` → name, or namespace/name → object.
RawObjects = dict[str, dict[str, Raw]]

CACHE = LocalModelCache.__name__
NAMESPACE_CACHE = LocalModelNamespaceCache.__name__
NODE = LocalModelNode.__name__
NODE_GROUP = LocalModelNodeGroup.__name__
PLACEMENT = LocalModelPlacement.__name__

_Read = TypeVar("_Read")
_Request = TypeVar("_Request", bound=Struct)
_Part = TypeVar("_Part", Cache, Node, CoreNode)
_Whole = TypeVar("_Whole", LocalModelNodeGroup, LocalModelPlacement, LocalModelNode)

# Groups are few, and each comes again for every cache.
_GROUPS = 128


class BadRequest(Exception):  # noqa: N818 - named after the HTTP answer that it becomes
    """A request that a hook cannot answer; says what is wrong with it."""


class CustomizeRequest(Struct):
    """Which related objects does this parent need?"""

    parent: Raw


class CompositeRequest(Struct):
    """What shall be, for a parent of a CompositeController?"""

    parent: Raw
    children: RawObjects
    related: RawObjects
    finalizing: bool


class DecoratorRequest(Struct):
    """What shall be, for an object of a DecoratorController?"""

    object: Raw
    attachments: RawObjects
    related: RawObjects
    finalizing: bool


class RelatedRule(Struct, rename="camel", omit_defaults=True):
    """Objects that a parent's sync shall see, and be called for when they change."""

    api_version: str
    resource: str
    label_selector: Object | None = None
    namespace: str | None = None
    names: tuple[str, ...] | None = None


class CustomizeResponse(Struct, rename="camel"):
    """Answer of a customize hook."""

    related_resources: tuple[RelatedRule, ...]


class CompositeResponse(Struct, rename="camel"):
    """Answer of a sync or finalize hook of a CompositeController.

    status replaces the parent's whole status; observedGeneration is Metacontroller's to set.
    """

    status: Object
    children: tuple[Object, ...] = ()
    resync_after_seconds: float | UnsetType | None = UNSET
    finalized: bool | UnsetType = UNSET


class DecoratorResponse(Struct, rename="camel"):
    """Answer of a sync hook of a DecoratorController. A label of None is taken off."""

    labels: dict[str, str | None] = {}
    attachments: tuple[Object, ...] | UnsetType = UNSET


class Head(Struct, rename="camel"):
    """What tells one object from another, however little else of it can be read."""

    kind: Any = None
    api_version: Any = None
    metadata: Any = None

    @property
    def name(self) -> Any:
        """Its name, where it has one."""
        return self.metadata.get("name") if isinstance(self.metadata, dict) else None


class _Whose(Struct):
    parent: Head | None = None
    object: Head | None = None


def parse_request(model: type[_Request], body: bytes) -> _Request:
    """The request in a body. Raises BadRequest."""
    try:
        request: _Request = _decoder(model).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"not a request of this hook: {error}") from error
    return request


def parent_name(body: bytes) -> str:
    """Whom a request is about, for a message."""
    try:
        whose = _decoder(_Whose).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "an object that cannot be read"
    head = whose.parent or whose.object or Head()
    return f"{head.kind} {head.name}"


def parse_foreign(raw: Raw) -> Object:
    """An object that is not ours."""
    return msgspec.json.decode(raw)  # type: ignore[no-any-return]


def parse_cache(raw: Raw) -> Cache:
    """A LocalModelCache or LocalModelNamespaceCache. Raises BadRequest."""
    return _read_partly(Cache, raw, CACHE, NAMESPACE_CACHE)


def parse_node(raw: Raw) -> Node:
    """A LocalModelNode. Raises BadRequest."""
    return _read_partly(Node, raw, NODE)


def parse_core_node(raw: Raw) -> CoreNode:
    """A Node of core/v1. Raises BadRequest."""
    return _read_partly(CoreNode, raw, "Node", api_version="v1")


def parse_whole_node(raw: Raw) -> LocalModelNode:
    """A LocalModelNode with all its fields. Raises BadRequest."""
    return _read_whole(LocalModelNode, raw)


def parse_group(raw: Raw) -> LocalModelNodeGroup:
    """A LocalModelNodeGroup. Raises BadRequest."""
    return _group(bytes(raw))


def parse_placement(raw: Raw) -> LocalModelPlacement:
    """A LocalModelPlacement. Raises BadRequest."""
    return _read_whole(LocalModelPlacement, raw)


def objects_of(kind: str, parse: Callable[[Raw], _Read], objects: RawObjects) -> dict[str, _Read]:
    """All objects of one of our kinds, by Metacontroller's key. Raises BadRequest.

    Metacontroller sends every kind that was declared, empty if there is none: a kind that is
    missing is not the same as no objects.
    """
    found = objects.get(f"{kind}.{API_VERSION}")
    if found is None:
        raise BadRequest(
            f"no {kind}.{API_VERSION} in the request: is the controller's rule for it gone?"
        )
    parsed = {}
    for key, raw in found.items():
        try:
            parsed[key] = parse(raw)
        except BadRequest as error:
            raise BadRequest(f"{kind} {key!r}: {error}") from error
    return parsed


def core_objects(kind: str, objects: RawObjects) -> dict[str, Object]:
    """All objects of a kind of core/v1, by Metacontroller's key. Raises BadRequest."""
    return foreign_objects(kind, "v1", objects)


def foreign_objects(kind: str, api_version: str, objects: RawObjects) -> dict[str, Object]:
    """All objects of somebody else's kind, by Metacontroller's key. Raises BadRequest."""
    found = objects.get(f"{kind}.{api_version}")
    if found is None:
        raise BadRequest(
            f"no {kind}.{api_version} in the request: does the controller still declare it? "
            "Metacontroller keeps what it was told to send for 20 minutes; when the hooks' "
            "settings changed, restart it"
        )
    return {key: parse_foreign(raw) for key, raw in found.items()}


@cache
def _decoder(model: type[Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(model)


def _read_partly(
    model: type[_Part], raw: Raw, *kinds: str, api_version: str = API_VERSION
) -> _Part:
    """An object of which only some fields count."""
    try:
        obj: _Part = _decoder(model).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(raw, str(error), kinds, api_version) from error
    if obj.kind not in kinds or obj.api_version != api_version:
        raise _unexpected(obj, kinds, api_version)
    _check_whole(obj.kind, obj.metadata.name, lost_field(obj))
    return obj


def _read_whole(model: type[_Whole], raw: Raw | bytes) -> _Whole:
    """An object of which all fields count."""
    kind = model.__name__
    head = _head(raw)
    if head.kind != kind or head.api_version != API_VERSION:
        raise _unexpected(head, (kind,), API_VERSION)
    try:
        obj = model.model_validate_json(bytes(raw))
    except ValidationError as error:
        first = error.errors()[0]
        words = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise _unreadable(raw, words, (kind,), API_VERSION) from error
    _check_whole(kind, obj.metadata.name, lost_field(obj))
    return obj


@lru_cache(maxsize=_GROUPS)
def _group(raw: bytes) -> LocalModelNodeGroup:
    return _read_whole(LocalModelNodeGroup, raw)


def _unreadable(
    raw: Raw | bytes, words: str, kinds: tuple[str, ...], api_version: str
) -> BadRequest:
    head = _head(raw)
    if head.kind not in kinds or head.api_version != api_version:
        return _unexpected(head, kinds, api_version)
    return BadRequest(f"cannot read {head.kind} {head.name!r}: {words}")


def _head(raw: Raw | bytes) -> Head:
    try:
        head: Head = _decoder(Head).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Head()
    return head


def _unexpected(head: Head | Stored, kinds: tuple[str, ...], api_version: str) -> BadRequest:
    return BadRequest(
        f"expected a {' or '.join(kinds)} of {api_version}, got {head.kind} of {head.api_version}"
    )


def _check_whole(kind: str, name: str, lost: str | None) -> None:
    if lost is not None:
        raise BadRequest(explain_loss(kind, name, lost))
