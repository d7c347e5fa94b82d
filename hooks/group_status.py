"""The status of a group: what its nodes report, counted once for all caches."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from crds.base import INT32_MAX
from crds.conditions import Finding, conditions
from crds.nodegroup import (
    GroupDownload,
    GroupModel,
    LocalModelNodeGroupStatus,
    ModelFailure,
)
from crds.quantity import format_quantity, parse_quantity
from crds.states import CopyState, ModelState
from crds.volume_equivalence import normalized_path
from hooks import reasons
from hooks.messages import count
from hooks.object_size import fitting
from hooks.sharing import NO_OWNERS, ForeignCopies
from hooks.volumes import node_selector_terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from crds.base import Condition, Identity
    from crds.nodegroup import LocalModelNodeGroup
    from crds.placement import LocalModelPlacementSpec
    from hooks.copies import Copies
    from hooks.observed import Cache, Node, NodeReport
    from hooks.plan import GroupPlan
    from hooks.sharing import Owners

_Value = TypeVar("_Value", int, "datetime")

# How long changes of states are collected before the status is written.
STATUS_INTERVAL = timedelta(seconds=2)
# Nodes join a group one after the other. When none has joined for so long, all have joined. Each
# write of the status restarts the time, so it must not be longer than STATUS_INTERVAL.
SETTLE = STATUS_INTERVAL
# Interval of writes while nodes join: SETTLE begins with the write that names the last of them.
FINDING_INTERVAL = timedelta(seconds=0.5)
# Metacontroller calls the hook again after SETTLE, and waits ten seconds for an answer. After a
# longer pause Metacontroller was down, when no node could join, so that SETTLE begins anew.
WATCHED = SETTLE + timedelta(seconds=10)


def group_status(
    group: LocalModelNodeGroup,
    plan: GroupPlan,
    nodes: Sequence[Node],
    copies: Mapping[Identity, Copies],
    *,
    stored: LocalModelPlacementSpec | None,
    download: GroupDownload | None,
    host_path: str,
    owners: Owners = NO_OWNERS,
    now: datetime,
    removal: Finding | None = None,
) -> LocalModelNodeGroupStatus:
    """The whole status of a group.

    nodes: LocalModelNodes of the group, sorted by name. copies: those of each model of the plan, on
    these nodes. stored: the stored plan, which nodes can see. download: counts of waiting nodes, if
    there are any. owners: owners of the URIs. removal: the condition of a group that is being
    deleted.
    """
    names = tuple(node.metadata.name for node in nodes)
    others = ForeignCopies(nodes, plan.admitted, owners)
    models = tuple(
        _group_model(
            cache,
            group.metadata.name,
            nodes,
            copies[cache.identity],
            _known_size(group.status, cache.identity),
            claims_wait=others.blocks_claims(cache, copies[cache.identity]),
        )
        for cache in plan.admitted
    )
    keys = {key for key, _, _ in plan.identities}
    used = max((_used(node, keys) for node in nodes), default=0)
    left = max(parse_quantity(group.spec.storage_limit) - used, 0)
    status, left_out = fitting(
        LocalModelNodeGroupStatus(
            used=format_quantity(used),
            available=format_quantity(left),
            nodes=names,
            models=models,
            rejected=plan.rejected,
            download=download,
            last_update_time=now,
        ),
        group.spec,
    )
    ready = (
        _blocked(group, host_path, removal)
        or nodes_pending(group, stored, names, now)
        or _found(group, models, nodes, download)
    )
    if left_out:
        unlisted = f"; {left_out} refused models are not listed: the status has no room"
        ready = replace(ready, message=ready.message + unlisted)
    found = conditions(
        [one for one in (ready, plan.over_limit, removal) if one is not None],
        observed=group.status.conditions,
        generation=group.metadata.generation,
        now=now,
    )
    return status.model_copy(update={"conditions": found})


def debounce(
    old: LocalModelNodeGroupStatus,
    new: LocalModelNodeGroupStatus,
    now: datetime,
    *,
    paced: bool = False,
) -> tuple[LocalModelNodeGroupStatus, float | None]:
    """The status to write, and the seconds after which to sync again.

    Each write runs the hooks of all caches of the group. So a status that changes fast is written
    at most every STATUS_INTERVAL, unless Ready changes or a model turns out to be too large. Only
    the status is delayed, never the plan.

    paced: whether the answers are delayed anyway, see hooks.answer_delay. The old status must then
    not be the answer: under load, Metacontroller sends an outdated one, and would write it back.
    """
    was, ready = _ready(old), _ready(new)
    searching = ready is not None and ready.reason == reasons.FINDING_NODES
    again = SETTLE.total_seconds() if searching else None
    since = old.last_update_time
    if since is None or was is None or ready is None or was.status != ready.status:
        return new, again
    if _rejected_sizes(new) - _rejected_sizes(old):
        # The size of a model must be stored before its copies are deleted.
        return new, again
    # While nodes join, an unchanged status must be written: SETTLE ends with it.
    if _same(old, new) and not searching:
        return old, None
    sooner = searching and (was.reason != ready.reason or old.nodes != new.nodes)
    if paced and (sooner or not searching):
        return new, again
    interval = FINDING_INTERVAL if sooner else STATUS_INTERVAL
    wait = since + interval - now
    # A clock that was set back must not delay the status for long.
    if timedelta(0) < wait <= interval:
        return old, max(wait.total_seconds(), 0.05)
    return new, again


def is_urgent(old: LocalModelNodeGroupStatus, new: LocalModelNodeGroupStatus) -> bool:
    """Whether to answer at once: Ready has another reason, or no more changes are expected.

    Pods come and go for ever: a change of their counts alone is not urgent.
    """
    was, ready = _ready(old), _ready(new)
    if was is None or ready is None or was.reason != ready.reason:
        return True
    return new is not old and not _moves(new) and not _same(_without_pods(old), _without_pods(new))


def _without_pods(status: LocalModelNodeGroupStatus) -> LocalModelNodeGroupStatus:
    models = tuple(
        model.model_copy(update={"pods": 0}) if model.pods else model for model in status.models
    )
    return status.model_copy(update={"models": models})


def _moves(status: LocalModelNodeGroupStatus) -> bool:
    """Whether further changes are expected: copies are pending or downloading."""
    moving = (CopyState.PENDING, CopyState.DOWNLOADING)
    return any(state in model.states for model in status.models for state in moving)


def _ready(status: LocalModelNodeGroupStatus) -> Condition | None:
    return next((one for one in status.conditions if one.type == reasons.READY), None)


def _rejected_sizes(
    status: LocalModelNodeGroupStatus,
) -> set[tuple[tuple[str, str, str], int | None]]:
    return {(one.identity, one.size) for one in status.rejected if one.size is not None}


def _same(old: LocalModelNodeGroupStatus, new: LocalModelNodeGroupStatus) -> bool:
    apart = {"last_update_time": None, "observed_generation": None}
    return old.model_copy(update=apart) == new.model_copy(update=apart)


def _known_size(status: LocalModelNodeGroupStatus, identity: Identity) -> int | None:
    """Size of a model in the status, admitted or not. It stays valid: the URI cannot change."""
    known = status.models_by_identity.get(identity) or status.rejected_by_identity.get(identity)
    return known.size if known else None


def _group_model(
    cache: Cache,
    group: str,
    nodes: Sequence[Node],
    copies: Copies,
    known_size: int | None,
    *,
    claims_wait: bool,
) -> GroupModel:
    reports = [report for report in copies.reports if report is not None]
    sizes = [report.size for report in reports if report.size is not None]
    hashes = {report.hash for report in reports if report.cached and report.hash}
    return GroupModel(
        name=cache.metadata.name,
        namespace=cache.metadata.namespace,
        key=cache.spec.key,
        states="".join(copies.states),
        size=max(sizes, default=known_size),
        # Nodes with different content have no common hash.
        hash=hashes.pop() if len(hashes) == 1 else None,
        downloaded_bytes=sum(_bytes_here(report) for report in reports),
        bytes_per_second=sum(report.bytes_per_second or 0 for report in reports) or None,
        estimated_completion_time=_latest(report.estimated_completion_time for report in reports),
        last_download_seconds=_latest(
            report.last_download_seconds for report in reports if report.cached
        ),
        pods=min(_pods(group, nodes, copies), INT32_MAX),
        claims_wait=claims_wait,
        failure=_first_failure(nodes, copies) or _first_wait(nodes, copies),
    )


def _latest(values: Iterable[_Value | None]) -> _Value | None:
    return max((value for value in values if value is not None), default=None)


def _pods(group: str, nodes: Sequence[Node], copies: Copies) -> int:
    """Pods that use a model. A node whose entry is of another group counts there."""
    return sum(
        report.pods
        for node, report in zip(nodes, copies.reports, strict=True)
        if report is not None
        and report.pods
        and node.counting_groups.get(report.identity, group) == group
    )


def _bytes_here(report: NodeReport) -> int:
    if report.state is ModelState.EVICTED:
        return 0
    return (report.size if report.cached else report.downloaded_bytes) or 0


def _used(node: Node, keys: AbstractSet[str]) -> int:
    """Bytes that models take on a node's disk; each folder counts once."""
    here: dict[str, int] = {}
    for report in node.status.models:
        if report.key in keys:
            here[report.key] = max(here.get(report.key, 0), _on_disk(report))
    return sum(here.values())


