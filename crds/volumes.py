"""The parts of core/v1 volumes that node groups hold as templates.

Only what localmodel reads is typed, and so explained by `kubectl explain`; every other field of
core/v1 is kept as given.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from localmodel.crds.base import ATOMIC_LIST, Model
from localmodel.crds.quantity import Amount

_OPEN: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}


# Far more than there are: what a rule costs is reckoned by the largest map.
_AMOUNTS: dict[str, Any] = {"maxProperties": 16}

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


def _checked(operator: str) -> str:
    """Refuse another one, wherever it was stored: nobody knows which nodes it means."""
    if operator not in _OPERATORS:
        raise ValueError(f"{operator!r} is none of {', '.join(_OPERATORS)}")
    return operator


class NodeSelectorRequirement(Model):
    """One expression over a label or a field of a node."""

    key: str = Field(description="Label key, or field name (metadata.name).", max_length=317)
    operator: Annotated[str, AfterValidator(_checked)] = Field(
        description="In, NotIn, Exists, DoesNotExist, Gt or Lt.",
        json_schema_extra={"enum": [*_OPERATORS]},
    )
    values: tuple[str, ...] = Field(
        default=(),
        description="Values for In and NotIn; one integer for Gt and Lt; none otherwise.",
        json_schema_extra=ATOMIC_LIST,
    )


class NodeSelectorTerm(Model):
    """Expressions that must all hold for a node. A term without any matches no node."""

    match_expressions: tuple[NodeSelectorRequirement, ...] = Field(
        default=(), description="Expressions over labels.", json_schema_extra=ATOMIC_LIST
    )
    match_fields: tuple[NodeSelectorRequirement, ...] = Field(
        default=(), description="Expressions over fields.", json_schema_extra=ATOMIC_LIST
    )


class NodeSelector(Model):
    """Terms, of which one must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = Field(
        description="Terms; a node matches if one of them does.", json_schema_extra=ATOMIC_LIST
    )


class VolumeNodeAffinity(Model):
    """Which nodes can reach the volume."""

    required: NodeSelector | None = Field(
        default=None, description="The nodes that are in the group: those that match."
    )


class LocalVolumeSource(Model):
    """A directory of the node."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    path: str = Field(description="Absolute path on the node: the root that the agent fills.")


class HostPathVolumeSource(Model):
    """A directory of the node, without node affinity."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    path: str = Field(description="Absolute path on the node: the root that the agent fills.")


class PersistentVolumeSpec(Model):
    """Template of the group's PersistentVolumes: core/v1 PersistentVolumeSpec."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    access_modes: tuple[str, ...] | None = Field(
        default=None, description="Access modes of the volume.", json_schema_extra=ATOMIC_LIST
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
    mount_options: tuple[str, ...] | None = Field(
        default=None,
        description="Mount options. Without any, volumes are mounted read-only (ro).",
        json_schema_extra=ATOMIC_LIST,
    )
    node_affinity: VolumeNodeAffinity | None = Field(
        default=None, description="Which nodes are in the group. Without it, none is."
    )
    storage_class_name: str | None = Field(
        default=None, description="Ignored: a volume has the class of its claim."
    )


class ResourceRequirements(Model):
    """Requests of a claim."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    requests: dict[str, Amount] | None = Field(
        default=None,
        description="Requested amounts, by resource (storage).",
        json_schema_extra=_AMOUNTS,
    )


class PersistentVolumeClaimSpec(Model):
    """Template of the group's claims: core/v1 PersistentVolumeClaimSpec."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_OPEN)

    access_modes: tuple[str, ...] | None = Field(
        default=None,
        description="Access modes of the claim; ReadOnlyMany by default.",
        json_schema_extra=ATOMIC_LIST,
    )
    resources: ResourceRequirements | None = Field(
        default=None,
        description="Requested storage; the size of the model by default, and where a namespace's "
        "LimitRange or ResourceQuota refuses what is given here.",
    )
    storage_class_name: str | None = Field(
        default=None, description="Class of claim and volume; none ('') by default."
    )
