"""LocalModelNodeGroup: a set of nodes, with volume templates and a storage limit."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from crds.base import (
    ATOMIC_LIST,
    Conditions,
    Int32,
    Int64,
    JsonObject,
    Labels,
    MicroTime,
    ModelIdentity,
    ObservedGeneration,
    Resource,
    Time,
    for_users,
    is_falsy,
    validations,
)
from crds.eviction import EvictionPolicy, EvictionSettings, EvictionSpec
from crds.node_limit import NodeLimit
from crds.peers import PeerExchange
from crds.quantity_types import Quantity, positive
from crds.volumes import PersistentVolumeClaimSpec, PersistentVolumeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crds.base import Identity

# A number and not a percentage: the capacity of an origin does not grow with the cluster.
DEFAULT_CONCURRENT_NODES = 100


class Download(JsonObject):
    """How the nodes of a group download."""

    max_concurrent_nodes: NodeLimit | None = Field(
        default=None,
        description="Number of nodes of the group that may download at the same time, or a "
        "percentage of the group's nodes, rounded up, such as 25%. Further nodes wait for their "
        "turn. 100%: no limit. Default: "
        f"{DEFAULT_CONCURRENT_NODES} with nodeSelector, no limit with persistentVolumeSpec.",
    )
    peers: PeerExchange | None = Field(
        default=None,
        description="Enabled: the nodes of the group fetch pieces of model files from each other, "
        "so that the origin is read about once. Disabled, the default: each node reads the origin.",
    )


class Toleration(JsonObject):
    """A Toleration of core/v1, stored unchanged."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})


class LocalModelNodeGroupSpec(JsonObject):
    """The nodes of the group, its part of their disks, and templates of volumes and claims.

    Either the short form (nodeSelector, storageSpec) or KServe's form (persistentVolumeSpec,
    persistentVolumeClaimSpec).
    """

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                "has(self.nodeSelector) != has(self.persistentVolumeSpec)",
                (
                    "give exactly one of nodeSelector (labels of the nodes) and "
                    "persistentVolumeSpec (a volume with nodeAffinity.required)"
                ),
            ),
            (
                "has(self.persistentVolumeSpec) == has(self.persistentVolumeClaimSpec)",
                "persistentVolumeSpec and persistentVolumeClaimSpec come together",
            ),
            (
                "!has(self.storageSpec) || has(self.nodeSelector)",
                (
                    "storageSpec goes with nodeSelector; with persistentVolumeSpec, use "
                    "persistentVolumeClaimSpec"
                ),
            ),
        )
    )

    storage_limit: Quantity = Field(
        description="Bytes that the group's models may take on each node, such as 500Gi.",
        json_schema_extra=positive(
            "storageLimit must be a quantity of more than zero, such as 500Gi"
        ),
    )
    node_selector: Labels | None = Field(
        default=None,
        description="Labels of the nodes of the group.",
        json_schema_extra={"minProperties": 1},
    )
    storage_spec: PersistentVolumeClaimSpec | None = Field(
        default=None, description="Template of the claims; the defaults suit most clusters."
    )
    persistent_volume_spec: PersistentVolumeSpec | None = Field(
        default=None,
        description="Template of the volumes. Its nodeAffinity.required selects the nodes of the "
        "group.",
    )
    persistent_volume_claim_spec: PersistentVolumeClaimSpec | None = Field(
        default=None, description="Template of the claims."
    )
    tolerations: tuple[Toleration, ...] | None = Field(
        default=None,
        description="A field of KServe for its download Jobs. It is stored for KServe's "
        "controller, and not used by localmodel, whose agents run on tainted nodes without it.",
        json_schema_extra=ATOMIC_LIST | for_users(maxItems=256),
    )
    job_tolerations: tuple[Toleration, ...] | None = Field(
        default=None,
        description="The name of tolerations in some versions of KServe; stored likewise.",
        json_schema_extra=ATOMIC_LIST | for_users(maxItems=256),
    )
    eviction: EvictionSpec | None = Field(
        default=None, description="Which models are evicted, and when."
    )
    download: Download | None = Field(
        default=None, description="How the nodes of the group download."
    )

    @property
    def peers_enabled(self) -> bool:
        """Whether the nodes of the group fetch from each other."""
        return self.download is not None and self.download.peers is PeerExchange.ENABLED

    @property
    def eviction_settings(self) -> EvictionSettings:
        """Settings of eviction, with the defaults of the form of the spec."""
        short_form = self.node_selector is not None
        default = EvictionPolicy.LRU if short_form else EvictionPolicy.NONE
        return (self.eviction or EvictionSpec()).settings(default)


