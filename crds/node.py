"""LocalModelNode: one for each node; its share of the plans, and what is on its disk."""

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
)
from crds.eviction import EvictionSettings
from crds.placement import PlacedModel
from crds.quantity import Quantity
from crds.states import ModelState, StoredModelStatus


class LocalModel(PlacedModel):
    """A model that this node shall have."""

    # KServe's own entries have no size, and older ones no group.
    model_size: Quantity = Field(
        default="0", description="Declared size of the model; 0: not told."
    )
    node_group: str = Field(
        default="", description="The group that asks for it; empty: not told.", max_length=253
    )
    suspend: bool | None = Field(
        default=None,
        description="True: the node does not begin to download it yet. Other nodes of the group "
        "come first: see download.maxConcurrentNodes of the LocalModelNodeGroup.",
    )


class LocalModelNodeGroupRef(JsonObject):
    """A group that the node is in."""

    name: str = Field(description="Name of the LocalModelNodeGroup.", max_length=253)
    storage_limit: Quantity = Field(description="Bytes that the group's models may take here.")
    eviction: EvictionSettings = Field(
        default=EvictionSettings(), description="What goes when the group's models do not fit."
    )


class LocalModelNodeSpec(JsonObject):
    """What this node shall have."""

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
        description="How many models of its groups this object has no room for: none is "
        "downloaded. Where it is not zero, take the node out of a group.",
    )


class NodeModelStatus(ModelIdentity):
    """One model on this node's disk, or on its way there or from there."""

    state: ModelState = Field(
        description="Pending, Downloading, Downloaded, Failed, Evicted: it made room for another, "
        "and comes back when something refers to it; or Removing: no longer wanted, and gone after "
        "the grace period."
    )
    cached: bool = Field(
        description="Whether a complete, verified copy is on the disk, and this cache may have it."
    )
    size: Int64 | None = Field(
        default=None, description="Bytes of the model's files, once the source has told them."
    )
    disk_bytes: Int64 | None = Field(
        default=None,
        description="What it takes of the disk, in blocks, with what is not published yet.",
    )
    hash: str | None = Field(
        default=None, description="What is on the disk; see LocalModelCache.", max_length=71
    )
    last_used_time: Time | None = Field(
        default=None,
        description="When a pod of this node last mounted it, as far as the agent saw; to the "
        "minute while one does. None: never.",
    )
    downloaded_bytes: Int64 | None = Field(
        default=None, description="Bytes that are here, while downloading."
    )
    bytes_per_second: Int64 | None = Field(default=None, description="Speed, while downloading.")
    attempts: Int32 | None = Field(
        default=None, description="Failed downloads since the last success."
    )
    reason: str | None = Field(
        default=None,
        description="Why it failed, waits or was evicted, in one word.",
        max_length=64,
    )
    message: str | None = Field(
        default=None,
        description="Why it failed, waits or was evicted, where, and what to do.",
        max_length=1024,
    )
    next_retry_time: Time | None = Field(
        default=None, description="When the next download starts by itself."
    )


class NodeDisk(JsonObject):
    """The file system that holds the models, rounded for reading."""

    capacity: Quantity = Field(description="Its size.")
    used: Quantity = Field(description="What is taken, by models and by everything else.")
    available: Quantity = Field(description="What the agent can still write.")


class LocalModelNodeStatus(JsonObject):
    """What is on this node's disk."""

    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    model_status: dict[str, StoredModelStatus] | None = Field(
        default=None,
        description="State of each wanted model, by <name> or <namespace>/<name>.",
        json_schema_extra=ATOMIC_MAP,
    )
    models: tuple[NodeModelStatus, ...] = Field(
        default=(),
        description="The models that are wanted or here.",
        json_schema_extra=ATOMIC_LIST,
    )
    disk: NodeDisk | None = Field(default=None, description="The disk that holds the models.")


class LocalModelNode(Resource):
    """What one node shall have and has. Made by localmodel; named after the node."""

    spec: LocalModelNodeSpec = Field(
        default=LocalModelNodeSpec(), description="What this node shall have."
    )
    status: LocalModelNodeStatus = Field(
        default=LocalModelNodeStatus(), description="What is on this node's disk."
    )
