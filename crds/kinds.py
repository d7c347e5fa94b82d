"""The kinds of the API: names, scope, columns of `kubectl get`, rules on the whole object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.cache import LocalModelCache, LocalModelNamespaceCache
from crds.node import LocalModelNode
from crds.nodegroup import LocalModelNodeGroup
from crds.placement import LocalModelPlacement

if TYPE_CHECKING:
    from crds.base import Resource


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`. wide: shown only with `-o wide`."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True)
class Rule:
    """A CEL rule and its message. optional_old_self: the rule is evaluated on creation too."""

    rule: str
    message: str
    optional_old_self: bool = False

    def to_json(self) -> dict[str, str | bool]:
        """The rule as an entry of x-kubernetes-validations."""
        optional = {"optionalOldSelf": True} if self.optional_old_self else {}
        return {"rule": self.rule, "message": self.message, **optional}


@dataclass(frozen=True)
class Kind:
    """One kind of the API."""

    model: type[Resource]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    namespaced: bool = False
    # Rules on the whole object.
    rules: tuple[Rule, ...] = ()

    # Whether users write objects of the kind and wait for their status.
    written_by_users: bool = False

    @property
    def name(self) -> str:
        """The kind's name, as in `kind:`."""
        return self.model.__name__


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE = Column("Age", ".metadata.creationTimestamp", "When the object was created.", "date")
_READY = Column("Ready", _condition("Ready", "status"), "Whether the object is ready.")
_STATUS = Column("Status", _condition("Ready", "message"), "State of the object, or what to do.")

_CACHE_COLUMNS = (
    _READY,
    Column("Size", ".spec.modelSize", "Declared size of the model."),
    Column("Copies", ".status.copies.available", "Copies that a pod can mount now.", "integer"),
    Column("Of", ".status.copies.total", "Copies that should be there.", "integer"),
    Column(
        "Percent",
        ".status.progress",
        "Percent of the bytes of all copies that are on disks.",
        "integer",
    ),
    Column("Reason", _condition("Ready", "reason"), "Reason of the condition Ready."),
    Column(
        "Status", _condition("Ready", "message"), "State of the object, or what to do.", wide=True
    ),
    Column("Pods", ".status.pods", "Pods that use the model.", "integer", wide=True),
    Column("Source", ".spec.sourceModelUri", "URI of the model.", wide=True),
    _AGE,
)

# A claim is named <cache>-<group> and labelled with both names. The rule is for new objects only: a
# name cannot change, and an object that was stored before must stay writable, to the last
# finalizer.
_SHORT_NAME = Rule(
    "oldSelf.hasValue() || size(self.metadata.name) <= 63",
    "metadata.name must have at most 63 characters: it becomes a label",
    optional_old_self=True,
)

KINDS = (
    Kind(
        LocalModelCache,
        "localmodelcaches",
        "lmc",
        _CACHE_COLUMNS,
        rules=(_SHORT_NAME,),
        written_by_users=True,
    ),
    Kind(
        LocalModelNamespaceCache,
        "localmodelnamespacecaches",
        "lmnc",
        _CACHE_COLUMNS,
        namespaced=True,
        rules=(_SHORT_NAME,),
        written_by_users=True,
    ),
    Kind(
        LocalModelNodeGroup,
        "localmodelnodegroups",
        "lmng",
        (
            _READY,
            Column("Limit", ".spec.storageLimit", "Bytes for models on each node."),
            Column("Used", ".status.used", "Bytes that models take on the fullest node."),
            _STATUS,
            Column(
                "Reason", _condition("Ready", "reason"), "Reason of the condition Ready.", wide=True
            ),
            _AGE,
        ),
        rules=(_SHORT_NAME,),
        written_by_users=True,
    ),
    Kind(
        LocalModelNode,
        "localmodelnodes",
        "lmn",
        (
            _READY,
            Column("Disk", ".status.disk.capacity", "Size of the disk."),
            Column("Free", ".status.disk.available", "Free bytes of the disk."),
            _STATUS,
            Column(
                "Reason", _condition("Ready", "reason"), "Reason of the condition Ready.", wide=True
            ),
            _AGE,
        ),
    ),
    Kind(
        LocalModelPlacement,
        "localmodelplacements",
        "lmp",
        (Column("Limit", ".spec.storageLimit", "Bytes for models on each node."), _AGE),
    ),
)
