"""The links from a node's share of the plan to the copy on its disk. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crds.quantity import format_quantity
from deploy.kube import meta
from deploy.kube.kinds import LOCAL_MODEL_NODES
from deploy.kubectl import reasons
from deploy.kubectl.cells import CellState, condition_of, entries_of, groups_of, is_ready
from deploy.kubectl.links import (
    Link,
    LinkState,
    from_condition,
    in_words,
    moment,
    ok,
    seconds_since,
    written_at,
)
from deploy.kubectl.why_cluster import (
    ANSWER_SECONDS,
    CONTROLLER_ADVICE,
    node_may_not_be_read,
    selects,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.cells import Cell
    from deploy.kubectl.details import Details
    from deploy.kubectl.snapshot import Snapshot

# An agent acts on a change within a second, and reports progress every 15 seconds by default
# (--progress-seconds).
REPORT_SECONDS = 30.0
PROGRESS_SECONDS = 120.0
# The manager of the fields that agents write.
_AGENT = "localmodel-agent"


def links(
    snapshot: Snapshot, cache: KubeObject, node: str, cell: Cell | None, details: Details
) -> Iterator[Link]:
    """The links of a cache on one node. cell: None if the node has neither entry nor report."""
    if not snapshot.knows(LOCAL_MODEL_NODES):
        words = f"not visible: {snapshot.forbidden.get(LOCAL_MODEL_NODES.name, '')}"
        yield Link("entry", LinkState.UNKNOWN, words, reason="Forbidden")
        return
    # A copy that is being removed has no entry.
    listed = cell is not None and cell.state is not CellState.REMOVING
    left = "" if listed or cell is None else "; the agent removes its copy after the grace period"
    first = _node(snapshot, cache, node, details, listed=listed, left=left)
    yield first
    if first.state is LinkState.UNKNOWN:
        # Nothing says whether a group selects the Node.
        return
    found = snapshot.local_model_node_by_name.get(node)
    if found is None or cell is None or not listed:
        yield _no_entry(snapshot, cache, node, found, left)
        return
    yield ok("entry", f"LocalModelNode {node} lists the model")
    yield _agent(found, cell, snapshot, details)
    yield _disk(found)
    yield from _copy(cell, found, snapshot, cache, details)


def _node(
    snapshot: Snapshot,
    cache: KubeObject,
    node: str,
    details: Details,
    *,
    listed: bool,
    left: str,
) -> Link:
    """Whether the Node exists, is Ready, and is in a group of the cache.

    listed: whether an entry requests the copy. left: words about a copy without an entry.
    """
    hidden = node_may_not_be_read(snapshot)
    if hidden is not None and node not in snapshot.local_model_node_by_name:
        return hidden
    found = snapshot.node_by_name.get(node)
    if found is None and hidden is None:
        return Link(
            "node",
            LinkState.BROKEN,
            f"Node {node} does not exist",
            reason="NodeNotFound",
            next="kubectl get nodes",
        )
    mine = [name for name in groups_of(cache) if _is_in(snapshot, name, node)]
    if not mine and not listed:
        return _not_selected(snapshot, cache, node, left)
    if not is_ready(snapshot, node):
        return _not_ready(node, details)
    return ok(
        "node", f"Node {node} is Ready" + (f", in the group {', '.join(mine)}" if mine else "")
    )


def _is_in(snapshot: Snapshot, group: str, node: str) -> bool:
    """Whether a group has a node: as its plan says of the Node, or else as its LocalModelNode."""
    if node in snapshot.node_by_name:
        return selects(snapshot, group, node)
    spec = (snapshot.local_model_node_by_name.get(node) or {}).get("spec") or {}
    return any(one.get("name") == group for one in spec.get("groups") or ())


def _not_ready(node: str, details: Details) -> Link:
    ready = condition_of(details.node or {}, "Ready")
    why = f": {ready['reason']}: {ready.get('message')}" if ready.get("reason") else ""
    return Link(
        "node",
        LinkState.BROKEN,
        f"Node {node} is not Ready{why}",
        reason="NodeNotReady",
        since=str(ready.get("lastTransitionTime") or ""),
        next=f"kubectl describe node {node}; its copies count again when it is Ready",
    )


def _not_selected(snapshot: Snapshot, cache: KubeObject, node: str, left: str) -> Link:
    lacks = []
    found = snapshot.node_by_name.get(node)
    for name in groups_of(cache):
        group = snapshot.group_by_name.get(name) or {}
        selector: dict[str, Any] = (group.get("spec") or {}).get("nodeSelector") or {}
        missing = [
            f"{key}={value}"
            for key, value in sorted(selector.items())
            if found is not None and meta.labels(found).get(key) != value
        ]
        lacks.append(
            f"{name} requires {','.join(missing)}" if missing else f"{name} does not select it"
        )
    return Link(
        "node",
        LinkState.BROKEN,
        f"Node {node} is in no group of the cache: {'; '.join(lacks)}{left}",
        reason="NotSelected",
        next="label the node so, or change the nodeSelector of the group",
    )


def _no_entry(
    snapshot: Snapshot, cache: KubeObject, node: str, found: KubeObject | None, left: str
) -> Link:
    """The link of a node that does not list the model although a plan does."""
    left_out = ((found or {}).get("spec") or {}).get("leftOut")
    if left_out:
        return Link(
            "entry",
            LinkState.BROKEN,
            f"LocalModelNode {node} has no room for {left_out} models of its groups{left}",
            reason="GroupTooLarge",
            next="take the node out of a group",
        )
    plans = [
        snapshot.placement_by_name[name]
        for name in groups_of(cache)
        if name in snapshot.placement_by_name
    ]
    since = max((written_at(plan, status=False) for plan in plans), default="")
    waits = seconds_since(since, snapshot.at) <= ANSWER_SECONDS
    what = "does not list the model" if found else "does not exist"
    return Link(
        "entry",
        LinkState.WAITING if waits else LinkState.BROKEN,
        f"LocalModelNode {node} {what}, although the plan does{left}",
        reason="NotAnswered" if waits else "ControllerSilent",
        since=since,
        next="the hook of the node writes it within seconds" if waits else CONTROLLER_ADVICE,
    )


def _agent(found: KubeObject, cell: Cell, snapshot: Snapshot, details: Details) -> Link:
    """Whether the agent of the node is alive, as far as its reports and its pod show."""
    node, status = meta.name(found), found.get("status") or {}
    reported = written_at(found, status=True, manager=_AGENT) or written_at(found, status=True)
    changed = written_at(found, status=False)
    quiet = seconds_since(reported, snapshot.at)
    pod = _pod_trouble(details)
    behind = (status.get("observedGeneration") or 0) < meta.generation(found)
    waited = seconds_since(changed, snapshot.at)
    if cell.state is CellState.UNREPORTED or behind:
        words = (
            f"the agent of {node} has not acted on the last change of LocalModelNode {node}"
            if status
            else f"the agent of {node} has never reported"
        )
        if waited <= REPORT_SECONDS and not pod:
            then = "an agent acts on a change within seconds"
            return Link(
                "agent", LinkState.WAITING, words, reason="NotReported", since=changed, next=then
            )
        last = f"; its last report is {in_words(quiet)} old" if reported else ""
        return _dead(f"{words} for {in_words(waited)}{last}", changed, node, details)
    late = _late(cell, quiet, snapshot)
    if late or pod:
        return _dead(late or f"the agent of {node} does not run", reported, node, details)
    return ok("agent", f"the agent of {node} reports", since=reported)


def _late(cell: Cell, quiet: float, snapshot: Snapshot) -> str:
    """What shows that an agent has stopped although its LocalModelNode has not changed."""
    if cell.state is CellState.DOWNLOADING and quiet > PROGRESS_SECONDS:
        return f"the agent has reported no progress of the download for {in_words(quiet)}"
    due = seconds_since(cell.next_try, snapshot.at)
    if cell.state is CellState.FAILED and min(due, quiet) > PROGRESS_SECONDS:
        return f"the next try was due {in_words(due)} ago, and the agent has not reported since"
    return ""


def _dead(words: str, since: str, node: str, details: Details) -> Link:
    pod = _pod_trouble(details)
    if details.agents == ():
        pod = f"no pod of the agent is on {node}"
    return Link(
        "agent",
        LinkState.BROKEN,
        f"{words}; {pod}" if pod else words,
        reason="AgentSilent",
        since=since,
        next=f"see the pod of localmodel-agent on {node}, and its log",
    )


def _pod_trouble(details: Details) -> str:
    """What is wrong with the agent's pod; empty if nothing is, or that is not known."""
    for pod in details.agents or ():
        name, status = f"{meta.namespace(pod)}/{meta.name(pod)}", pod.get("status") or {}
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting")
            if waiting and not container.get("ready"):
                return (
                    f"its pod {name} waits: {waiting.get('reason')}: {waiting.get('message') or ''}"
                )
        if status.get("phase") not in {"Running", None}:
            return f"its pod {name} is {status.get('phase')}"
    return ""