class ModelFailure(JsonObject):
    """Why a model is not on a node: the first node that failed, or else the first that waits."""

    node: str = Field(description="Name of the node.", max_length=253)
    reason: str = Field(description="Reason, one CamelCase word.", max_length=64)
    message: str = Field(description="What is wrong, and what to do.", max_length=1024)


class GroupModel(ModelIdentity):
    """State of one model of the plan on all nodes of the group."""

    states: str = Field(
        description="One letter for each of status.nodes: P pending, D downloading, A available, "
        "E evicted, F failed, N node not ready.",
    )
    size: Int64 | None = Field(default=None, description="Bytes of the model's files.")
    hash: str | None = Field(default=None, description="Hash of the model.", max_length=71)
    downloaded_bytes: Int64 = Field(
        default=0, description="Bytes of the model on all nodes, together."
    )
    bytes_per_second: Int64 | None = Field(
        default=None,
        description="Rate of the downloads of the model on all nodes, together; absent while none "
        "of them receives anything.",
    )
    estimated_completion_time: Time | None = Field(
        default=None, description="When the last of these downloads will be complete."
    )
    last_download_seconds: Int32 | None = Field(
        default=None,
        description="Seconds that the last download of the model took, on the slowest node.",
    )
    pods: Int32 = Field(
        default=0,
        description="Pods that use the model on the nodes of the group, pending ones included, as "
        "the nodes last reported them. A node that has the model for several groups counts in one "
        "of them.",
        ge=0,
        exclude_if=is_falsy,
    )
    claims_wait: bool = Field(
        default=False,
        description="Whether new claims of the cache wait: caches of other namespaces, or a "
        "LocalModelCache, have or had the same URI, and a node may have a copy that this cache "
        "must not use yet.",
        exclude_if=is_falsy,
    )
    failure: ModelFailure | None = Field(
        default=None, description="The first failed copy, or else the first that waits."
    )


class RejectedModel(ModelIdentity):
    """A model whose cache names the group and that is not in the plan."""

    reason: str = Field(description="Reason, one CamelCase word.", max_length=64)
    message: str = Field(description="Why the model is rejected, and what to do.", max_length=1024)
    size: Int64 | None = Field(
        default=None, description="Bytes of the model's files, if a node has reported them."
    )


class GroupDownload(JsonObject):
    """Counts of the nodes that download or wait for their turn."""

    limit: Int32 = Field(description="Nodes that may download at the same time.")
    downloading: Int32 = Field(description="Nodes that download or are about to start.")
    waiting: Int32 = Field(description="Nodes that wait for their turn.")


class LocalModelNodeGroupStatus(JsonObject):
    """State of the models on the nodes of the group."""

    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    used: Quantity | None = Field(
        default=None, description="Bytes that the group's models take on its fullest node."
    )
    available: Quantity | None = Field(
        default=None, description="Part of storageLimit that is free on its fullest node."
    )
    nodes: tuple[str, ...] = Field(
        default=(), description="The nodes of the group, sorted.", json_schema_extra=ATOMIC_LIST
    )
    models: tuple[GroupModel, ...] = Field(
        default=(),
        description="The models of the plan, in the same order.",
        json_schema_extra=ATOMIC_LIST,
    )
    rejected: tuple[RejectedModel, ...] = Field(
        default=(),
        description="The models whose caches name the group and that are not in the plan.",
        json_schema_extra=ATOMIC_LIST,
    )
    download: GroupDownload | None = Field(
        default=None,
        description="Present while nodes wait for their turn to download: see "
        "spec.download.maxConcurrentNodes.",
    )
    last_update_time: MicroTime | None = Field(
        default=None,
        description="When this status last changed: at most every two seconds while states change.",
    )

    @cached_property
    def models_by_identity(self) -> Mapping[Identity, GroupModel]:
        """The models of the plan, by identity."""
        return {model.identity: model for model in self.models}

    @cached_property
    def rejected_by_identity(self) -> Mapping[Identity, RejectedModel]:
        """The rejected models, by identity."""
        return {model.identity: model for model in self.rejected}


class LocalModelNodeGroup(Resource):
    """A set of nodes that keep models on their disks."""

    spec: LocalModelNodeGroupSpec = Field(
        description="The nodes of the group, and its part of their disks."
    )
    status: LocalModelNodeGroupStatus = Field(
        default=LocalModelNodeGroupStatus(),
        description="State of the models on the nodes of the group.",
    )
