"""The links from a cache to the plans of its groups. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crds.keys import model_key
from deploy.kube import meta
from deploy.kube.kinds import CACHES, GROUPS, LOCAL_MODEL_NODES, NAMESPACE_CACHES, NODES, PLACEMENTS
from deploy.kubectl.cells import CellState, condition_of, groups_of
from deploy.kubectl.links import (
    Link,
    LinkState,
    from_condition,
    in_words,
    is_true,
    ok,
    seconds_since,
    written_at,
)
from deploy.kubectl.reasons import GROUP_WAITS, READY_WAITS
from hooks import naming
from hooks.lost_fields import explain_loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.cells import Cell
    from deploy.kubectl.details import Details
    from deploy.kubectl.snapshot import Snapshot

# Metacontroller and the hooks answer within a few seconds, also while they are busy.
ANSWER_SECONDS = 15.0
CONTROLLER_ADVICE = (
    "see whether the pods of metacontroller and localmodel-hooks run, and their logs"
)
_SILENT = (
    "Metacontroller does not run or does not know localmodel's controllers, or the hooks do not "
    "answer it"
)
# Reason of Metacontroller's Events about a hook that does not answer.
_SYNC_ERROR = "SyncError"


def links(snapshot: Snapshot, cache: KubeObject, details: Details) -> Iterator[Link]:
    """The links of a cache, its groups and their plans."""
    yield _crds(snapshot, cache)
    yield _cache(cache)
    answered = [cache]
    for name in groups_of(cache):
        group = snapshot.group_by_name.get(name)
        if group is None:
            yield _no_group(snapshot, cache, name)
        else:
            answered.append(group)
    yield _controller(answered, snapshot, details)
    for name in groups_of(cache):
        if name in snapshot.group_by_name:
            yield _group(snapshot.group_by_name[name])
    yield _admitted(cache)
    yield from _plans(snapshot, cache)


def selected_nodes(snapshot: Snapshot, cache: KubeObject) -> Iterator[str]:
    """The Nodes that the plans of a cache's groups select."""
    for node in snapshot.nodes:
        if any(selects(snapshot, group, meta.name(node)) for group in groups_of(cache)):
            yield meta.name(node)


def selects(snapshot: Snapshot, group: str, node: str) -> bool:
    """Whether the plan of a group selects a Node that the snapshot has."""
    from crds.volumes import NodeSelectorTerm  # noqa: PLC0415 - only this needs pydantic
    from hooks.selectors import selects as matches  # noqa: PLC0415

    plan, found = snapshot.placement_by_name.get(group), snapshot.node_by_name.get(node)
    if plan is None or found is None:
        return False
    try:
        terms = [
            NodeSelectorTerm.model_validate(term)
            for term in (plan.get("spec") or {}).get("nodeSelectorTerms") or ()
        ]
        return matches(terms, node, meta.labels(found))
    except ValueError:
        return False


def counted(
    snapshot: Snapshot, cache: KubeObject, cells: Mapping[str, Cell], details: Details
) -> Iterator[Link]:
    """Whether the status of the cache agrees with what the agents report.

    Where the user may not read the reports, this status alone says what is wrong.
    """
    ready = condition_of(cache, "Ready")
    live = [cell for cell in cells.values() if cell.state is not CellState.NOT_READY]
    if is_true(ready):
        yield from_condition("cache ready", LinkState.OK, ready)
        return
    if not live or any(cell.state is not CellState.AVAILABLE for cell in live):
        waits = ready.get("reason") in READY_WAITS
        yield from_condition("cache ready", LinkState.WAITING if waits else LinkState.BROKEN, ready)
        return
    reports = [
        written_at(node, status=True)
        for name, node in snapshot.local_model_node_by_name.items()
        if name in cells
    ]
    yield _silent(
        "cache ready",
        f"every Ready node has the model, and the status of the cache says: {ready.get('message')}",
        max(reports, default=""),
        snapshot,
        details,
    )