def _on_disk(report: NodeReport) -> int:
    if report.disk_bytes is not None:
        return report.disk_bytes
    # KServe's agents do not report diskBytes.
    return (report.size or 0) if report.cached else 0


def _first_failure(nodes: Sequence[Node], copies: Copies) -> ModelFailure | None:
    for node, state, report in zip(nodes, copies.states, copies.reports, strict=True):
        if state is CopyState.FAILED:
            return ModelFailure(
                node=node.metadata.name,
                reason=(report and report.reason) or "Unknown",
                message=(report and report.message) or "the agent gave no reason",
            )
    return None


def _first_wait(nodes: Sequence[Node], copies: Copies) -> ModelFailure | None:
    """Why the first pending copy waits, if its agent reports a reason."""
    for node, state, report in zip(nodes, copies.states, copies.reports, strict=True):
        if state is CopyState.PENDING and report is not None and report.reason:
            return ModelFailure(
                node=node.metadata.name,
                reason=report.reason,
                message=report.message or "the agent reports no message",
            )
    return None


def _no(reason: str, message: str) -> Finding:
    return Finding(reasons.READY, "False", reason, message)


def _blocked(group: LocalModelNodeGroup, host_path: str, removal: Finding | None) -> Finding | None:
    """Why the group cannot be ready, whatever nodes it has."""
    if group.deleting:
        return _no(reasons.DELETING, removal.message if removal else "it is being deleted")
    path = _volume_path(group)
    if path is not None and normalized_path(path) != normalized_path(host_path):
        return _no(
            reasons.LOCAL_PATH_MISMATCH,
            f"persistentVolumeSpec has the path {path}, but the agents fill {host_path}: pods "
            "would find nothing; set one to the other",
        )
    if not node_selector_terms(group.spec):
        return _no(
            reasons.NO_NODE_AFFINITY,
            "persistentVolumeSpec has no nodeAffinity.required, so no node is in the group: add it",
        )
    return None


