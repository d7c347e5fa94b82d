"""The Events of the agent: one for each thing that happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.cluster.events import EventSink, NodeEvent
from agent.control import reasons
from agent.structs.log import log
from crds.quantity import format_quantity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from agent.control.rows import Row, Table
    from agent.control.waiting import Waiting
    from agent.structs.adoption import Adopted
    from agent.structs.failures import DownloadError, FailureKind
    from agent.structs.manifest import CacheName
    from agent.structs.records import Evicted
    from agent.structs.requests import Request


class NodeEventSink(EventSink, Protocol):
    """A sink of Events about the LocalModelNode."""

    def about(self, uid: str) -> None:
        """All Events from now on are about the LocalModelNode with this uid."""
        ...


class LogSink:
    """Writes events to the log."""

    def about(self, uid: str) -> None:
        """The log names no object."""

    def tell(self, event: NodeEvent) -> None:
        """Write it."""
        log.info("Event", eventReason=event.reason, detail=event.message, warning=event.warning)


class NodeEvents:
    """Emits an Event for what happened. A state that lasts has its Event when it begins."""

    def __init__(self, sink: NodeEventSink) -> None:
        self._sink = sink
        self._waiting: frozenset[str] = frozenset()
        # What is wrong with requests of the LocalModelNode as it is now.
        self._invalid: frozenset[str] = frozenset()
        # The downloads whose size is known. Bounded by the rows.
        self._downloading: frozenset[str] = frozenset()
        # The last failure of each key and its caches. Bounded by the requests: `retain`.
        self._failures: dict[tuple[str, frozenset[CacheName]], FailureKind] = {}

    def about(self, uid: str) -> None:
        """All Events from now on are about the LocalModelNode with this uid."""
        self._sink.about(uid)

    def evicted(self, names: Iterable[CacheName], note: Evicted) -> None:
        """A copy was evicted."""
        self._emit(reasons.EVICTED, names, f"{note.reason}: {note.message}")

    def damaged(self, names: Iterable[CacheName], problem: str) -> None:
        """A published copy is no longer as it was downloaded."""
        self._emit(
            reasons.DAMAGED, names, f"{problem}; its bad files are fetched again", warning=True
        )

    def returning(self, names: Iterable[CacheName], who: str) -> None:
        """The download of a model starts that was evicted, and that something refers to."""
        self._emit(reasons.REFERENCED, names, f"it was evicted, and comes back: {who} refers to it")

    def downloading(self, table: Table) -> None:
        """Emit an Event for each download whose size has become known. A retry has no Event."""
        rows = [row for row in table.rows.values() if row.transfer and row.transfer.listed]
        for row in rows:
            if row.key not in self._downloading and not row.failures:
                self._began(row)
        self._downloading = frozenset(row.key for row in rows)

    def _began(self, row: Row) -> None:
        if row.transfer is None or row.request is None or row.transfer.total is None:
            return
        names = row.request.caches_of(row.transfer.requester)
        size, here = format_quantity(row.transfer.total), format_quantity(row.transfer.done)
        self._emit(reasons.DOWNLOADING, names, f"{size}, of which {here} are on the disk")

    def downloaded(
        self, key: str, names: Collection[CacheName], size: int, seconds: float | None = None
    ) -> None:
        """These caches have a model now. seconds: how long its download took; None: there was none.

        A repair is no download.
        """
        self._failures.pop((key, frozenset(names)), None)
        detail = format_quantity(size)
        if seconds is not None:
            # Of a fraction of a second nobody wants the rate.
            whole = max(round(seconds), 1)
            detail += f" in {whole} s, {format_quantity(size // whole)}/s"
        self._emit(reasons.DOWNLOADED, names, detail)

    def removed(self, names: Iterable[CacheName], size: int, why: str) -> None:
        """A copy was removed."""
        self._emit(reasons.REMOVED, names, f"{format_quantity(size)} were freed: {why}")

    def adopted(self, key: str, names: Collection[CacheName], adopted: Adopted) -> None:
        """A folder that somebody else filled was adopted."""
        self._failures.pop((key, frozenset(names)), None)
        found, added = format_quantity(adopted.found), format_quantity(adopted.added)
        detail = f"{found} were there already and are the model's, {added} were added"
        self._emit(reasons.ADOPTED, names, detail)

    def failed(self, key: str, names: Collection[CacheName], error: DownloadError) -> None:
        """A download for these caches has failed. The same kind again has no Event."""
        known = (key, frozenset(names))
        if self._failures.get(known) is not error.kind:
            self._failures[known] = error.kind
            (namespace, *_) = {name.namespace for name in names} or {""}
            detail = f"{error.kind}: {error.told_to(namespace).message}"
            self._emit(reasons.DOWNLOAD_FAILED, names, detail, warning=True)

    def disk(self, failure: DownloadError | None) -> None:
        """The disk has begun to fail in this way; None: it works again."""
        if failure is None:
            self._sink.tell(NodeEvent(reasons.DISK_RECOVERED, "the disk can be written again"))
        else:
            self._sink.tell(NodeEvent(failure.kind.value, failure.message, warning=True))

    def waiting(self, waiting: Mapping[str, Waiting], table: Table) -> None:
        """These downloads wait for room. Each has its Event when the waiting begins."""
        for key in waiting.keys() - self._waiting:
            owners, reason = table.row(key).owners, waiting[key].reason
            self._emit(reason, owners, waiting[key].message, warning=True)
        self._waiting = frozenset(waiting)

    def invalid_requests(self, problems: frozenset[str]) -> None:
        """These annotations of the LocalModelNode are ignored. Each has its Event once."""
        for problem in sorted(problems - self._invalid):
            self._sink.tell(NodeEvent(reasons.INVALID_REQUEST, problem, warning=True))
        self._invalid = problems

    def retain(self, requests: Mapping[str, Request]) -> None:
        """Forget the failures of all other models, and those of caches that are others by now."""
        asked = set()
        for key in {key for key, _ in self._failures} & requests.keys():
            by_namespace: dict[str, set[CacheName]] = {}
            for name in requests[key].caches:
                by_namespace.setdefault(name.namespace, set()).add(name)
            asked |= {(key, frozenset(names)) for names in by_namespace.values()}
        self._failures = {known: kind for known, kind in self._failures.items() if known in asked}

    def _emit(
        self, reason: str, names: Iterable[CacheName], detail: str, *, warning: bool = False
    ) -> None:
        self._sink.tell(NodeEvent(reason, f"{display_names(names)}: {detail}", warning))


def display_names(names: Iterable[CacheName]) -> str:
    """The names of a model's caches, to name the model in a message."""
    found = sorted({f"{n.namespace}/{n.name}" if n.namespace else n.name for n in names})
    return ", ".join(found) or "a model"
