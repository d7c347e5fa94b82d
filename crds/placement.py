"""LocalModelPlacement: the plan of one node group."""

from __future__ import annotations

from pydantic import Field

from crds.base import ATOMIC_LIST, Identity, Int32, JsonObject, MicroTime, Resource, is_falsy
from crds.cache import ModelRequest
from crds.eviction import EvictionSettings
from crds.quantity import Quantity
from crds.volumes import NodeSelectorTerm


class PlacedModel(ModelRequest):
    """A model that every node of the group shall have."""

    model_name: str = Field(description="Name of its cache.", max_length=253)
    namespace: str = Field(
        default="",
        description="Namespace of its cache; empty for a LocalModelCache.",
        max_length=63,
        exclude_if=is_falsy,
    )
    # Without the cache's rules: they have held there, and a list of this length is past what the
    # API server spends on rules.
    source_model_uri: str = Field(description="Where the model is.", max_length=2048)
    model_size: Quantity = Field(description="Declared size of the model.")
    referenced: bool = Field(
        default=False,
        description="Whether a service refers to it. Pods of a node are its agent's to see.",
        exclude_if=is_falsy,
    )

    precedence: Int32 = Field(
        default=0,
        description="Where caches of several owners have this URI: whose source fills the folder. "
        "Of those that a node lists, that of the lowest: LocalModelCaches come first, then the "
        "namespace whose cache is oldest.",
        ge=0,
        exclude_if=is_falsy,
    )

    @property
    def identity(self) -> Identity:
        """Key, namespace and name: see ModelIdentity."""
        return (self.key, self.namespace, self.model_name)


class Turn(JsonObject):
    """The nodes of a group that may begin to download."""

    nodes: tuple[str, ...] = Field(
        default=(), description="Their names, sorted.", json_schema_extra=ATOMIC_LIST
    )
    since: MicroTime = Field(description="When they were chosen.")


class LocalModelPlacementSpec(JsonObject):
    """Which nodes, and which models, in what order."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = Field(
        default=(),
        description="The nodes of the group: those for which one of the terms holds.",
        json_schema_extra=ATOMIC_LIST,
    )
    storage_limit: Quantity = Field(description="Bytes that the models may take on each node.")
    eviction: EvictionSettings = Field(
        default=EvictionSettings(), description="What goes when the models do not fit."
    )
    turn: Turn | None = Field(
        default=None,
        description="Whose turn it is to download; absent: every node's. The other nodes get new "
        "models suspended.",
    )
    models: tuple[PlacedModel, ...] = Field(
        default=(),
        description="The models, most important first.",
        json_schema_extra=ATOMIC_LIST,
    )


class LocalModelPlacement(Resource):
    """The plan of one LocalModelNodeGroup. Made by localmodel, edited by nobody.

    A model leaves the nodes when the plan no longer lists it. A plan that is missing removes
    nothing.
    """

    spec: LocalModelPlacementSpec = Field(description="Which nodes, and which models.")
