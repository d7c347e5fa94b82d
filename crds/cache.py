"""LocalModelCache and LocalModelNamespaceCache: a model to keep on the nodes of groups."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from crds.base import (
    ATOMIC_LIST,
    ATOMIC_MAP,
    LABEL_KEY,
    Conditions,
    Identity,
    Int32,
    Int64,
    JsonObject,
    Labels,
    LabelValue,
    ObservedGeneration,
    Resource,
    Time,
    for_users,
    validations,
)
from crds.models import HASH_RULE, ModelRequest
from crds.states import StoredNodeStatus

NodeGroupName = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra={"pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
    ),
]

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_REQUIREMENT_RULE = "In and NotIn need values, Exists and DoesNotExist take none"


class LabelSelectorRequirement(JsonObject):
    """One expression over a label."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                _REQUIREMENT_RULE,
            )
        )
    )

    key: str = Field(description="Label key.", pattern=LABEL_KEY, max_length=317)
    operator: str = Field(
        description="In, NotIn, Exists or DoesNotExist.",
        json_schema_extra={"enum": [*_OPERATORS]},
    )
    values: tuple[LabelValue, ...] | None = Field(
        default=None,
        description="Values for In and NotIn.",
        max_length=64,
        json_schema_extra=ATOMIC_LIST,
    )

    @model_validator(mode="after")
    def _is_one(self) -> LabelSelectorRequirement:
        """Refuse what Kubernetes would refuse, also in objects stored before the rule."""
        if self.operator not in _OPERATORS or (self.operator in _OPERATORS[:2]) != bool(
            self.values
        ):
            raise ValueError(_REQUIREMENT_RULE)
        return self


class LabelSelector(JsonObject):
    """A metav1.LabelSelector; an empty one selects everything."""

    match_labels: Labels | None = Field(
        default=None, description="Labels that an object must have, with these values."
    )
    match_expressions: tuple[LabelSelectorRequirement, ...] | None = Field(
        default=None,
        description="Expressions that must all hold.",
        max_length=32,
        json_schema_extra=ATOMIC_LIST,
    )


ClaimName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        json_schema_extra=validations(
            ("self == oldSelf", "pvcRef is immutable: create another cache for another claim")
        ),
    ),
]


class LocalObjectReference(JsonObject):
    """An object of the same namespace."""

    name: str | None = Field(default=None, description="Name of the object.", max_length=253)


class CacheSpec(ModelRequest):
    """The part of the spec that both kinds of caches have."""

    node_groups: tuple[NodeGroupName, ...] | None = Field(
        default=None,
        description="LocalModelNodeGroups that keep the model. Set either this or nodeGroup.",
        min_length=1,
        max_length=64,
        json_schema_extra=ATOMIC_LIST,
    )
    node_group: NodeGroupName | None = Field(
        default=None, description="Short form of nodeGroups, for one group."
    )
    image_pull_secrets: tuple[LocalObjectReference, ...] | None = Field(
        default=None,
        description="A field of KServe for oci://. It is stored for KServe's controller, and not "
        "used by localmodel.",
        json_schema_extra=ATOMIC_LIST | for_users(maxItems=256),
    )

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, from either form, without duplicates, in order."""
        names = (self.node_group,) if self.node_group is not None else self.node_groups or ()
        return tuple(dict.fromkeys(names))


class LocalModelCacheSpec(CacheSpec):
    """The model, and the groups that keep it."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                "has(self.nodeGroup) != has(self.nodeGroups)",
                "give exactly one of nodeGroup (one name) and nodeGroups (a list of names)",
            ),
        )
    )

    namespace_selector: LabelSelector | None = Field(
        default=None,
        description="Namespaces that get a claim for the model, also without a workload or a "
        "service that uses it. Absent: none. Empty: all, including those of the system. Any other "
        "namespace gets a claim while it has such a workload or service.",
    )


