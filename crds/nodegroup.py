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
    for_users,
    is_falsy,
    validations,
)
from crds.eviction import EvictionPolicy, EvictionSettings, EvictionSpec
from crds.node_limit import NodeLimit
from crds.quantity import Quantity, positive
from crds.volumes import PersistentVolumeClaimSpec, PersistentVolumeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crds.base import Identity

# A number and not a percentage: what an origin can serve does not grow with the cluster.
DEFAULT_CONCURRENT_NODES = 100


class Download(JsonObject):
    """How the nodes of a group download."""

    max_concurrent_nodes: NodeLimit | None = Field(
        default=None,
        description="How many nodes of the group may download at the same time: a number, or a "
        "percentage of the group's nodes, rounded up, such as 25%. Where more have models to "
        "download, the others wait for their turn. 100%: no limit. Default: "
        f"{DEFAULT_CONCURRENT_NODES} with nodeSelector, no limit with persistentVolumeSpec.",
    )


class Toleration(JsonObject):
    """One of core/v1, kept as it is."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})


class LocalModelNodeGroupSpec(JsonObject):
    """Which nodes, how much of their disks, and how pods get at the models.

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
        description="Labels that a node of the group has.",
        json_schema_extra={"minProperties": 1},
    )
    storage_spec: PersistentVolumeClaimSpec | None = Field(
        default=None, description="Template of the claims; its defaults suit most clusters."
    )
    persistent_volume_spec: PersistentVolumeSpec | None = Field(
        default=None,
        description="Template of the volumes; its nodeAffinity.required says which nodes are in "
        "the group.",
    )
    persistent_volume_claim_spec: PersistentVolumeClaimSpec | None = Field(
        default=None, description="Template of the claims."
    )
    tolerations: tuple[Toleration, ...] | None = Field(
        default=None,
        description="KServe's, for its download Jobs: kept for its controller, and not used here. "
        "The agents run on tainted nodes as they are.",
        json_schema_extra=ATOMIC_LIST | for_users(maxItems=256),
    )
    job_tolerations: tuple[Toleration, ...] | None = Field(
        default=None,
        description="Another name of tolerations in versions of KServe; kept likewise.",
        json_schema_extra=ATOMIC_LIST | for_users(maxItems=256),
    )
    eviction: EvictionSpec | None = Field(
        default=None, description="What goes when the models do not fit."
    )
    download: Download | None = Field(
        default=None, description="How the nodes of the group download."
    )

    @property
    def eviction_settings(self) -> EvictionSettings:
        """What goes when the models do not fit, with the defaults of the form."""
        short_form = self.node_selector is not None
        default = EvictionPolicy.LRU if short_form else EvictionPolicy.NONE
        return (self.eviction or EvictionSpec()).settings(default)


class ModelFailure(JsonObject):
    """Why a model is not on a node: of the first that failed, or else of the first that waits."""

    node: str = Field(description="Where it failed, or waits.", max_length=253)
    reason: str = Field(description="Why, in one word.", max_length=64)
    message: str = Field(description="What is the matter, and what to do.", max_length=1024)


class GroupModel(ModelIdentity):
    """One model of the plan, over all nodes of the group."""

    states: str = Field(
        description="One letter for each of status.nodes: P pending, D downloading, A available, "
        "E evicted, F failed, N node not ready.",
    )
    size: Int64 | None = Field(default=None, description="Bytes of the model's files.")
    hash: str | None = Field(default=None, description="What was downloaded.", max_length=71)
    downloaded_bytes: Int64 = Field(default=0, description="Bytes that the nodes have, together.")
    claims_wait: bool = Field(
        default=False,
        description="Whether no new claim is made yet: caches of other namespaces, or a "
        "LocalModelCache, have the same URI, or had it, and a node may have their copy and not "
        "this cache's.",
        exclude_if=is_falsy,
    )
    failure: ModelFailure | None = Field(
        default=None, description="The first failure, or else why the first pending copy waits."
    )


class RejectedModel(ModelIdentity):
    """A model that names the group and is not in its plan."""

    reason: str = Field(description="Why, in one word.", max_length=64)
    message: str = Field(description="Why, and what to do.", max_length=1024)
    size: Int64 | None = Field(
        default=None, description="Bytes of the model's files, where a node has told them."
    )


class GroupDownload(JsonObject):
    """Whose turn it is to download, while nodes wait for theirs."""

    limit: Int32 = Field(description="How many nodes may download at the same time.")
    downloading: Int32 = Field(description="Nodes that download, or are about to begin.")
    waiting: Int32 = Field(description="Nodes that wait for their turn.")


class LocalModelNodeGroupStatus(JsonObject):
    """What is on the nodes of the group."""

    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    used: Quantity | None = Field(
        default=None, description="What the group's models take on its fullest node."
    )
    available: Quantity | None = Field(
        default=None, description="What of storageLimit is left on its fullest node."
    )
    nodes: tuple[str, ...] = Field(
        default=(), description="The nodes of the group, sorted.", json_schema_extra=ATOMIC_LIST
    )
    models: tuple[GroupModel, ...] = Field(
        default=(),
        description="The models of the plan, in its order.",
        json_schema_extra=ATOMIC_LIST,
    )
    rejected: tuple[RejectedModel, ...] = Field(
        default=(),
        description="The models that name the group and are not in its plan.",
        json_schema_extra=ATOMIC_LIST,
    )
    download: GroupDownload | None = Field(
        default=None,
        description="Present while nodes wait for their turn to download: see "
        "spec.download.maxConcurrentNodes.",
    )
    last_update_time: MicroTime | None = Field(
        default=None,
        description="When this status last changed; while states change fast it does so every "
        "two seconds at most.",
    )

    @cached_property
    def models_by_identity(self) -> Mapping[Identity, GroupModel]:
        """The models of the plan."""
        return {model.identity: model for model in self.models}

    @cached_property
    def rejected_by_identity(self) -> Mapping[Identity, RejectedModel]:
        """The models that are not in it."""
        return {model.identity: model for model in self.rejected}


class LocalModelNodeGroup(Resource):
    """A set of nodes that keep models on their disks."""

    spec: LocalModelNodeGroupSpec = Field(description="Which nodes, and how much of their disks.")
    status: LocalModelNodeGroupStatus = Field(
        default=LocalModelNodeGroupStatus(), description="What is on the nodes of the group."
    )
