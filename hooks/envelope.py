"""Requests and responses of Metacontroller's hooks, version v2.

Objects stay raw JSON until a hook needs them: see hooks.reading. Objects of kinds that are not ours
become dicts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

Object = dict[str, Any]
# `<Kind>.<apiVersion>` → name, or namespace/name → object.
RawObjects = dict[str, dict[str, Raw]]

_Request = TypeVar("_Request", bound=Struct)


class BadRequest(Exception):  # noqa: N818 - named after the HTTP answer that it becomes
    """A request that a hook cannot answer. The message says what is wrong with it."""


class CustomizeRequest(Struct):
    """Request of a customize hook: which related objects does the parent need?"""

    parent: Raw


class CompositeRequest(Struct):
    """Request of a sync or finalize hook of a CompositeController."""

    parent: Raw
    children: RawObjects
    related: RawObjects
    finalizing: bool


class DecoratorRequest(Struct):
    """Request of a sync hook of a DecoratorController."""

    object: Raw
    attachments: RawObjects
    related: RawObjects
    finalizing: bool


class RelatedRule(Struct, rename="camel", omit_defaults=True):
    """A rule for related objects: requests contain them, and their changes cause a sync."""

    api_version: str
    resource: str
    label_selector: Object | None = None
    namespace_selector: Object | None = None
    namespace: str | None = None
    names: tuple[str, ...] | None = None


class CustomizeResponse(Struct, rename="camel"):
    """Answer of a customize hook."""

    related_resources: tuple[RelatedRule, ...]


class CompositeResponse(Struct, rename="camel"):
    """Answer of a sync or finalize hook of a CompositeController.

    status replaces the parent's whole status, but Metacontroller sets observedGeneration.
    """

    status: Object
    children: tuple[Object, ...] = ()
    resync_after_seconds: float | UnsetType | None = UNSET
    finalized: bool | UnsetType = UNSET


class DecoratorResponse(Struct, rename="camel"):
    """Answer of a sync hook of a DecoratorController. A label of None is removed."""

    labels: dict[str, str | None] = {}
    attachments: tuple[Object, ...] | UnsetType = UNSET


# The hooks decode some 60 types; their fields, one by one, only where an object cannot be read.
@lru_cache(maxsize=512)
def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of JSON into a type, made once for each type."""
    return msgspec.json.Decoder(kind)


def parse_request(model: type[_Request], body: bytes) -> _Request:
    """The request in a body. Raises BadRequest."""
    try:
        request: _Request = decoder(model).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"not a request of this hook: {error}") from error
    return request


def parse_foreign(raw: Raw) -> Object:
    """An object of a kind that is not ours, as a dict."""
    return msgspec.json.decode(raw)  # type: ignore[no-any-return]


def core_objects(kind: str, objects: RawObjects) -> dict[str, Object]:
    """All objects of a kind of core/v1, by Metacontroller's key. Raises BadRequest."""
    return {key: parse_foreign(raw) for key, raw in foreign_objects(kind, "v1", objects).items()}


def foreign_objects(kind: str, api_version: str, objects: RawObjects) -> dict[str, Raw]:
    """All objects of a kind that is not ours, by Metacontroller's key. Raises BadRequest."""
    found = objects.get(f"{kind}.{api_version}")
    if found is None:
        raise BadRequest(
            f"no {kind}.{api_version} in the request: does the controller still declare it? "
            "Metacontroller keeps what it was told to send for 20 minutes; when the hooks' "
            "settings changed, restart it"
        )
    return found