def _disk(found: KubeObject) -> Link:
    broken = condition_of(found, "DiskReady")
    if broken.get("status") == "False":
        return from_condition("disk", LinkState.BROKEN, broken)
    disk = (found.get("status") or {}).get("disk") or {}
    return ok("disk", f"{disk.get('available', '?')} of {disk.get('capacity', '?')} available")


def _copy(
    cell: Cell, found: KubeObject, snapshot: Snapshot, cache: KubeObject, details: Details
) -> Iterator[Link]:
    """The links from the node's turn to the published copy."""
    size = format_quantity(cell.size) if cell.size else "size unknown"
    if cell.cached and cell.state in {CellState.AVAILABLE, CellState.NOT_READY}:
        used = f", used by {cell.pods} pods" if cell.pods else ""
        words = f"{size}, complete and verified{used}"
        published = _published(found, cache)
        if cell.reason == reasons.EVICTION_REQUESTED:
            words = f"{words}; {cell.message or 'its eviction was requested, and waits'}"
            yield Link("copy", LinkState.OK, words, cell.reason, published, reasons.KEEP)
        else:
            yield ok("copy", words, since=published)
        return
    meaning = _meaning(cell, found, cache)
    before = _ORDER.index(meaning.link) if meaning.link in _ORDER else 0
    for link, words in _PASSED.items():
        if _ORDER.index(link) < before:
            yield ok(link, words)
    yield Link(
        meaning.link,
        meaning.state,
        _words(cell, snapshot),
        reason=cell.reason or _REASON.get(cell.state, ""),
        since=_since(cell, cache, details),
        next=_next(cell, snapshot, meaning),
    )


