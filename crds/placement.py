"""LocalModelPlacement: the plan of one node group."""

from __future__ import annotations

from pydantic import Field

from crds.base import (
    ATOMIC_LIST,
    ATOMIC_MAP,
    Int64,
    JsonObject,
    MicroTime,
    Resource,
    is_falsy,
)
from crds.eviction import EvictionSettings
from crds.models import PlacedModel
from crds.peers import PeerEndpoint
from crds.quantity_types import Quantity
from crds.volumes import NodeSelectorTerm


class Offer(JsonObject):
    """What a pod gets that asks for a model by name.

    An admission policy reads the offers of all plans whenever a pod asks for a model, so they are
    found by name, and hold what CEL cannot compute.
    """

    key: str = Field(description="Name of the model's folder below models/.", max_length=16)
    size: Int64 = Field(
        default=0,
        description="Declared bytes of the model: of several models of a pod, the largest weighs "
        "most in the choice of a node.",
        exclude_if=is_falsy,
    )
    default: bool = Field(
        default=False,
        description="Whether a pod that names no group gets the claim of this one: it is the first "
        "group of the cache.",
        exclude_if=is_falsy,
    )
    hidden_in: tuple[str, ...] = Field(
        default=(),
        description="Of a LocalModelCache: the namespaces that have a LocalModelNamespaceCache of "
        "the same name, which pods there get instead.",
        json_schema_extra=ATOMIC_LIST,
        exclude_if=is_falsy,
    )
    label_name: str = Field(
        default="",
        description="The cache's name in labels of nodes, where it is too long for a label.",
        max_length=63,
        exclude_if=is_falsy,
    )


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
    peers: tuple[PeerEndpoint, ...] | None = Field(
        default=None,
        description="The agents of the group that serve pieces of model files, sorted by node; "
        "absent: the nodes of the group do not fetch from each other.",
        json_schema_extra=ATOMIC_LIST,
    )
    offers: dict[str, Offer] = Field(
        default={},
        description="The models that pods get by name: by `<name>`, or `<namespace>/<name>` of a "
        "LocalModelNamespaceCache. Pods mount a model that is missing here by its claim only.",
        json_schema_extra=ATOMIC_MAP,
        exclude_if=is_falsy,
    )


class LocalModelPlacement(Resource):
    """The plan of one LocalModelNodeGroup. localmodel writes it; nobody edits it.

    Nodes remove a model when the plan no longer lists it. A missing plan removes nothing.
    """

    spec: LocalModelPlacementSpec = Field(description="The nodes and the models of the group.")
