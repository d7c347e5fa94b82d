"""What the hooks read of stored objects: the fields that count, typed, and no others.

A group's hook gets every LocalModelNode and every cache of the cluster at once, 22 MiB for 1000
nodes with 50 models. The types of `crds/` check what the API server has checked before; these take
a fifth of their time. Their fields are those of `crds/`, by name and meaning
(tests/unit/hooks/test_observed.py).
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations at run time
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from crds.cache import ModelRequest
from crds.eviction import HIGH_PERCENT, LOW_PERCENT, EvictionPolicy, Retention
from crds.keys import model_key
from crds.placement import PlacedModel
from crds.quantity import parse_quantity
from crds.states import KServeModelStatus, ModelState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crds.base import Identity

Quantity = str | int
# What a status may hold: whoever wrote one, nothing larger goes on into ours.
Bytes = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Hash = Annotated[str, Meta(max_length=71)]
Reason = Annotated[str, Meta(max_length=64)]
Message = Annotated[str, Meta(max_length=1024)]

_Word = TypeVar("_Word")

_WORDS_BY_NODE = msgspec.json.Decoder(dict[str, str] | None)
_KSERVE_WORDS = msgspec.json.Decoder(dict[str, KServeModelStatus] | None)


def _words(
    decoder: msgspec.json.Decoder[dict[str, _Word] | None], raw: msgspec.Raw
) -> dict[str, _Word]:
    try:
        return decoder.decode(raw) or {}
    except msgspec.MsgspecError:
        # Not as the API has it, so not told by an agent.
        return {}


class ReadStruct(Struct, rename="camel", frozen=True):
    """Base of what is read: immutable, camelCase in JSON, unknown fields ignored."""


class Metadata(ReadStruct, frozen=True):
    """Of metav1.ObjectMeta."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] | None = None

    @property
    def created(self) -> str:
        """When it was made, to sort by; empty: not known."""
        return self.creation_timestamp.isoformat() if self.creation_timestamp else ""


class Resource(ReadStruct, frozen=True):
    """Base of the kinds."""

    kind: str
    api_version: str
    metadata: Metadata

    @property
    def deleting(self) -> bool:
        """Whether a deletion was asked for and waits for finalizers."""
        return self.metadata.deletion_timestamp is not None


class Condition(ReadStruct, frozen=True):
    """Of metav1.Condition: what tells whether a condition has flipped since."""

    type: str
    status: str
    last_transition_time: datetime


class ServiceName(ReadStruct, frozen=True):
    """A service that a cache's status lists."""

    namespace: str
    name: str


class CacheSpec(ReadStruct, frozen=True):
    """What a cache asks for, in either form."""

    source_model_uri: str
    model_size: Quantity
    node_groups: tuple[str, ...] | None = None
    node_group: str | None = None
    # Of caches of namespaces alone: see reading.parse_cache.
    pvc_ref: str | None = None
    namespace_selector: dict[str, Any] | None = None
    service_account_name: str | None = None
    storage: dict[str, Any] | None = None
    priority: int = 0
    retention: Retention = Retention.EVICTABLE
    hash: str | None = None

    def __post_init__(self) -> None:
        """Refuse a size that cannot be computed with."""
        try:
            parse_quantity(str(self.model_size))
        except ValueError as error:
            raise ValueError(f"modelSize: {error}") from None

    @property
    def key(self) -> str:
        """The model's folder on a disk."""
        return model_key(self.source_model_uri)

    @property
    def declared_bytes(self) -> int:
        """What modelSize says."""
        return parse_quantity(str(self.model_size))

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups asked for, in either form, each once, in the order given."""
        if self.pvc_ref:
            return ()
        if self.node_group is not None:
            return (self.node_group,)
        return tuple(dict.fromkeys(self.node_groups or ()))

    def request(self) -> dict[str, Any]:
        """The fields of crds.cache.ModelRequest."""
        return {name: getattr(self, name) for name in ModelRequest.model_fields}


class ModelCopies(ReadStruct, frozen=True):
    """Counts of copies."""

    available: Count = 0
    total: Count = 0
    failed: Count = 0


class CacheStatus(ReadStruct, frozen=True):
    """What the hooks wrote."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    # An entry for each node: read only where it is to stay as it is.
    node_status: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))
    copies: ModelCopies = ModelCopies()
    size: Bytes | None = None
    hash: Hash | None = None
    progress: Percent = 0
    inference_services: tuple[ServiceName, ...] | None = None
    llm_inference_services: tuple[ServiceName, ...] | None = None

    def states(self) -> dict[str, str]:
        """KServe's words for the copies, by node."""
        return _words(_WORDS_BY_NODE, self.node_status)


