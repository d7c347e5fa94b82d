"""Parsing of stored objects, one by one: an unreadable object never stops the others.

Stored objects may be older than the bounds of their CRDs, and other controllers write statuses too.
So a stored object may lack a field, or have an invalid one. A status, or an object that the hooks
wrote, is read as far as possible. A user's spec is read as a whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from crds.base import API_VERSION
from crds.cache import LabelSelector, LocalModelCache, LocalModelNamespaceCache
from crds.models import PlacedModel
from crds.node import LocalModelNode
from crds.nodegroup import LocalModelNodeGroup
from crds.placement import LocalModelPlacement, LocalModelPlacementSpec
from hooks.envelope import BadRequest, decoder
from hooks.lost_fields import explain_loss, lost_field
from hooks.memo import Memo
from hooks.observed import (
    Cache,
    CacheSpec,
    CacheStatus,
    CoreNode,
    ListedModel,
    Metadata,
    Node,
    NodeSpec,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hooks.envelope import Object, RawObjects
    from hooks.observed import Resource

CACHE = LocalModelCache.__name__
NAMESPACE_CACHE = LocalModelNamespaceCache.__name__
NODE = LocalModelNode.__name__
NODE_GROUP = LocalModelNodeGroup.__name__
PLACEMENT = LocalModelPlacement.__name__

_Read = TypeVar("_Read")
_Struct = TypeVar("_Struct", bound=Struct)
_Whole = TypeVar("_Whole", LocalModelNodeGroup, LocalModelPlacement)

# Errors of msgspec and of the types' own checks for invalid JSON.
_DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)


class UnreadableError(BadRequest):
    """A stored object that cannot be read. The message names it; `why` says what is wrong."""

    def __init__(self, kind: str, name: object, why: str) -> None:
        super().__init__(f"cannot read {kind} {name!r}: {why}")
        self.kind = kind
        self.name = str(name)
        self.why = why


class LostFieldsError(BadRequest):
    """An object without fields that our CRD adds to each object: another CRD is served."""


@dataclass(frozen=True)
class Unreadable:
    """An object that cannot be read: its names, what is wrong, and its JSON.

    lost: whether it lacks fields that our CRD adds to each object.
    """

    namespace: str
    name: str
    why: str
    raw: Raw
    lost: bool

    @property
    def imported(self) -> bool:
        """Of a cache: whether it has pvcRef, see hooks.observed.Cache."""
        return bool(self.namespace and _spec_of(self.raw).get("pvcRef"))

    def asks_for(self) -> tuple[frozenset[str], str | None]:
        """Of a cache: names of its groups and its URI, as far as they can be read."""
        spec = _spec_of(self.raw)
        names = spec.get("nodeGroups")
        listed = [*names] if isinstance(names, list) else []
        uri = spec.get("sourceModelUri")
        return (
            frozenset(n for n in (*listed, spec.get("nodeGroup")) if isinstance(n, str)),
            uri if isinstance(uri, str) else None,
        )

    @property
    def created(self) -> str:
        """Time of creation, to sort by; empty if it is not known."""
        head = _lenient(_Created, self.raw)
        return head.metadata.created if head else ""


class _Created(Struct):
    metadata: Metadata


class _Asked(Struct):
    spec: Any = None


@dataclass(frozen=True)
class Found(Generic[_Read]):
    """The objects of a kind, by Metacontroller's key: readable and unreadable ones."""

    readable: dict[str, _Read]
    unreadable: dict[str, Unreadable]


class Head(Struct, rename="camel"):
    """Kind, version and name of an object, which may be unreadable otherwise."""

    kind: Any = None
    api_version: Any = None
    metadata: Any = None

    @property
    def name(self) -> Any:
        """Name of the object, if it has one."""
        return self.metadata.get("name") if isinstance(self.metadata, dict) else None


class _Whose(Struct):
    parent: Head | None = None
    object: Head | None = None


def parent_name(body: bytes) -> str:
    """Kind and name of a request's parent, for a message."""
    try:
        whose = decoder(_Whose).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "an object that cannot be read"
    head = whose.parent or whose.object or Head()
    return f"{head.kind} {head.name}"


