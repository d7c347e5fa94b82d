"""LocalModelNode: the models that a node keeps, by the plans of its groups, and their state."""

from __future__ import annotations

from pydantic import Field

from crds.base import (
    ATOMIC_LIST,
    ATOMIC_MAP,
    Conditions,
    Int32,
    Int64,
    JsonObject,
    ModelIdentity,
    ObservedGeneration,
    Resource,
    Time,
    is_falsy,
)
from crds.eviction import EvictionSettings
from crds.models import PlacedModel
from crds.peers import AgentPeer, Exchange, ManifestHash
from crds.quantity_types import Quantity
from crds.states import ModelState, StoredModelStatus


class LocalModel(PlacedModel):
    """A model that the node keeps: an entry."""

    # Entries that KServe wrote have no size, and older ones no group.
    model_size: Quantity = Field(default="0", description="Declared size of the model; 0: unknown.")
    node_group: str = Field(
        default="",
        description="The group that the entry comes from; empty: unknown.",
        max_length=253,
    )
    suspend: bool | None = Field(
        default=None,
        description="True: the node does not start the download yet. Other nodes of the group go "
        "first: see download.maxConcurrentNodes of the LocalModelNodeGroup.",
    )


class LocalModelNodeGroupRef(JsonObject):
    """A group that the node is in."""

    name: str = Field(description="Name of the LocalModelNodeGroup.", max_length=253)
    storage_limit: Quantity = Field(
        description="Bytes that the group's models may take on the node."
    )
    eviction: EvictionSettings = Field(
        default=EvictionSettings(),
        description="What is evicted when the group's models do not fit.",
    )
    exchange: Exchange | None = Field(
        default=None,
        description="The node's part in the exchange of pieces of model files; absent: the nodes "
        "of the group do not fetch from each other.",
    )


class LocalModelNodeSpec(JsonObject):
    """The models that the node keeps."""

    local_models: tuple[LocalModel, ...] = Field(
        default=(),
        description="The models, most important first.",
        json_schema_extra=ATOMIC_LIST,
    )
    groups: tuple[LocalModelNodeGroupRef, ...] = Field(
        default=(), description="The groups that the node is in.", json_schema_extra=ATOMIC_LIST
    )
    node_ready: bool = Field(default=False, description="Whether the Node is Ready.")
    left_out: Int32 | None = Field(
        default=None,
        description="Number of models of the node's groups that this object has no room for. They "
        "are not downloaded. If it is not zero, take the node out of a group.",
    )


class NodeModelStatus(ModelIdentity):
    """State of one model on the node's disk."""

    state: ModelState = Field(
        description="Pending, Downloading, Downloaded, Failed, Evicted (deleted to make room or by "
        "request, and downloaded again when a pod or a service refers to it) or Removing (no "
        "longer listed, and deleted after the grace period)."
    )
    cached: bool = Field(
        description="Whether a complete, verified copy is on the disk and this cache may use it."
    )
    size: Int64 | None = Field(
        default=None, description="Bytes of the model's files, once the source has listed them."
    )
    disk_bytes: Int64 | None = Field(
        default=None,
        description="Bytes of the disk that the model takes, in blocks, including unpublished "
        "files.",
    )
    hash: str | None = Field(
        default=None,
        description="Hash of the copy on the disk; see LocalModelCache.",
        max_length=71,
    )
    manifest_hash: ManifestHash | None = Field(
        default=None,
        description="Hash of the copy's manifest: of its files' paths, sizes, versions and digests "
        "and where they come from. Equal on nodes with equal copies from one origin.",
    )
    last_used_time: Time | None = Field(
        default=None,
        description="When a pod of this node last mounted the model, as far as the agent has "
        "observed; accurate to the minute while a pod does. Absent: never.",
    )
    pods: Int32 = Field(
        default=0,
        description="Pods of this node that use the model, pending ones included; of a namespace's "
        "cache, those of its namespace.",
        ge=0,
        exclude_if=is_falsy,
    )
    verified_time: Time | None = Field(
        default=None,
        description="When all files of the copy were last read whole and compared with what was "
        "downloaded: by the publication, or by a later scrub or verification.",
    )
    downloaded_bytes: Int64 | None = Field(
        default=None, description="Downloaded bytes, while downloading."
    )
    bytes_per_second: Int64 | None = Field(
        default=None, description="Rate of the download, while downloading."
    )
    estimated_completion_time: Time | None = Field(
        default=None,
        description="When the download will be complete, by its mean rate of the last minute; "
        "absent while nothing comes.",
    )
    downloaded_time: Time | None = Field(
        default=None, description="When the copy on the disk was published."
    )
    last_download_seconds: Int32 | None = Field(
        default=None,
        description="Seconds that the last download of the whole model took: all its attempts, "
        "without the waits between them.",
    )
    origin_bytes: Int64 | None = Field(
        default=None,
        description="Bytes of the copy's last download that came from its origin.",
    )
    peer_bytes: Int64 | None = Field(
        default=None,
        description="Bytes of the copy's last download that came from other nodes of the group.",
    )
    store_digests: bool = Field(
        default=False,
        description="Whether all bytes that came from other nodes were compared with digests that "
        "the origin's store reports.",
        exclude_if=is_falsy,
    )
    attempts: Int32 | None = Field(
        default=None, description="Failed downloads since the last success."
    )
    reason: str | None = Field(
        default=None,
        description="Reason why the model failed, waits, was evicted, or is not evicted as "
        "requested, one CamelCase word.",
        max_length=64,
    )
    message: str | None = Field(
        default=None,
        description="Why the model failed, waits, was evicted, or is not evicted as requested; "
        "where, and what to do.",
        max_length=1024,
    )
    next_retry_time: Time | None = Field(
        default=None, description="When the next download starts without a change."
    )


class NodeDisk(JsonObject):
    """The file system that holds the models; sizes are rounded for people."""

    capacity: Quantity = Field(description="Size of the file system.")
    used: Quantity = Field(description="Used space, by models and by other files.")
    available: Quantity = Field(description="Space that the agent can still write.")


class LocalModelNodeStatus(JsonObject):
    """State of the node's disk and of its models."""

    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    model_status: dict[str, StoredModelStatus] | None = Field(
        default=None,
        description="State of each listed model in KServe's words, by <name> or "
        "<namespace>/<name>.",
        json_schema_extra=ATOMIC_MAP,
    )
    models: tuple[NodeModelStatus, ...] = Field(
        default=(),
        description="The models that are listed or on the disk.",
        json_schema_extra=ATOMIC_LIST,
    )
    disk: NodeDisk | None = Field(default=None, description="The disk that holds the models.")
    peer: AgentPeer | None = Field(
        default=None,
        description="Where the agent serves pieces of model files to other nodes of its groups; "
        "absent: it does not.",
    )


class LocalModelNode(Resource):
    """The models of one node and their state. localmodel creates it, with the name of the node."""

    spec: LocalModelNodeSpec = Field(
        default=LocalModelNodeSpec(), description="The models that the node keeps."
    )
    status: LocalModelNodeStatus = Field(
        default=LocalModelNodeStatus(), description="State of the node's disk and of its models."
    )
