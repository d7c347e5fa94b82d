"""The users of a cache: the services and the workloads that refer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.cache import NamespacedName, WorkloadName
from hooks import naming
from hooks.object_size import SERVICES_MAX, WORKLOADS_MAX
from hooks.observed import Metadata
from hooks.settings import INFERENCE_SERVICE, LLM_INFERENCE_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hooks.observed import Cache, CacheStatus, ServiceName


@dataclass(frozen=True, order=True)
class User:
    """A service or a workload that uses a cache.

    groups: groups of the cache whose claims its pods mount; also empty if it is not known whether
    the cache is used. part_of: kind and name of the object of the same namespace that made it.
    """

    kind: str
    namespace: str
    name: str
    groups: tuple[str, ...] = ()
    deleting: bool = False
    part_of: tuple[str, str] | None = None

    @classmethod
    def from_metadata(
        cls,
        kind: str,
        metadata: Metadata,
        groups: Iterable[str | None],
        part_of: tuple[str, str] | None = None,
    ) -> User:
        """The object of a kind with this metadata. groups: as above; None is left out."""
        return cls(
            kind=kind,
            namespace=metadata.namespace,
            name=metadata.name,
            groups=tuple(sorted({one for one in groups if one is not None})),
            deleting=metadata.deletion_timestamp is not None,
            part_of=part_of,
        )


class AnnotatedMetadata(Metadata, frozen=True):
    """Metadata with annotations."""

    annotations: dict[str, str] | None = None


@dataclass(frozen=True)
class Users:
    """The users of a cache, as in its status; None: there are none, or the hooks watch none."""

    inference_services: tuple[NamespacedName, ...] | None = None
    llm_inference_services: tuple[NamespacedName, ...] | None = None
    workloads: tuple[WorkloadName, ...] | None = None

    @classmethod
    def listed(cls, services: Sequence[User], workloads: Sequence[User]) -> Users:
        """The users, each list in order."""
        return cls(
            _services(services, INFERENCE_SERVICE),
            _services(services, LLM_INFERENCE_SERVICE),
            _workloads(workloads),
        )

    @classmethod
    def from_status(cls, status: CacheStatus) -> Users:
        """The users in a status."""
        workloads = status.workloads
        return cls(
            _names(status.inference_services),
            _names(status.llm_inference_services),
            None
            if workloads is None
            else tuple(
                WorkloadName(kind=one.kind, namespace=one.namespace, name=one.name)
                for one in workloads
            ),
        )


def asked_group(cache: Cache, *annotations: Mapping[str, str]) -> str | None:
    """The group that a user asks for, by default the first; None: not a group of the cache.

    annotations: those of its objects; the first that names a group counts.
    """
    groups = cache.spec.group_names
    default = next(iter(groups), None)
    key = naming.SERVICE_GROUP_ANNOTATION
    asked = next((one[key] for one in annotations if key in one), default)
    return asked if asked in groups else None


def _names(names: Sequence[ServiceName] | None) -> tuple[NamespacedName, ...] | None:
    if names is None:
        return None
    return tuple(NamespacedName(namespace=one.namespace, name=one.name) for one in names)


# Tenants decide how many users there are, and the status must stay small enough to store.


def _services(services: Sequence[User], kind: str) -> tuple[NamespacedName, ...] | None:
    found = [one for one in services if one.kind == kind][:SERVICES_MAX]
    return tuple(NamespacedName(namespace=one.namespace, name=one.name) for one in found) or None


def _workloads(workloads: Sequence[User]) -> tuple[WorkloadName, ...] | None:
    """The workloads without the parts of others, such as the Jobs of a CronJob."""
    there = {(one.namespace, one.kind, one.name) for one in workloads}
    found = [
        one
        for one in workloads
        if one.part_of is None or (one.namespace, *one.part_of) not in there
    ][:WORKLOADS_MAX]
    return (
        tuple(WorkloadName(kind=one.kind, namespace=one.namespace, name=one.name) for one in found)
        or None
    )
