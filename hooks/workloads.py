"""The workloads that use a cache, by the labels that the admission policy or a user sets on them.

A workload's label says that its pod template asks for the model, since Metacontroller selects
objects by their own labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from crds.base import API_VERSION
from hooks import naming
from hooks.envelope import RelatedRule, foreign_objects
from hooks.reading import NAMESPACE_CACHE, salvage
from hooks.users import AnnotatedMetadata, User, asked_group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from msgspec import Raw

    from hooks.envelope import RawObjects
    from hooks.observed import Cache
    from hooks.settings import Settings, WatchedKind

_JOB = "Job"
_FINISHED = ("Complete", "Failed")


def workload_rules(cache: Cache, kinds: Sequence[WatchedKind]) -> list[RelatedRule]:
    """Rules for the workloads that use a cache."""
    label = naming.workload_label(cache.metadata.name)
    if label is None or not kinds:
        return []
    return [
        RelatedRule(
            api_version=kind.api_version,
            resource=kind.resource,
            label_selector={"matchExpressions": [{"key": label, "operator": "Exists"}]},
            namespace=cache.metadata.namespace or None,
        )
        for kind in kinds
    ]


def own_cache_rules(cache: Cache, settings: Settings) -> list[RelatedRule]:
    """The rule for the caches that come before this one in their namespaces.

    None if the cache can have no claim.
    """
    selects = cache.spec.namespace_selector is not None
    if cache.metadata.namespace or not (selects or settings.claims_follow_users):
        return []
    return [
        RelatedRule(
            api_version=API_VERSION,
            resource="localmodelnamespacecaches",
            names=(cache.metadata.name,),
        )
    ]


def workloads_of(
    cache: Cache, kinds: Sequence[WatchedKind], related: RawObjects
) -> tuple[User, ...]:
    """The workloads that use a cache, in order.

    In a namespace with a LocalModelNamespaceCache of that name, pods use that one. A workload that
    is being deleted counts until it is gone: its pods may still read.
    """
    if naming.workload_label(cache.metadata.name) is None or not kinds:
        return ()
    hidden = namespaces_with_their_own(cache, related)
    return tuple(
        sorted(
            one
            for kind in kinds
            for one in _of_kind(cache, kind, related)
            if one.namespace not in hidden
        )
    )


def namespaces_with_their_own(cache: Cache, related: RawObjects) -> AbstractSet[str]:
    """Namespaces whose own cache comes before this one, also one that has a defect or pvcRef.

    Without such caches in the request, the hooks have not asked for them.
    """
    if cache.metadata.namespace:
        return frozenset()
    found = related.get(f"{NAMESPACE_CACHE}.{API_VERSION}", {})
    return frozenset(key.partition("/")[0] for key in found)


def _of_kind(cache: Cache, kind: WatchedKind, related: RawObjects) -> Iterator[User]:
    for raw in foreign_objects(kind.kind, kind.api_version, related).values():
        found = _workload(kind.kind, raw, cache)
        if found is not None:
            yield found


class _Owner(Struct, frozen=True):
    kind: str
    name: str
    controller: bool = False


class _Metadata(AnnotatedMetadata, frozen=True):
    owner_references: tuple[_Owner, ...] | None = None


class _TemplateMetadata(Struct, frozen=True):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Template(Struct, frozen=True):
    metadata: _TemplateMetadata | None = None


class _JobSpec(Struct, frozen=True):
    template: _Template | None = None


class _JobTemplate(Struct, frozen=True):
    spec: _JobSpec | None = None


class _LeaderWorkerTemplate(Struct, rename="camel", frozen=True):
    leader_template: _Template | None = None
    worker_template: _Template | None = None


class _Spec(Struct, rename="camel", frozen=True):
    """The pod templates of each kind, wherever the kind has them."""

    template: _Template | None = None
    job_template: _JobTemplate | None = None
    leader_worker_template: _LeaderWorkerTemplate | None = None

    def templates(self) -> list[_Template]:
        job = self.job_template.spec if self.job_template else None
        pods = self.leader_worker_template
        found = (
            self.template,
            job.template if job else None,
            pods.leader_template if pods else None,
            pods.worker_template if pods else None,
        )
        return [one for one in found if one is not None]


class _Condition(Struct, frozen=True):
    type: str
    status: str


class _Status(Struct, rename="camel", frozen=True):
    completion_time: Any = None
    conditions: tuple[_Condition, ...] | None = None

    @property
    def finished(self) -> bool:
        """Of a Job: whether its pods have ended."""
        return self.completion_time is not None or any(
            one.type in _FINISHED and one.status == "True" for one in self.conditions or ()
        )


class _Workload(Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()


def _group(cache: Cache, pods: _TemplateMetadata, own: Mapping[str, str]) -> str | None:
    """The group whose claim the pods of a template mount. own: annotations of the workload.

    The policy that mounts models by a label reads the annotations of the pod alone.
    """
    by_label = naming.POD_MODEL_LABEL in (pods.labels or {})
    return asked_group(cache, pods.annotations or {}, {} if by_label else own)


def _workload(kind: str, raw: Raw, cache: Cache) -> User | None:
    """The workload as a user of the cache; None if its pods have ended."""
    workload = salvage(_Workload, raw)
    if workload is None or (kind == _JOB and workload.status.finished):
        return None
    metadata = workload.metadata
    own = metadata.annotations or {}
    templates = workload.spec.templates() or [_Template()]
    groups = (_group(cache, one.metadata or _TemplateMetadata(), own) for one in templates)
    controller = next((one for one in metadata.owner_references or () if one.controller), None)
    part_of = (controller.kind, controller.name) if controller else None
    return User.from_metadata(kind, metadata, groups, part_of)
