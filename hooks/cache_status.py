"""The status of a cache, from the statuses of its groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from crds.base import INT32_MAX
from crds.cache import CacheStatus, ModelCopies
from crds.conditions import Finding, conditions
from crds.quantity import format_quantity
from crds.states import CopyState, KServeNodeStatus, kserve_node_status
from hooks import reasons
from hooks.messages import some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from crds.nodegroup import GroupModel, LocalModelNodeGroup, RejectedModel
    from hooks.observed import Cache
    from hooks.users import Users

# A node in two groups has one copy: the better of the two states counts.
_BEST_FIRST = (
    CopyState.AVAILABLE,
    CopyState.DOWNLOADING,
    CopyState.PENDING,
    CopyState.EVICTED,
    CopyState.FAILED,
    CopyState.NODE_NOT_READY,
)
_STATE_OF = {state.value: state for state in CopyState}
_RANK = {state: rank for rank, state in enumerate(_BEST_FIRST)}
# Part of the message for an evicted model.
_COMES_BACK = "it comes back when a pod or a service refers to it"
# Message for a deleted cache that was stored without a group.
_NO_NODE_GROUP = "the spec names no LocalModelNodeGroup"


@dataclass(frozen=True)
class GroupView:
    """The part of a group's status that is about one cache.

    model: None while the plan does not list the cache. withheld: whether new claims of the cache
    wait, since caches of other namespaces have its folder too.
    """

    group: LocalModelNodeGroup
    model: GroupModel | None
    rejected: RejectedModel | None
    withheld: bool

    @property
    def may_have_pods(self) -> bool:
        """Whether pods use the model, or may do so: it is not known of a group without a plan.

        It is not known either while the group finds its nodes.
        """
        if self.model is None:
            return self.rejected is None
        return self.model.pods > 0 or _group_finding(self, reasons.FINDING_NODES) is not None


def view(cache: Cache, group: LocalModelNodeGroup) -> GroupView:
    """Find a cache in a group's status, by identity and not by name alone."""
    identity, status = cache.identity, group.status
    model = status.models_by_identity.get(identity)
    return GroupView(
        group,
        model,
        status.rejected_by_identity.get(identity),
        withheld=model is not None and model.claims_wait,
    )


@dataclass(frozen=True)
class Groups:
    """The groups that a cache names. unreadable: why some cannot be read, by name."""

    views: tuple[GroupView, ...]
    missing: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def obstacle(self) -> tuple[str, str] | None:
        """Reason and message if a group is missing or cannot be read."""
        for name, why in self.unreadable.items():
            what = f"LocalModelNodeGroup {name} cannot be read: {why}: correct it"
            return reasons.NODE_GROUP_UNREADABLE, what
        if self.missing:
            what = f"LocalModelNodeGroup {some(self.missing)} does not exist: create it"
            return reasons.NODE_GROUP_NOT_FOUND, what
        return None


def cache_status(
    cache: Cache,
    groups: Groups,
    *,
    claims: Finding,
    users: Users,
    now: datetime,
) -> CacheStatus:
    """The whole status. claims: the condition ClaimsBound. users: those of the cache."""
    views = groups.views
    states = _copy_states(views)
    size = _size(cache, views)
    counted = _count(views, states, size)
    findings = [
        _no(reasons.DELETING, claims.message)
        if cache.deleting
        else _ready(cache, groups, states, counted.progress),
        _admitted(cache, groups),
        claims,
        _size_as_declared(cache, size),
    ]
    if any(_group_finding(one, reasons.FINDING_NODES) for one in views):
        # Otherwise each node that joins would cause a write of each cache.
        counted = _as_stored(cache)
    elif counted.bytes_per_second is not None:
        counted = _without_new_rate(counted, _as_stored(cache))
    return CacheStatus(
        conditions=conditions(
            findings,
            observed=cache.status.conditions,
            generation=cache.metadata.generation,
            now=now,
        ),
        node_status=counted.node_status,
        copies=counted.copies,
        key=cache.spec.key,
        size=size,
        hash=counted.hash,
        progress=counted.progress,
        bytes_per_second=counted.bytes_per_second,
        estimated_completion_time=counted.estimated_completion_time,
        last_download_seconds=counted.last_download_seconds,
        pods=counted.pods,
        inference_services=users.inference_services,
        llm_inference_services=users.llm_inference_services,
        workloads=users.workloads,
    )


@dataclass(frozen=True)
class _Counted:
    """The part of a status that is counted over the nodes."""

    node_status: dict[str, KServeNodeStatus]
    copies: ModelCopies
    hash: str | None
    progress: int
    bytes_per_second: int | None
    estimated_completion_time: datetime | None
    last_download_seconds: int | None
    pods: int