class LocalModelNamespaceCacheSpec(CacheSpec):
    """The model, and the groups that keep it. The cache's namespace gets a claim for it."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                (
                    "has(self.pvcRef) ? !has(self.nodeGroup) && !has(self.nodeGroups)"
                    " : has(self.nodeGroup) != has(self.nodeGroups)"
                ),
                (
                    "give exactly one of nodeGroup (one name), nodeGroups (a list of names) and "
                    "pvcRef (a claim, into which KServe's controller imports the model)"
                ),
            ),
            # Otherwise the claims of services would be deleted with the groups, or a Job stay.
            (
                "has(oldSelf.pvcRef) == has(self.pvcRef)",
                "pvcRef is immutable: make another cache for it, or for node groups",
            ),
        )
    )

    pvc_ref: ClaimName | None = Field(
        default=None,
        description="A claim of this namespace into which KServe's controller imports the model, "
        "instead of nodeGroups. Immutable. localmodel does nothing for such a cache, and says so "
        "in the condition Admitted.",
    )


class ModelCopies(JsonObject):
    """Counts of the copies on the nodes of the groups."""

    available: Int32 = Field(default=0, description="Copies that a pod can mount now.")
    total: Int32 = Field(
        default=0, description="Copies that should exist: one on each node of the groups."
    )
    failed: Int32 = Field(default=0, description="Copies whose last download failed.")


class NamespacedName(JsonObject):
    """Namespace and name of an object."""

    namespace: str = Field(description="Namespace of the object.", max_length=63)
    name: str = Field(description="Name of the object.", max_length=253)


class WorkloadName(NamespacedName):
    """Kind, namespace and name of a workload."""

    kind: str = Field(description="Kind of the object, such as Deployment.", max_length=63)


class CacheStatus(JsonObject):
    """State of the model on the nodes of its groups."""

    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    node_status: dict[str, StoredNodeStatus] | None = Field(
        default=None,
        description="State of the copy on each node of the groups, by node name.",
        json_schema_extra=ATOMIC_MAP,
    )
    copies: ModelCopies | None = Field(default=None, description="Counts of copies.")
    key: str | None = Field(
        default=None,
        description="Name of the model's folder: mount the claim with the sub-path models/ and "
        "this name.",
        max_length=16,
    )
    size: Int64 | None = Field(
        default=None,
        description="Bytes of the model's files, as nodes last reported them.",
    )
    hash: str | None = Field(
        default=None, description=f"Hash of the downloaded model: {HASH_RULE}.", max_length=71
    )
    progress: Int32 | None = Field(
        default=None,
        description="Percent of the bytes of all copies that are on the disks. Evicted copies do "
        "not count: 100 means that all other copies are complete.",
        ge=0,
        le=100,
    )
    bytes_per_second: Int64 | None = Field(
        default=None,
        description="Rate of the downloads on all nodes, together, when this status was last "
        "written; absent while none of them receives anything.",
    )
    estimated_completion_time: Time | None = Field(
        default=None,
        description="When the last of these downloads will be complete, as of the last write of "
        "this status.",
    )
    last_download_seconds: Int32 | None = Field(
        default=None,
        description="Seconds that the last download of the model took, on the slowest node.",
    )
    pods: Int32 | None = Field(
        default=None,
        description="Pods that use the model on the nodes of the groups, pending ones included, as "
        "the nodes last reported them.",
        ge=0,
    )
    inference_services: tuple[NamespacedName, ...] | None = Field(
        default=None,
        description="InferenceServices that use the cache, if the hooks are configured to watch "
        "them.",
        json_schema_extra=ATOMIC_LIST,
    )
    llm_inference_services: tuple[NamespacedName, ...] | None = Field(
        default=None,
        description="LLMInferenceServices that use the cache, if the hooks are configured to watch "
        "them.",
        json_schema_extra=ATOMIC_LIST,
    )
    workloads: tuple[WorkloadName, ...] | None = Field(
        default=None,
        description="Deployments, Jobs and other workloads whose pod template asks for the model, "
        "if the hooks are configured to watch them.",
        json_schema_extra=ATOMIC_LIST,
    )


# Fields of newer versions of KServe are kept.
_OPEN = ConfigDict(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})


class SharedClaimImport(JsonObject):
    """The last finished import into the claim of pvcRef."""

    model_config = _OPEN

    pvc_uid: str | None = Field(
        default=None, alias="pvcUID", description="UID of the claim.", max_length=128
    )
    completion_time: Time | None = Field(default=None, description="When the import finished.")


class NamespaceCacheStatus(CacheStatus):
    """State of the model. KServe's controller writes that of a cache with pvcRef."""

    model_config = _OPEN

    shared_pvc_import: SharedClaimImport | None = Field(
        default=None,
        alias="sharedPVCImport",
        description="With pvcRef: the import by KServe's controller. localmodel keeps it "
        "unchanged.",
    )


class _Cache(Resource):
    spec: CacheSpec

    @property
    def identity(self) -> Identity:
        """Key, namespace and name of the cache: see ModelIdentity."""
        return (self.spec.key, self.metadata.namespace, self.metadata.name)


class LocalModelCache(_Cache):
    """A model that is kept on the disks of the nodes of its groups."""

    spec: LocalModelCacheSpec = Field(description="The model, and the groups that keep it.")
    status: CacheStatus = Field(
        default=CacheStatus(), description="State of the model on the nodes."
    )


class LocalModelNamespaceCache(_Cache):
    """A model that is kept on the disks of the nodes of its groups, for one namespace."""

    spec: LocalModelNamespaceCacheSpec = Field(
        description="The model, and the groups that keep it."
    )
    status: NamespaceCacheStatus = Field(
        default=NamespaceCacheStatus(), description="State of the model on the nodes."
    )


AnyCache = LocalModelCache | LocalModelNamespaceCache
