"""LocalModelPlacement: the plan of one node group."""

from __future__ import annotations

from pydantic import Field

from crds.base import (
    ATOMIC_LIST,
    Identity,
    Int32,
    JsonObject,
    MicroTime,
    Resource,
    is_falsy,
)
from crds.cache import ModelRequest
from crds.eviction import EvictionSettings
from crds.quantity import Quantity
from crds.volumes import NodeSelectorTerm


class PlacedModel(ModelRequest):
    """A model that every node of the group keeps."""

    model_name: str = Field(description="Name of the cache.", max_length=253)
    namespace: str = Field(
        default="",
        description="Namespace of the cache; empty for a LocalModelCache.",
        max_length=63,
        exclude_if=is_falsy,
    )
    # Without the rules of the cache's field: the cache has passed them, and on a list of this
    # length they would exceed the API server's budget for rules.
    source_model_uri: str = Field(description="URI of the model.", max_length=2048)
    model_size: Quantity = Field(description="Declared size of the model.")
    referenced: bool = Field(
        default=False,
        description="Whether a service refers to the model. The pods of a node are watched by its "
        "agent.",
        exclude_if=is_falsy,
    )

    precedence: Int32 = Field(
        default=0,
        description="Which source fills the folder where caches of several namespaces have this "
        "URI: that of the entry with the lowest precedence on the node. LocalModelCaches come "
        "first, then the namespace whose cache is oldest.",
        ge=0,
        exclude_if=is_falsy,
    )

    @property
    def identity(self) -> Identity:
        """Key, namespace and name of the cache: see ModelIdentity."""
        return (self.key, self.namespace, self.model_name)


class Turn(JsonObject):
    """The nodes of a group that may start to download."""

    nodes: tuple[str, ...] = Field(
        default=(), description="Names of the nodes, sorted.", json_schema_extra=ATOMIC_LIST
    )
    since: MicroTime = Field(description="When the nodes were chosen.")


class LocalModelPlacementSpec(JsonObject):
    """The nodes of the group, and the models in the order of their importance."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = Field(
        default=(),
        description="The nodes of the group: those that match one of the terms.",
        json_schema_extra=ATOMIC_LIST,
    )
    storage_limit: Quantity = Field(
        description="Bytes that the group's models may take on each node."
    )
    eviction: EvictionSettings = Field(
        default=EvictionSettings(), description="What is evicted when the models do not fit."
    )
    turn: Turn | None = Field(
        default=None,
        description="The nodes that may start to download; absent: all. The other nodes get new "
        "models suspended.",
    )
    models: tuple[PlacedModel, ...] = Field(
        default=(),
        description="The models, most important first.",
        json_schema_extra=ATOMIC_LIST,
    )


class LocalModelPlacement(Resource):
    """The plan of one LocalModelNodeGroup. localmodel writes it; nobody edits it.

    Nodes remove a model when the plan no longer lists it. A missing plan removes nothing.
    """

    spec: LocalModelPlacementSpec = Field(description="The nodes and the models of the group.")