def _count(
    views: Sequence[GroupView], states: Mapping[str, CopyState], size: int | None
) -> _Counted:
    counts = Counter(states.values())
    models = [v.model for v in views if v.model is not None]
    hashes = {m.hash for m in models if m.hash}
    return _Counted(
        node_status={node: kserve_node_status(state) for node, state in sorted(states.items())},
        copies=ModelCopies(
            available=counts[CopyState.AVAILABLE],
            total=len(states),
            failed=counts[CopyState.FAILED],
        ),
        hash=hashes.pop() if len(hashes) == 1 else None,
        progress=_progress(models, counts, size),
        bytes_per_second=sum(model.bytes_per_second or 0 for model in models) or None,
        estimated_completion_time=max(
            (at for model in models if (at := model.estimated_completion_time)), default=None
        ),
        last_download_seconds=max(
            (took for model in models if (took := model.last_download_seconds) is not None),
            default=None,
        ),
        # Each node counts in one of its groups only.
        pods=min(sum(model.pods for model in models), INT32_MAX),
    )


def _as_stored(cache: Cache) -> _Counted:
    stored = cache.status
    return _Counted(
        node_status={node: KServeNodeStatus(word) for node, word in stored.states().items()},
        copies=ModelCopies(
            available=stored.copies.available,
            total=stored.copies.total,
            failed=stored.copies.failed,
        ),
        hash=stored.hash,
        progress=stored.progress,
        bytes_per_second=stored.bytes_per_second,
        estimated_completion_time=stored.estimated_completion_time,
        last_download_seconds=stored.last_download_seconds,
        pods=stored.pods,
    )


def _without_new_rate(counted: _Counted, stored: _Counted) -> _Counted:
    """What is stored, if nothing but the rate and the estimate have changed.

    They change with each report of a node, which causes no write of the cache otherwise.
    """
    return stored if _rest(counted) == _rest(stored) else counted


def _rest(counted: _Counted) -> _Counted:
    return replace(counted, bytes_per_second=None, estimated_completion_time=None)


def _size(cache: Cache, views: Sequence[GroupView]) -> int | None:
    """Bytes of the model's files. A reported size stays valid: the URI cannot change."""
    models = [one.model or one.rejected for one in views]
    sizes = [one.size for one in models if one is not None and one.size is not None]
    return max(sizes, default=cache.status.size)


def _copy_states(views: Sequence[GroupView]) -> dict[str, CopyState]:
    states: dict[str, CopyState] = {}
    for one in views:
        if one.model is None:
            continue
        for node, letter in zip(one.group.status.nodes, one.model.states, strict=True):
            state = _STATE_OF[letter]
            best = states.get(node)
            if best is None or _RANK[state] < _RANK[best]:
                states[node] = state
    return states


