"""Types of stored objects with only the fields that the hooks read.

A group's hook gets all its LocalModelNodes and all caches of the cluster, 22 MiB for 1000 nodes
with 50 models. The types of `crds/` repeat the checks of the API server; these types take a fifth
of their time. Names and meanings of fields are those of `crds/`
(tests/unit/hooks/test_observed.py).
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import replace

from crds.base import INT32_MAX
from crds.eviction import HIGH_PERCENT, LOW_PERCENT, EvictionPolicy, Retention
from crds.keys import model_key
from crds.models import ModelRequest, PlacedModel
from crds.peers import ADDRESS, ADDRESS_MAX, FINGERPRINT, MANIFEST_HASH
from crds.quantity import parse_quantity
from crds.states import KServeModelStatus, ModelState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crds.base import Identity

Quantity = str | int
# Bounds of fields in a status, which any agent may have written and which our statuses repeat.
Bytes = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Moment = Annotated[datetime, Meta(tz=True)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Hash = Annotated[str, Meta(max_length=71)]
ManifestHash = Annotated[str, Meta(pattern=MANIFEST_HASH)]
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
        # No agent wrote this.
        return {}


class ReadStruct(Struct, rename="camel", frozen=True):
    """Base of the types: immutable, camelCase in JSON, unknown fields ignored."""


class Metadata(ReadStruct, frozen=True):
    """The fields of metav1.ObjectMeta that the hooks read."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: Annotated[int, Meta(ge=0)] = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] | None = None

    @property
    def created(self) -> str:
        """Time of creation, to sort by; empty if it is not known."""
        return self.creation_timestamp.isoformat() if self.creation_timestamp else ""


class Resource(ReadStruct, frozen=True):
    """Base of the kinds."""

    kind: str
    api_version: str
    metadata: Metadata

    @property
    def deleting(self) -> bool:
        """Whether the object is being deleted and waits for its finalizers."""
        return self.metadata.deletion_timestamp is not None


class Condition(ReadStruct, frozen=True):
    """The fields of metav1.Condition that show whether its status has changed since, and why."""

    type: str
    status: str
    last_transition_time: datetime
    # A status without it is readable too.
    reason: str | None = None


class ServiceName(ReadStruct, frozen=True):
    """A service that a cache's status lists."""

    namespace: str
    name: str


class WorkloadName(ReadStruct, frozen=True):
    """A workload that a cache's status lists."""

    kind: str
    namespace: str
    name: str


class CacheSpec(ReadStruct, frozen=True):
    """The spec of a cache, in either form."""

    source_model_uri: str
    model_size: Quantity
    node_groups: tuple[str, ...] | None = None
    node_group: str | None = None
    # Only LocalModelNamespaceCaches have it: see reading.parse_cache.
    pvc_ref: str | None = None
    namespace_selector: dict[str, Any] | None = None
    service_account_name: str | None = None
    storage: dict[str, Any] | None = None
    priority: int = 0
    retention: Retention = Retention.EVICTABLE
    hash: str | None = None

    def __post_init__(self) -> None:
        """Refuse a size that is not a valid quantity."""
        try:
            parse_quantity(str(self.model_size))
        except ValueError as error:
            raise ValueError(f"modelSize: {error}") from None

    @property
    def key(self) -> str:
        """Name of the model's folder on a disk."""
        return model_key(self.source_model_uri)

    @property
    def declared_bytes(self) -> int:
        """Bytes of modelSize."""
        return parse_quantity(str(self.model_size))

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, from either form, without duplicates, in order."""
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
    """The status that the hooks wrote."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    # An entry for each node. Raw: it is read only where it stays unchanged.
    node_status: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))
    copies: ModelCopies = ModelCopies()
    size: Bytes | None = None
    hash: Hash | None = None
    progress: Percent = 0
    bytes_per_second: Bytes | None = None
    estimated_completion_time: Moment | None = None
    last_download_seconds: Count | None = None
    pods: Count = 0
    inference_services: tuple[ServiceName, ...] | None = None
    llm_inference_services: tuple[ServiceName, ...] | None = None
    workloads: tuple[WorkloadName, ...] | None = None

    def states(self) -> dict[str, str]:
        """KServe's words for the copies, by node."""
        return _words(_WORDS_BY_NODE, self.node_status)


class Cache(Resource, frozen=True, dict=True):
    """A LocalModelCache, or a LocalModelNamespaceCache, which has a namespace."""

    spec: CacheSpec
    status: CacheStatus = field(default_factory=CacheStatus)

    @property
    def identity(self) -> Identity:
        """Key, namespace and name of the cache: see crds.base.ModelIdentity."""
        return (self.spec.key, self.metadata.namespace, self.metadata.name)

    @property
    def imported(self) -> bool:
        """Whether the cache has pvcRef: KServe's controller imports it into a claim."""
        return bool(self.spec.pvc_ref)

    @property
    def referenced(self) -> bool:
        """Whether services or workloads use the cache, by its status: groups watch neither."""
        users = (
            self.status.inference_services,
            self.status.llm_inference_services,
            self.status.workloads,
        )
        return any(users)

    @cached_property
    def placed(self) -> PlacedModel:
        """The cache as an entry of a plan. Raises ValueError for an invalid spec."""
        return PlacedModel(
            model_name=self.metadata.name,
            namespace=self.metadata.namespace,
            referenced=self.referenced,
            **self.spec.request(),
        )