def _crds(snapshot: Snapshot, cache: KubeObject) -> Link:
    """Whether the cluster serves localmodel's own CRDs: those of KServe have the same names."""
    own = (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES, PLACEMENTS)
    absent = [kind for kind in own if kind.name in snapshot.absent]
    if absent:
        return Link(
            "crds",
            LinkState.BROKEN,
            f"the cluster does not know the kind {absent[0].name}",
            reason="CrdMissing",
            next="apply localmodel's CRDs (crds/manifests) again",
        )
    lost = _lost(snapshot, cache)
    if lost:
        return Link("crds", LinkState.BROKEN, explain_loss(*lost), reason="CrdReplaced")
    return ok("crds", "the cluster has localmodel's CRDs")


def _lost(snapshot: Snapshot, cache: KubeObject) -> tuple[str, str, str] | None:
    """Kind, name and field of an object without a field that each object of our CRDs has."""
    kind = "LocalModelNamespaceCache" if meta.namespace(cache) else "LocalModelCache"
    found = [snapshot.group_by_name.get(name) for name in groups_of(cache)]
    objects: list[tuple[str, KubeObject]] = [(kind, cache)]
    objects += [("LocalModelNodeGroup", group) for group in found if group is not None]
    for name, obj in objects:
        if (obj.get("status") or {}).get("observedGeneration") is None:
            return name, meta.name(obj), "status.observedGeneration"
    for node in snapshot.local_model_nodes:
        ours = any(label.startswith(naming.GROUP_LABEL_DOMAIN) for label in meta.labels(node))
        if ours and "nodeReady" not in (node.get("spec") or {}):
            return "LocalModelNode", meta.name(node), "spec.nodeReady"
    return None


def _cache(cache: KubeObject) -> Link:
    spec, ready = cache.get("spec") or {}, condition_of(cache, "Ready")
    created = str(meta.metadata(cache).get("creationTimestamp") or "")
    if meta.is_deleting(cache):
        since = str(meta.metadata(cache).get("deletionTimestamp") or "")
        words = f"the cache is being deleted: {ready.get('message') or 'waiting for its claims'}"
        return Link("cache", LinkState.WAITING, words, reason="Deleting", since=since)
    if ready.get("reason") in {"InvalidSpec", "NoNodeGroup"}:
        return from_condition("cache", LinkState.BROKEN, ready)
    if spec.get("pvcRef"):
        admitted = condition_of(cache, "Admitted")
        return from_condition("cache", LinkState.BROKEN, admitted)
    size, uri = spec.get("modelSize"), spec.get("sourceModelUri")
    groups = ", ".join(groups_of(cache))
    return ok("cache", f"{uri}, {size} declared, for the group {groups}", since=created)


def _no_group(snapshot: Snapshot, cache: KubeObject, name: str) -> Link:
    if not snapshot.knows(GROUPS):
        return _may_not_read("group", GROUPS.name, snapshot)
    return Link(
        "group",
        LinkState.BROKEN,
        f"LocalModelNodeGroup {name} does not exist",
        reason="NodeGroupNotFound",
        since=str(condition_of(cache, "Admitted").get("lastTransitionTime") or ""),
        next="create the group, or name another group in the spec of the cache",
    )


def _controller(objects: list[KubeObject], snapshot: Snapshot, details: Details) -> Link:
    """Whether Metacontroller and the hooks have answered the last change of each object."""
    for obj in objects:
        status = obj.get("status") or {}
        behind = (status.get("observedGeneration") or 0) < meta.generation(obj)
        if behind or not status.get("conditions"):
            what = f"{obj.get('kind') or 'object'} {meta.name(obj)}"
            since = written_at(obj, status=False)
            return _silent(
                "controller", f"the last change of {what} is not answered", since, snapshot, details
            )
    return ok("controller", "Metacontroller and the hooks have answered")


def _silent(name: str, words: str, since: str, snapshot: Snapshot, details: Details) -> Link:
    """The link of a change that Metacontroller and the hooks have not answered."""
    seconds = seconds_since(since, snapshot.at)
    if seconds <= ANSWER_SECONDS:
        then = "Metacontroller and the hooks answer within seconds"
        return Link(name, LinkState.WAITING, words, reason="NotAnswered", since=since, next=then)
    reason, cause, todo = _down(details, since)
    return Link(
        name,
        LinkState.BROKEN,
        f"{words} for {in_words(seconds)}: {cause}",
        reason=reason,
        since=since,
        next=todo,
    )