class Cache(Resource, frozen=True, dict=True):
    """A LocalModelCache, or a LocalModelNamespaceCache, which has a namespace."""

    spec: CacheSpec
    status: CacheStatus = field(default_factory=CacheStatus)

    @property
    def identity(self) -> Identity:
        """Which model it asks for."""
        return (self.spec.key, self.metadata.namespace, self.metadata.name)

    @property
    def imported(self) -> bool:
        """Whether it is KServe's to import, into a claim, and asks nothing of localmodel."""
        return bool(self.spec.pvc_ref)

    @property
    def referenced(self) -> bool:
        """Whether services use it, as its own hook wrote: their events call no group's hook."""
        return bool(self.status.inference_services or self.status.llm_inference_services)

    @cached_property
    def placed(self) -> PlacedModel:
        """It as a plan lists it. Raises ValueError where it asks for what no plan may list."""
        return PlacedModel(
            model_name=self.metadata.name,
            namespace=self.metadata.namespace,
            referenced=self.referenced,
            **self.spec.request(),
        )


class ListedModel(ReadStruct, frozen=True):
    """A model that a node shall have: an entry of its LocalModelNode's spec."""

    source_model_uri: str
    model_name: str
    namespace: str = ""
    node_group: str = ""
    priority: int = 0
    suspend: bool | None = None

    @property
    def identity(self) -> Identity:
        """Which model it is."""
        return (model_key(self.source_model_uri), self.namespace, self.model_name)


class EvictionSettings(ReadStruct, frozen=True):
    """Of crds.eviction."""

    policy: EvictionPolicy = EvictionPolicy.NONE
    high_percent: int = HIGH_PERCENT
    low_percent: int = LOW_PERCENT


class GroupRef(ReadStruct, frozen=True):
    """A group that a node is in."""

    name: str
    storage_limit: Quantity
    eviction: EvictionSettings = EvictionSettings()


class NodeSpec(ReadStruct, frozen=True):
    """What a node shall have."""

    local_models: tuple[ListedModel, ...] = ()
    groups: tuple[GroupRef, ...] = ()
    # KServe's own objects do not have it.
    node_ready: bool | UnsetType = UNSET


class NodeReport(ReadStruct, frozen=True):
    """What a node's agent reports of one model."""

    name: str
    key: str
    state: ModelState
    cached: bool
    namespace: str = ""
    size: Bytes | None = None
    disk_bytes: Bytes | None = None
    downloaded_bytes: Bytes | None = None
    hash: Hash | None = None
    reason: Reason | None = None
    message: Message | None = None

    @property
    def identity(self) -> Identity:
        """Which model it is."""
        return (self.key, self.namespace, self.name)


class NodeStatus(ReadStruct, frozen=True):
    """What a node's agent reports."""

    observed_generation: int | None = None
    models: tuple[NodeReport, ...] = ()
    # Read only of agents that tell nothing else.
    model_status: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))


class Node(Resource, frozen=True, dict=True):
    """A LocalModelNode. Made once, its reports are found by model."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = field(default_factory=NodeStatus)

    @property
    def ready(self) -> bool:
        """Whether the Node is Ready."""
        return self.spec.node_ready is True

    @property
    def answered(self) -> bool:
        """Whether its agent has seen what the spec asks for now."""
        seen = self.status.observed_generation
        return seen is not None and seen >= self.metadata.generation

    @cached_property
    def reports(self) -> Mapping[Identity, NodeReport]:
        """What its agent reports, by model."""
        return {report.identity: report for report in self.status.models}

    @cached_property
    def listed(self) -> Mapping[Identity, ListedModel]:
        """What it shall have, by model; of one that two groups ask for, an entry that may begin."""
        entries = self.spec.local_models
        suspended = {entry.identity: entry for entry in entries if entry.suspend}
        return suspended | {entry.identity: entry for entry in entries if not entry.suspend}

    @cached_property
    def kserve_words(self) -> Mapping[str, KServeModelStatus]:
        """What KServe's agent reports, by <name> or <namespace>/<name>; ours reports more."""
        return _words(_KSERVE_WORDS, self.status.model_status)


class NodeCondition(ReadStruct, frozen=True):
    """Of core/v1 NodeCondition."""

    type: str
    status: str


class CoreNodeStatus(ReadStruct, frozen=True):
    """Of core/v1 NodeStatus."""

    conditions: tuple[NodeCondition, ...] | None = None


class CoreNode(Resource, frozen=True):
    """A Node of core/v1."""

    status: CoreNodeStatus = CoreNodeStatus()

    @property
    def ready(self) -> bool:
        """Whether it is Ready."""
        conditions = self.status.conditions or ()
        return any(one.type == "Ready" and one.status == "True" for one in conditions)