def objects_of(kind: str, parse: Callable[[Raw], _Read], objects: RawObjects) -> Found[_Read]:
    """All objects of one of our kinds. Raises BadRequest if the request lacks the kind.

    Metacontroller sends each declared kind, also without objects: a missing kind does not mean that
    there are no objects.
    """
    found = objects.get(f"{kind}.{API_VERSION}")
    if found is None:
        raise BadRequest(
            f"no {kind}.{API_VERSION} in the request: is the controller's rule for it gone?"
        )
    read: Found[_Read] = Found(readable={}, unreadable={})
    for key, raw in found.items():
        try:
            read.readable[key] = parse(raw)
        except (BadRequest, ValidationError) as error:
            namespace, _, name = key.rpartition("/")
            why = _why(error)
            lost = isinstance(error, LostFieldsError)
            read.unreadable[key] = Unreadable(namespace, name, why, raw, lost)
    return read


def parse_cache(raw: Raw) -> Cache:
    """A LocalModelCache or LocalModelNamespaceCache. Raises BadRequest.

    The hooks write its status anew: unreadable parts of the status are ignored.
    """
    try:
        cache: Cache = decoder(Cache).decode(raw)
    except _DECODE_ERRORS as error:
        rest = _lenient(_WithoutStatus, raw)
        if rest is None:
            raise _unreadable(raw, str(error), CACHE, NAMESPACE_CACHE) from error
        status = salvage(CacheStatus, rest.status) or CacheStatus()
        cache = Cache(rest.kind, rest.api_version, rest.metadata, rest.spec, status)
    _check_kind(cache, CACHE, NAMESPACE_CACHE)
    if cache.kind == CACHE and cache.spec.pvc_ref is not None:
        # LocalModelCaches have no such field.
        cache = replace(cache, spec=replace(cache.spec, pvc_ref=None))
    _check_whole(cache.kind, cache.metadata.name, lost_field(cache))
    try:
        # Refuse a spec that no plan may contain, and a selector that Kubernetes would refuse.
        _ = cache.placed
        if cache.spec.namespace_selector is not None:
            LabelSelector.model_validate(cache.spec.namespace_selector)
    except ValidationError as error:
        raise UnreadableError(cache.kind, cache.metadata.name, _words(error)) from error
    return cache


class _WithoutStatus(Struct, rename="camel"):
    kind: str
    api_version: str
    metadata: Metadata
    spec: CacheSpec
    status: Raw = Raw(b"{}")


def parse_node(raw: Raw) -> Node:
    """A LocalModelNode, as far as it can be read. Raises BadRequest."""
    node = _read_what_can_be(Node, raw, NODE, API_VERSION)
    _check_whole(node.kind, node.metadata.name, lost_field(node))
    return node


def unknown_node(name: str) -> Node:
    """A LocalModelNode of which only the name can be read: it counts as not Ready."""
    return Node(NODE, API_VERSION, Metadata(name), NodeSpec(node_ready=False))


def parse_core_node(raw: Raw) -> CoreNode:
    """A Node of core/v1, as far as it can be read. Raises BadRequest."""
    return _read_what_can_be(CoreNode, raw, "Node", "v1")


def parse_group(raw: Raw) -> LocalModelNodeGroup:
    """A LocalModelNodeGroup. Raises BadRequest.

    The hooks write its status anew: an unreadable status is ignored.
    """
    return _group(bytes(raw))


def parse_placement(raw: Raw) -> LocalModelPlacement:
    """A LocalModelPlacement. Raises BadRequest."""
    return _read_whole(LocalModelPlacement, raw)


def parse_own_plan(raw: Raw) -> LocalModelPlacementSpec:
    """The stored plan of a group. Of an unreadable one, the readable entries."""
    try:
        return parse_placement(raw).spec
    except BadRequest:
        entries = _spec_of(raw).get("models")
        models = tuple(_placed(entries if isinstance(entries, list) else []))
        return LocalModelPlacementSpec(storage_limit="0", models=models)


def placed_of(raw: Raw) -> tuple[tuple[str, PlacedModel], ...]:
    """The readable entries of a LocalModelNode, each with the name of its group."""
    entries = _spec_of(raw).get("localModels")
    if not isinstance(entries, list):
        return ()
    return tuple(
        (str(entry.get("nodeGroup", "")), model)
        for entry in entries
        if isinstance(entry, dict)
        for model in _placed([entry])
    )


def listed_by(raw: Raw) -> list[tuple[ListedModel, Raw]]:
    """The readable entries of a LocalModelNode, parsed and as JSON."""
    node = _lenient(_ListingNode, raw)
    entries = node.spec.local_models if node else ()
    read = ((_lenient(ListedModel, entry), entry) for entry in entries)
    return [(model, entry) for model, entry in read if model is not None]


class _Listing(Struct, rename="camel", frozen=True):
    local_models: tuple[Raw, ...] = ()


class _ListingNode(Struct):
    spec: _Listing = _Listing()


