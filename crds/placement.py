"""LocalModelPlacement: the plan of one node group."""

from __future__ import annotations

from pydantic import Field

from crds.base import (
    ATOMIC_LIST,
    ATOMIC_MAP,
    Identity,
    Int32,
    Int64,
    JsonObject,
    MicroTime,
    Resource,
    is_falsy,
)
from crds.cache import ModelRequest
from crds.eviction import EvictionSettings
from crds.peers import ManifestHash, PeerEndpoint
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
    verified_manifest: ManifestHash | None = Field(
        default=None,
        description="Hash of the manifest that nodes of the group agree on, where its nodes fetch "
        "from each other: two nodes that read the origin themselves report it, or one whose copy "
        "has the hash that the cache asks for. Absent: none yet.",
    )

    @property
    def identity(self) -> Identity:
        """Key, namespace and name of the cache: see ModelIdentity."""
        return (self.key, self.namespace, self.model_name)


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
