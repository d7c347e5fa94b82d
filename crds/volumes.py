"""Parts of core/v1 PersistentVolumes and claims that groups have as templates.

Only the fields that localmodel reads have types, which `kubectl explain` shows. All other fields of
core/v1 are kept unchanged.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from crds.base import ATOMIC_LIST, JsonObject, for_users
from crds.quantity_types import Amount

_OPEN: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}


# Each bound is far above real use, or is Kubernetes' own: a label value has at most 63 characters,
# the name of a node or of a class 253, a path on Linux and the options of mount(2) 4096 bytes. A
# volume may name each of 5000 nodes.
_TERMS = ATOMIC_LIST | for_users(maxItems=256)
_VALUES = ATOMIC_LIST | for_users(maxItems=10_000)
_MODES = ATOMIC_LIST | for_users(maxItems=16)
_OPTIONS = ATOMIC_LIST | for_users(maxItems=256)
# The API server estimates the cost of a rule by the largest map.
_AMOUNTS: dict[str, Any] = {"maxProperties": 16}

_Value = Annotated[str, Field(json_schema_extra=for_users(maxLength=253))]
_Mode = Annotated[str, Field(json_schema_extra=for_users(maxLength=63))]
_Option = Annotated[str, Field(json_schema_extra=for_users(maxLength=4096))]
_PATH = for_users(maxLength=4096)
_CLASS = for_users(maxLength=253)

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


def _checked(operator: str) -> str:
    """Refuse an unknown operator, also of a stored object: it selects unknown nodes."""
    if operator not in _OPERATORS:
        raise ValueError(f"{operator!r} is none of {', '.join(_OPERATORS)}")
    return operator


class NodeSelectorRequirement(JsonObject):
    """One expression over a label or a field of a node."""

    key: str = Field(description="Label key, or field name (metadata.name).", max_length=317)
    operator: Annotated[str, AfterValidator(_checked)] = Field(
        description="In, NotIn, Exists, DoesNotExist, Gt or Lt.",
        json_schema_extra={"enum": [*_OPERATORS]},
    )
    values: tuple[_Value, ...] = Field(
        default=(),
        description="Values for In and NotIn; one integer for Gt and Lt; none otherwise.",
        json_schema_extra=_VALUES,
    )


class NodeSelectorTerm(JsonObject):
    """Expressions that must all hold for a node. A term without any matches no node."""

    match_expressions: tuple[NodeSelectorRequirement, ...] = Field(
        default=(), description="Expressions over labels.", json_schema_extra=_TERMS
    )
    match_fields: tuple[NodeSelectorRequirement, ...] = Field(
        default=(), description="Expressions over fields.", json_schema_extra=_TERMS
    )


class NodeSelector(JsonObject):
    """Terms of which one must match."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = Field(
        description="Terms; a node is selected if it matches one of them.", json_schema_extra=_TERMS
    )


class VolumeNodeAffinity(JsonObject):
    """The nodes that can use the volume."""

    required: NodeSelector | None = Field(
        default=None, description="Selector of the nodes of the group."
    )


class LocalVolumeSource(JsonObject):
    """A directory of the node, as a local volume."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    path: str = Field(
        description="Absolute path of the agent's root directory on the node.",
        json_schema_extra=_PATH,
    )


class HostPathVolumeSource(JsonObject):
    """A directory of the node, as a hostPath volume."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    path: str = Field(
        description="Absolute path of the agent's root directory on the node.",
        json_schema_extra=_PATH,
    )


class PersistentVolumeSpec(JsonObject):
    """Template of the group's PersistentVolumes: core/v1 PersistentVolumeSpec."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    access_modes: tuple[_Mode, ...] | None = Field(
        default=None, description="Access modes of the volume.", json_schema_extra=_MODES
    )
    capacity: dict[str, Amount] | None = Field(
        default=None,
        description="Capacity of the volume, by resource (storage).",
        json_schema_extra=_AMOUNTS,
    )
    host_path: HostPathVolumeSource | None = Field(
        default=None, description="The node's directory, as a hostPath volume."
    )
    local: LocalVolumeSource | None = Field(
        default=None, description="The node's directory, as a local volume."
    )
    mount_options: tuple[_Option, ...] | None = Field(
        default=None,
        description="Mount options. Absent: volumes are mounted read-only (ro).",
        json_schema_extra=_OPTIONS,
    )
    node_affinity: VolumeNodeAffinity | None = Field(
        default=None, description="The nodes of the group. Absent: the group has none."
    )
    storage_class_name: str | None = Field(
        default=None,
        description="Ignored: a volume gets the class of its claim.",
        json_schema_extra=_CLASS,
    )


class ResourceRequirements(JsonObject):
    """Requests of a claim."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    requests: dict[str, Amount] | None = Field(
        default=None,
        description="Requested amounts, by resource (storage).",
        json_schema_extra=_AMOUNTS,
    )


class PersistentVolumeClaimSpec(JsonObject):
    """Template of the group's claims: core/v1 PersistentVolumeClaimSpec."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    access_modes: tuple[_Mode, ...] | None = Field(
        default=None,
        description="Access modes of the claim; ReadOnlyMany by default.",
        json_schema_extra=_MODES,
    )
    resources: ResourceRequirements | None = Field(
        default=None,
        description="Requested storage. Default: the size of the model, which is also used where a "
        "LimitRange or ResourceQuota of the namespace refuses the value here.",
    )
    storage_class_name: str | None = Field(
        default=None,
        description="StorageClass of claims and volumes. Default: none ('').",
        json_schema_extra=_CLASS,
    )