def nodes_pending(
    group: LocalModelNodeGroup,
    stored: LocalModelPlacementSpec | None,
    names: tuple[str, ...],
    now: datetime,
) -> Finding | None:
    """The condition Ready until all nodes that the selector matches have joined; None afterwards.

    The hook does not get Nodes, and so does not know which nodes will join. All have joined when
    the status has named the same nodes for SETTLE. A group that was Ready stays so when further
    nodes join, or while its plan is missing.
    """
    was = _ready(group.status)
    if was is not None and was.observed_generation != group.metadata.generation:
        # A changed selector has other nodes. Any change of the spec counts: the status in the
        # request may be older than the plan, so a changed selector cannot be recognised for sure.
        was = None
    if was is not None and was.status == "True":
        return None
    # The first plan is written before the first status: PlanPending would be one more write of each
    # cache.
    first = stored is None and not group.status.conditions
    if not first and (
        stored is None or stored.node_selector_terms != node_selector_terms(group.spec)
    ):
        return _no(reasons.PLAN_PENDING, "the group's LocalModelPlacement is being written")
    none_as_before = was is not None and was.reason == reasons.NO_NODES and not names
    same = was is not None and was.reason == reasons.FINDING_NODES and group.status.nodes == names
    written = group.status.last_update_time
    # Both times are by the hooks' clock. A time in the future means that the clock was set back.
    settled = same and written is not None and SETTLE <= now - written <= WATCHED
    if none_as_before or settled:
        return None
    return _no(reasons.FINDING_NODES, f"finding the nodes of the group: {len(names)} so far")


def _found(
    group: LocalModelNodeGroup,
    models: Sequence[GroupModel],
    nodes: Sequence[Node],
    download: GroupDownload | None,
) -> Finding:
    if not nodes:
        return _no(
            reasons.NO_NODES,
            f"no node matches {_selector_text(group)}: label nodes so, or change the selector",
        )
    available = sum(model.states.count(CopyState.AVAILABLE) for model in models)
    failed = sum(model.states.count(CopyState.FAILED) for model in models)
    evicted = sum(model.states.count(CopyState.EVICTED) for model in models)
    copies = len(models) * len(nodes)
    return Finding(
        reasons.READY,
        "True",
        reasons.NODES_FOUND,
        f"{count(len(nodes), 'node')}, {count(len(models), 'model')}, "
        f"{available} of {copies} copies available"
        + (f", {failed} failed" if failed else "")
        + (f", {evicted} evicted" if evicted else "")
        + (_turns(download) if download else ""),
    )


def _turns(download: GroupDownload) -> str:
    return (
        f"; {count(download.downloading, 'node')} of at most {download.limit} download, "
        f"{download.waiting} wait for their turn (spec.download.maxConcurrentNodes)"
    )


def _volume_path(group: LocalModelNodeGroup) -> str | None:
    spec = group.spec.persistent_volume_spec
    if spec is None:
        return None
    source = spec.local or spec.host_path
    return source.path if source else None


def _selector_text(group: LocalModelNodeGroup) -> str:
    if group.spec.node_selector is not None:
        pairs = sorted(group.spec.node_selector.items())
        return "nodeSelector " + ",".join(f"{key}={value}" for key, value in pairs)
    return "persistentVolumeSpec.nodeAffinity.required"