_ORDER = (
    reasons.DISK,
    reasons.TURN,
    reasons.ROOM,
    reasons.ACCESS,
    reasons.SOURCE,
    reasons.DOWNLOAD,
    reasons.CONTENT,
    reasons.COPY,
)
_PASSED = {
    reasons.TURN: "the node may download",
    reasons.ROOM: "there is room for the model",
    reasons.SOURCE: "the source has listed the model",
}
_REASON = {CellState.DOWNLOADING: "Downloading", CellState.WAITING: "Pending"}


def _meaning(cell: Cell, found: KubeObject, cache: KubeObject) -> reasons.Meaning:
    match cell.state:
        case CellState.FAILED:
            return reasons.FAILURES.get(cell.reason, reasons.OTHER_FAILURE)
        case CellState.EVICTED:
            return reasons.EVICTIONS.get(cell.reason, reasons.OTHER_EVICTION)
        case CellState.DOWNLOADING:
            return reasons.OTHER_WAIT
    if not cell.reason and _is_suspended(found, cache):
        return reasons.WAITS["AwaitingTurn"]
    return reasons.WAITS.get(cell.reason, reasons.OTHER_WAIT)


def _is_suspended(found: KubeObject, cache: KubeObject) -> bool:
    return any(
        entry.get("suspend") and entry.get("modelName") == meta.name(cache)
        for entry in entries_of(found)
        if (entry.get("namespace") or "") == meta.namespace(cache)
    )


def _words(cell: Cell, snapshot: Snapshot) -> str:
    if cell.state is CellState.DOWNLOADING:
        total = format_quantity(cell.size) if cell.size else "?"
        rate = f", {format_quantity(cell.rate)}/s" if cell.rate else ""
        left = moment(cell.eta)
        seconds = (left - snapshot.at).total_seconds() if left else 0
        until = f", about {in_words(seconds)} left" if seconds > 0 else ""
        done = f"{cell.percent}% ({format_quantity(cell.done)} of {total}{rate}{until})"
        return f"{done}; {cell.message}" if cell.message else done
    if cell.message:
        return cell.message
    return "the agent has not begun the download" if cell.state is CellState.WAITING else cell.state


def _next(cell: Cell, snapshot: Snapshot, meaning: reasons.Meaning) -> str:
    if cell.state is CellState.DOWNLOADING:
        return f"the copy is published at about {cell.eta}" if cell.eta else meaning.next
    if cell.state is not CellState.FAILED or not cell.next_try:
        return meaning.next
    due = moment(cell.next_try)
    seconds = (due - snapshot.at).total_seconds() if due else 0
    when = f"in {in_words(seconds)}" if seconds > 0 else "now"
    tries = (
        f"{cell.attempts} {'try' if cell.attempts == 1 else 'tries'} failed"
        if cell.attempts
        else ""
    )
    again = f"the agent tries again {when} ({cell.next_try})"
    return "; ".join(filter(None, (tries, again, meaning.next)))


def _since(cell: Cell, cache: KubeObject, details: Details) -> str:
    """Since when the model is in this state: by the agent's Event, or by the cache's condition."""
    title = "/".join(filter(None, (meta.namespace(cache), meta.name(cache))))
    times = [
        str(one.get("eventTime") or one.get("firstTimestamp") or "")
        for one in details.events or ()
        if cell.reason and str(one.get("message") or "").startswith(f"{title}: {cell.reason}")
    ]
    ready = condition_of(cache, "Ready")
    known = str(ready.get("lastTransitionTime") or "") if ready.get("status") == "False" else ""
    return min(filter(None, times), default=known)


def _published(found: KubeObject, cache: KubeObject) -> str:
    for report in (found.get("status") or {}).get("models") or ():
        if (report.get("namespace") or "", report.get("name")) == (
            meta.namespace(cache),
            meta.name(cache),
        ):
            return str(report.get("downloadedTime") or "")
    return ""