class ListedModel(ReadStruct, frozen=True):
    """An entry of a LocalModelNode's spec: a model that the node keeps."""

    source_model_uri: str
    model_name: str
    namespace: str = ""
    node_group: str = ""
    priority: int = 0
    suspend: bool | None = None

    @property
    def identity(self) -> Identity:
        """Key, namespace and name of the cache: see crds.base.ModelIdentity."""
        return (model_key(self.source_model_uri), self.namespace, self.model_name)


class EvictionSettings(ReadStruct, frozen=True):
    """See crds.eviction.EvictionSettings."""

    policy: EvictionPolicy = EvictionPolicy.NONE
    high_percent: int = HIGH_PERCENT
    low_percent: int = LOW_PERCENT


class GroupRef(ReadStruct, frozen=True):
    """A group that a node is in."""

    name: str
    storage_limit: Quantity
    eviction: EvictionSettings = EvictionSettings()
    # Raw: only the hook of the node reads it, and a group reads those of all its nodes.
    exchange: msgspec.Raw | UnsetType = UNSET

    def same_as(self, other: GroupRef) -> bool:
        """Whether both say the same, in whichever order the JSON of the exchange has its fields."""
        return (
            replace(self, exchange=UNSET) == replace(other, exchange=UNSET)
            and self._exchange() == other._exchange()
        )

    def _exchange(self) -> Any:
        return None if self.exchange is UNSET else msgspec.json.decode(self.exchange)


class NodeSpec(ReadStruct, frozen=True):
    """The spec of a LocalModelNode."""

    local_models: tuple[ListedModel, ...] = ()
    groups: tuple[GroupRef, ...] = ()
    # Objects of KServe do not have this field.
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
    bytes_per_second: Bytes | None = None
    estimated_completion_time: Moment | None = None
    last_download_seconds: Count | None = None
    pods: Count = 0
    hash: Hash | None = None
    manifest_hash: ManifestHash | None = None
    peer_bytes: Bytes | None = None
    store_digests: bool = False
    reason: Reason | None = None
    message: Message | None = None

    @property
    def identity(self) -> Identity:
        """Key, namespace and name of the cache: see crds.base.ModelIdentity."""
        return (self.key, self.namespace, self.name)


class AgentPeer(ReadStruct, frozen=True):
    """How other agents reach an agent, and how they recognize it."""

    address: Annotated[str, Meta(pattern=ADDRESS, max_length=ADDRESS_MAX)]
    fingerprint: Annotated[str, Meta(pattern=FINGERPRINT)]


class NodeStatus(ReadStruct, frozen=True):
    """What a node's agent reports."""

    observed_generation: int | None = None
    models: tuple[NodeReport, ...] = ()
    peer: AgentPeer | None = None
    # Raw: it is read only of KServe's agents, which report nothing else.
    model_status: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))


class Node(Resource, frozen=True, dict=True):
    """A LocalModelNode."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = field(default_factory=NodeStatus)

    @property
    def ready(self) -> bool:
        """Whether the Node is Ready."""
        return self.spec.node_ready is True

    @property
    def answered(self) -> bool:
        """Whether the agent has observed the current spec."""
        seen = self.status.observed_generation
        return seen is not None and seen >= self.metadata.generation

    @cached_property
    def reports(self) -> Mapping[Identity, NodeReport]:
        """Reports of the agent, by identity."""
        return {report.identity: report for report in self.status.models}

    @cached_property
    def listed(self) -> Mapping[Identity, ListedModel]:
        """Entries by identity. If two groups list a model, an entry that is not suspended wins."""
        entries = self.spec.local_models
        suspended = {entry.identity: entry for entry in entries if entry.suspend}
        return suspended | {entry.identity: entry for entry in entries if not entry.suspend}

    @cached_property
    def counting_groups(self) -> Mapping[Identity, str]:
        """The group that counts the pods of a model: the first of those that list the model here.

        So a node in several groups of a cache counts once.
        """
        first: dict[Identity, str] = {}
        for entry in self.spec.local_models:
            group = first.setdefault(entry.identity, entry.node_group)
            first[entry.identity] = min(group, entry.node_group)
        return first

    @cached_property
    def kserve_words(self) -> Mapping[str, KServeModelStatus]:
        """Reports of KServe's agent, by <name> or <namespace>/<name>."""
        return _words(_KSERVE_WORDS, self.status.model_status)


class NodeCondition(ReadStruct, frozen=True):
    """A NodeCondition of core/v1."""

    type: str
    status: str


class CoreNodeStatus(ReadStruct, frozen=True):
    """A NodeStatus of core/v1."""

    conditions: tuple[NodeCondition, ...] | None = None


class CoreNode(Resource, frozen=True):
    """A Node of core/v1."""

    status: CoreNodeStatus = CoreNodeStatus()

    @property
    def ready(self) -> bool:
        """Whether the Node is Ready."""
        conditions = self.status.conditions or ()
        return any(one.type == "Ready" and one.status == "True" for one in conditions)