def _down(details: Details, since: str) -> tuple[str, str, str]:
    """Reason, cause and advice: which of Metacontroller and the hooks is down, if that shows.

    since: when the change was made that is not answered; Events before it say nothing.
    """
    errors = [
        one
        for one in details.events or ()
        if one.get("reason") == _SYNC_ERROR and _event_time(one) >= since
    ]
    for hooks in details.hooks or ():
        if not (hooks.get("status") or {}).get("availableReplicas"):
            where = f"{meta.namespace(hooks)}/{meta.name(hooks)}"
            return (
                "HooksDown",
                f"the Deployment {where} of the hooks has no available replica",
                f"kubectl -n {meta.namespace(hooks)} describe deployment/{meta.name(hooks)}",
            )
    for controller in details.metacontrollers or ():
        if not (controller.get("status") or {}).get("readyReplicas"):
            where = f"{meta.namespace(controller)}/{meta.name(controller)}"
            return (
                "MetacontrollerDown",
                f"the StatefulSet {where} has no ready replica",
                f"kubectl -n {meta.namespace(controller)} describe sts {meta.name(controller)}",
            )
    if errors:
        latest = max(errors, key=_event_time)
        return (
            "HooksDown",
            f"Metacontroller reports: {latest.get('message')}",
            "see the log of the hooks (Deployment localmodel-hooks), and their Service",
        )
    return "ControllerSilent", _SILENT, CONTROLLER_ADVICE


def _event_time(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(time) for time in times if time), "")


def _group(group: KubeObject) -> Link:
    ready = condition_of(group, "Ready")
    if is_true(ready) and not meta.is_deleting(group):
        words = f"LocalModelNodeGroup {meta.name(group)}: {ready.get('message')}"
        return ok("group", words, since=str(ready.get("lastTransitionTime") or ""))
    waits = ready.get("reason") in GROUP_WAITS or meta.is_deleting(group)
    link = from_condition("group", LinkState.WAITING if waits else LinkState.BROKEN, ready)
    return Link(
        link.name,
        link.state,
        f"LocalModelNodeGroup {meta.name(group)}: {link.words}",
        reason=link.reason,
        since=link.since,
        next="it goes on by itself" if waits else "",
    )


def _admitted(cache: KubeObject) -> Link:
    admitted = condition_of(cache, "Admitted")
    match admitted.get("status"):
        case "True":
            return from_condition("admitted", LinkState.OK, admitted)
        case "Unknown" if admitted.get("reason") == "PlanPending":
            return from_condition("admitted", LinkState.WAITING, admitted, "it goes on by itself")
        case _:
            return from_condition("admitted", LinkState.BROKEN, admitted)


def _plans(snapshot: Snapshot, cache: KubeObject) -> Iterator[Link]:
    """Whether the stored plan of each group lists the cache: an entry of a node comes from it."""
    if not snapshot.knows(PLACEMENTS):
        yield _may_not_read("plan", PLACEMENTS.name, snapshot)
        return
    uri = str((cache.get("spec") or {}).get("sourceModelUri") or "")
    mine = (model_key(uri), meta.namespace(cache), meta.name(cache))
    for name in groups_of(cache):
        plan = snapshot.placement_by_name.get(name)
        models = (plan.get("spec") or {}).get("models") or () if plan else ()
        listed = any(
            (
                model_key(str(one.get("sourceModelUri") or "")),
                one.get("namespace") or "",
                one.get("modelName"),
            )
            == mine
            for one in models
        )
        if listed:
            yield ok("plan", f"LocalModelPlacement {name} lists the model")
        else:
            lack = "does not list the model" if plan else "does not exist"
            yield Link(
                "plan",
                LinkState.WAITING,
                f"LocalModelPlacement {name} {lack}",
                reason="PlanPending",
                next="the hook of the group writes it; if this lasts, see Metacontroller's log",
            )


def _may_not_read(name: str, kind: str, snapshot: Snapshot) -> Link:
    why = snapshot.forbidden.get(kind, "")
    return Link(name, LinkState.UNKNOWN, f"not visible: {why}", reason="Forbidden")


def node_may_not_be_read(snapshot: Snapshot) -> Link | None:
    """The link of a Node that the user may not read; None if he may."""
    return None if snapshot.knows(NODES) else _may_not_read("node", NODES.name, snapshot)
