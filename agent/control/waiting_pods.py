"""What is reported to pods that wait for models, and how they start once the model is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.cluster.events import PodEvent
from agent.control import reasons
from agent.control.status import Outlook, entry_status
from crds.quantity import format_quantity
from crds.states import ModelState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from agent.cluster.events import PodSink
    from agent.cluster.pod_mounts import PodUse
    from agent.control.rows import Row, Table
    from agent.control.waiting import Waiting
    from crds.node import NodeModelStatus

# How often the progress of a download is reported, while it goes on for the same reason.
PROGRESS_SECONDS = 30.0

_RETURNS = "it was evicted, and comes back for this pod"


@dataclass(frozen=True)
class _Reported:
    """What was last reported to a pod about a model, and when (monotonic).

    `why` changes with what the pod waits for, and not with the progress of that. `was_woken`: the
    model is there, and kubelet was made to try again.
    """

    why: str
    message: str = ""
    at: float = 0.0
    is_cached: bool = False
    was_woken: bool = False


class WaitingPods:
    """Emits Events about the pods that wait for models, and wakes kubelet for them.

    The Events of a pod name LocalModelCaches and caches of the pod's own namespace, and no others.
    """

    def __init__(self, sink: PodSink) -> None:
        self._sink = sink
        # By uid and key. Bounded by the waiting pods and their models.
        self._reported: dict[tuple[str, str], _Reported] = {}

    def observe(
        self, table: Table, waiting: Mapping[str, Waiting], suspended: Collection[str]
    ) -> None:
        """Take in the rows of a step. `waiting` and `suspended` are by key, as planned."""
        if not table.pods_known:
            return
        before, self._reported = self._reported, {}
        for row in table.rows.values():
            if not row.is_awaited:
                continue
            outlook = Outlook(waiting.get(row.key), row.key in suspended, table.disk_failure)
            for pod, status in _reports_of(row, outlook):
                known = (pod.uid, row.key)
                self._reported[known] = self._report(pod, status, before.get(known), table.now)

    def _report(
        self, pod: PodUse, status: NodeModelStatus, before: _Reported | None, now: float
    ) -> _Reported:
        if status.cached:
            return self._wake(pod, status, before)
        why = f"{status.state}/{status.reason}/{status.size is None}"
        message = _explain(status)
        if before is not None and before.why == why:
            is_new = message != before.message and now - before.at >= PROGRESS_SECONDS
            if not is_new:
                return before
        warning = status.state is ModelState.FAILED or status.reason in reasons.NO_ROOM
        self._emit(pod, status, reasons.WAITING_FOR_MODEL, message, warning=warning)
        return _Reported(why, message, now)

    def _wake(self, pod: PodUse, status: NodeModelStatus, before: _Reported | None) -> _Reported:
        """Let kubelet start a pod whose model is there, once.

        Kubelet starts a pod by itself that finds its model, but for a pod that has just missed it,
        or that missed it while no agent ran.
        """
        is_new = before is not None and not before.is_cached
        if before is not None and before.was_woken:
            return before
        if is_new or pod.is_blocked:
            self._sink.cached(pod)
            size = f" ({format_quantity(status.size)})" if status.size else ""
            self._emit(pod, status, reasons.MODEL_CACHED, f"it is on this node now{size}")
        return _Reported("", is_cached=True, was_woken=is_new or pod.is_blocked)

    def _emit(
        self,
        pod: PodUse,
        status: NodeModelStatus,
        reason: str,
        message: str,
        *,
        warning: bool = False,
    ) -> None:
        name = f"{status.namespace}/{status.name}" if status.namespace else status.name
        series = f"{status.key} {name} {reason} {status.state} {status.reason}"
        self._sink.tell(PodEvent(pod, series, reason, f"{name}: {message}", warning))


def _reports_of(row: Row, outlook: Outlook) -> Iterator[tuple[PodUse, NodeModelStatus]]:
    """Each waiting pod, and the status of the entry that its Events are about.

    Of several entries, one whose model is there for its cache, else one of the pod's namespace.
    """
    pods = [pod for pod in row.pods or () if pod.waits]
    namespaces, public = {"", *(pod.namespace for pod in pods)}, _for_pods(row)
    best: dict[str, NodeModelStatus] = {}
    for entry in row.wish.entries:
        namespace = entry.cache.namespace
        if namespace in namespaces and not (namespace in best and best[namespace].cached):
            status = entry_status(entry, public, outlook)
            best[namespace] = status if status.cached else best.get(namespace, status)
    for pod in pods:
        found = [best[name] for name in (pod.namespace, "") if name in best]
        if found:
            yield pod, next((one for one in found if one.cached), found[0])


def _for_pods(row: Row) -> Row:
    """The row with its failures as pods may know them: each pod has a namespace."""
    if not row.retries or not row.pods:
        return row
    namespace = row.pods[0].namespace
    reportable = {}
    for requester, retry in row.retries.items():
        failure = replace(retry.failure, error=retry.failure.error.told_to(namespace))
        reportable[requester] = replace(retry, failure=failure)
    return replace(row, retries=reportable)


def _explain(status: NodeModelStatus) -> str:
    """Why a model is not there, and how far its download is."""
    # The message of the status names who refers to the model: maybe a pod of another namespace.
    returns = status.reason == reasons.REFERENCED
    detail = _RETURNS if returns else status.message or ""
    if status.state is ModelState.FAILED:
        retry = status.next_retry_time
        again = f"; the next try is at {retry:%Y-%m-%dT%H:%M:%SZ}" if retry else ""
        return f"failed: {status.reason}: {detail}{again}"
    if status.state is ModelState.DOWNLOADING:
        rest = _progress(status)
    else:
        rest = "its download begins next" if returns or not detail else ""
    return "; ".join(filter(None, (detail, rest)))


def _progress(status: NodeModelStatus) -> str:
    done, size = status.downloaded_bytes or 0, status.size
    if size is None:
        return "its download begins"
    rate = status.bytes_per_second
    return (
        f"downloading: {format_quantity(done)} of {format_quantity(size)} "
        f"({100 * done // max(size, 1)} %)" + (f", {format_quantity(rate)}/s" if rate else "")
    )