def salvage(model: type[_Struct], raw: Raw) -> _Struct | None:
    """Read as much as possible: unreadable fields get their default, unreadable items are dropped.

    None if a required field cannot be read.
    """
    fields = _lenient(dict[str, Raw], raw)
    if fields is None:
        return None
    values = {}
    for field in msgspec.structs.fields(model):
        part = fields.get(field.encode_name)
        value = None if part is None else _salvage_part(field.type, part)
        if value is not None:
            values[field.name] = value
        elif field.required:
            return None
    try:
        return model(**values)
    except _DECODE_ERRORS:
        return None


def _salvage_part(kind: Any, raw: Raw) -> Any:
    value = _lenient(kind, raw)
    if value is not None:
        return value
    if get_origin(kind) is tuple:
        items = _lenient(list[Raw], raw) or []
        read = (_salvage_part(get_args(kind)[0], item) for item in items)
        return tuple(item for item in read if item is not None)
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, Struct):
            return salvage(one, raw)
    return None


def _spec_of(raw: Raw) -> Object:
    """The spec of an object as a dict; empty if there is none."""
    found = _lenient(_Asked, raw)
    return found.spec if found and isinstance(found.spec, dict) else {}


def _lenient(kind: Any, raw: Raw) -> Any:
    try:
        return decoder(kind).decode(raw)
    except _DECODE_ERRORS:
        return None


def _placed(entries: list[Any]) -> Iterator[PlacedModel]:
    for entry in entries:
        try:
            yield PlacedModel.model_validate(entry)
        except ValidationError:
            continue


def _read_what_can_be(model: type[_Struct], raw: Raw, kind: str, api_version: str) -> _Struct:
    try:
        obj: Any = decoder(model).decode(raw)
    except _DECODE_ERRORS as error:
        obj = salvage(model, raw)
        if obj is None:
            raise _unreadable(raw, str(error), kind, api_version=api_version) from error
    _check_kind(obj, kind, api_version=api_version)
    return obj  # type: ignore[no-any-return]


def _read_whole(model: type[_Whole], raw: Raw | bytes) -> _Whole:
    """Read an object of which each field must be valid."""
    kind = model.__name__
    head = _head(raw)
    if head.kind != kind or head.api_version != API_VERSION:
        raise _unexpected(head, (kind,), API_VERSION)
    try:
        obj = model.model_validate_json(bytes(raw))
    except ValidationError as error:
        raise UnreadableError(kind, head.name, _words(error)) from error
    return obj


def _read_group(raw: bytes) -> LocalModelNodeGroup:
    try:
        group = _read_whole(LocalModelNodeGroup, raw)
    except UnreadableError:
        group = _read_whole(LocalModelNodeGroup, _without_status(raw))
    _check_whole(NODE_GROUP, group.metadata.name, lost_field(group))
    return group


# The same groups are in the request of every cache.
_group = Memo(_read_group)


def _without_status(raw: bytes) -> bytes:
    obj: Object = msgspec.json.decode(raw)
    status = obj.get("status")
    seen = status.get("observedGeneration") if isinstance(status, dict) else None
    return msgspec.json.encode(
        obj | {"status": {"observedGeneration": seen} if isinstance(seen, int) else {}}
    )


def _why(error: BadRequest | ValidationError) -> str:
    if isinstance(error, ValidationError):
        return _words(error)
    return error.why if isinstance(error, UnreadableError) else str(error)


def _words(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(
        to_camel(part) if isinstance(part, str) else str(part) for part in first["loc"]
    )
    return f"{where}: {first['msg']}"


def _unreadable(raw: Raw, words: str, *kinds: str, api_version: str = API_VERSION) -> BadRequest:
    head = _head(raw)
    if head.kind not in kinds or head.api_version != api_version:
        return _unexpected(head, kinds, api_version)
    return UnreadableError(head.kind, head.name, words)


def _head(raw: Raw | bytes) -> Head:
    try:
        head: Head = decoder(Head).decode(raw)
    except _DECODE_ERRORS:
        return Head()
    return head


def _check_kind(obj: Resource, *kinds: str, api_version: str = API_VERSION) -> None:
    if obj.kind not in kinds or obj.api_version != api_version:
        raise _unexpected(obj, kinds, api_version)


def _unexpected(head: Head | Resource, kinds: tuple[str, ...], api_version: str) -> BadRequest:
    return BadRequest(
        f"expected a {' or '.join(kinds)} of {api_version}, got {head.kind} of {head.api_version}"
    )


def _check_whole(kind: str, name: str, lost: str | None) -> None:
    if lost is not None:
        raise LostFieldsError(explain_loss(kind, name, lost))