def _progress(models: Sequence[GroupModel], counts: Counter[CopyState], size: int | None) -> int:
    """Percent of the bytes of all copies but the evicted ones."""
    copies = counts.total() - counts[CopyState.EVICTED]
    if not copies:
        return 0
    if not size:
        return 100 * counts[CopyState.AVAILABLE] // copies
    here = sum(model.downloaded_bytes for model in models)
    kept = sum(len(m.states) - m.states.count(CopyState.EVICTED) for m in models)
    return min(100 * here // (size * kept), 100)


def _ready(
    cache: Cache,
    groups: Groups,
    states: Mapping[str, CopyState],
    progress: int,
) -> Finding:
    if not cache.spec.group_names:
        return _no(reasons.NO_NODE_GROUP, _NO_NODE_GROUP)
    return _blocked(groups) or _copies_ready(groups.views, states, progress)


def _no(reason: str, message: str) -> Finding:
    return Finding(reasons.READY, "False", reason, message)


def _blocked(groups: Groups) -> Finding | None:
    """Why the cache cannot be ready, whatever copies the nodes have."""
    if groups.obstacle:
        reason, what = groups.obstacle
        return _no(reason, f"{what}, or name another group in the spec")
    for one in groups.views:
        finding = _blocked_by(one)
        if finding is not None:
            return finding
    return None


def _blocked_by(one: GroupView) -> Finding | None:
    name = one.group.metadata.name
    if one.group.deleting:
        return _no(
            reasons.NODE_GROUP_DELETING,
            f"LocalModelNodeGroup {name} is being deleted, and its nodes' copies with it",
        )
    if one.rejected is not None:
        return _no(one.rejected.reason, one.rejected.message)
    # The group may not know all of its nodes yet.
    whole = _group_finding(one, reasons.LOCAL_PATH_MISMATCH, reasons.FINDING_NODES)
    if whole is not None:
        return whole
    if one.model is None or _group_finding(one, reasons.PLAN_PENDING):
        return _no(reasons.DOWNLOAD_PENDING, f"waiting for the plan of LocalModelNodeGroup {name}")
    return None


def _group_finding(one: GroupView, *only: str) -> Finding | None:
    """The condition of a group that is not ready, as the condition Ready of the cache."""
    for condition in one.group.status.conditions:
        ready = condition.type == reasons.READY and condition.status == "False"
        if ready and (not only or condition.reason in only):
            name = one.group.metadata.name
            # The group's own message changes with each node that joins.
            finding = condition.reason == reasons.FINDING_NODES
            message = "finding its nodes" if finding else condition.message
            return _no(condition.reason, f"LocalModelNodeGroup {name}: {message}")
    return None


def _copies_ready(
    views: Sequence[GroupView], states: Mapping[str, CopyState], progress: int
) -> Finding:
    if not states:
        return _without_copies(views)
    in_state: dict[CopyState, list[str]] = {}
    for node, state in sorted(states.items()):
        in_state.setdefault(state, []).append(node)
    available = in_state.get(CopyState.AVAILABLE, [])
    on = f"on {len(available)} of {len(states)} nodes"
    to_come = _incomplete(views, in_state, on, progress)
    if to_come is not None:
        return to_come
    away = in_state.get(CopyState.NODE_NOT_READY, [])
    evicted = in_state.get(CopyState.EVICTED, [])
    gone = f"; evicted on {some(evicted)}: {_COMES_BACK}" if evicted else ""
    aside = f"; not Ready: {some(away)}" if away else ""
    if available:
        reason = reasons.PARTLY_EVICTED if evicted else reasons.MODEL_CACHED
        return Finding(reasons.READY, "True", reason, on + gone + aside)
    if evicted:
        return _no(reasons.EVICTED, on + gone + aside)
    return _no(reasons.NODES_NOT_READY, f"no node of the groups is Ready: {some(away)}")


def _incomplete(
    views: Sequence[GroupView],
    in_state: Mapping[CopyState, Sequence[str]],
    on: str,
    progress: int,
) -> Finding | None:
    """The condition Ready while copies failed, download or wait."""
    if CopyState.FAILED in in_state:
        failed = in_state[CopyState.FAILED]
        why = _report_of(views, failed) or "an agent failed and gave no reason"
        return _no(reasons.DOWNLOAD_FAILED, f"{on}; {why} (failed: {some(failed)})")
    if CopyState.DOWNLOADING in in_state:
        return _no(reasons.DOWNLOADING, f"{on}, {progress}% downloaded")
    if CopyState.PENDING in in_state:
        pending = in_state[CopyState.PENDING]
        report = _report_of(views, pending)
        why = f"waiting for the localmodel agent of {some(pending)}"
        return _no(
            reasons.DOWNLOAD_PENDING,
            f"{on}; {report} (waiting: {some(pending)})" if report else f"{on}; {why}",
        )
    return None


def _without_copies(views: Sequence[GroupView]) -> Finding:
    found = (_group_finding(one) for one in views)
    return next(filter(None, found), None) or _no(reasons.NO_NODES, "no node is in the groups")


def _report_of(views: Sequence[GroupView], nodes: Sequence[str]) -> str | None:
    """The report in a group's status of one of the nodes that failed or wait."""
    for one in views:
        failure = one.model and one.model.failure
        if failure and failure.node in nodes:
            return f"{failure.node}: {failure.reason}: {failure.message}"
    return None


def _admitted(cache: Cache, groups: Groups) -> Finding:
    if not cache.spec.group_names:
        return _is_admitted("False", reasons.NO_NODE_GROUP, _NO_NODE_GROUP)
    for one in groups.views:
        if one.rejected is not None:
            return _is_admitted("False", one.rejected.reason, one.rejected.message)
    if groups.obstacle:
        return _is_admitted("False" if groups.missing else "Unknown", *groups.obstacle)
    going = [v.group.metadata.name for v in groups.views if v.group.deleting]
    if going:
        return _is_admitted("False", reasons.NODE_GROUP_DELETING, f"{some(going)} is being deleted")
    waiting = [v.group.metadata.name for v in groups.views if v.model is None]
    if waiting:
        message = f"waiting for the plan of {some(waiting)}"
        return _is_admitted("Unknown", reasons.PLAN_PENDING, message)
    names = some([one.group.metadata.name for one in groups.views])
    return _is_admitted("True", reasons.PLACED, f"in the plan of {names}")


def _is_admitted(status: str, reason: str, message: str) -> Finding:
    return Finding(reasons.ADMITTED, status, reason, message)  # type: ignore[arg-type]


def _size_as_declared(cache: Cache, size: int | None) -> Finding:
    declared = cache.spec.model_size
    if size is None:
        return Finding(
            reasons.SIZE_AS_DECLARED, "Unknown", reasons.SIZE_UNKNOWN, "no node has seen the source"
        )
    if size <= cache.spec.declared_bytes:
        return Finding(
            reasons.SIZE_AS_DECLARED,
            "True",
            reasons.WITHIN_MODEL_SIZE,
            f"the model has {format_quantity(size)}, spec.modelSize declares {declared}",
        )
    return Finding(
        reasons.SIZE_AS_DECLARED,
        "False",
        reasons.LARGER_THAN_DECLARED,
        f"the model has {format_quantity(size)}, but spec.modelSize declares {declared}: set it "
        f"to {_round_up(size)}, so that capacity is planned with what the model takes",
    )


def _round_up(size: int) -> str:
    """The size rounded up to a whole unit, so that the suggested quantity is enough."""
    for suffix, unit in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if size >= 10 * unit:
            return f"{-(-size // unit)}{suffix}"
    return str(size)
