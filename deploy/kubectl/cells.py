"""The matrix of a cluster: the state of each model on each node. Pure.

A model here is what one cache requests: a LocalModelCache or a LocalModelNamespaceCache.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from crds.keys import model_key
from crds.quantity import parse_quantity
from deploy.kube import meta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.snapshot import CacheName, Snapshot

# No end of a download is shown that is further ahead.
_MAX_ESTIMATE_SECONDS = 365 * 86400
# Key, namespace and name of a cache, as in crds.base.Identity.
_Identity = tuple[str, str, str]


class CellState(StrEnum):
    """State of one model on one node.

    AVAILABLE: a pod can mount the copy. WAITING: the reason of the cell says what for. NOT_READY:
    the Node is not Ready, whatever its agent reported last. UNREPORTED: the agent of the node has
    not reported the entry yet. REMOVING: the cache no longer requests the copy, and its files are
    deleted after the grace period.
    """

    AVAILABLE = "available"
    DOWNLOADING = "downloading"
    WAITING = "waiting"
    UNREPORTED = "unreported"
    EVICTED = "evicted"
    FAILED = "failed"
    NOT_READY = "not-ready"
    REMOVING = "removing"


# From what an agent reports.
_STATES = {
    "Downloaded": CellState.AVAILABLE,
    "Downloading": CellState.DOWNLOADING,
    "Pending": CellState.WAITING,
    "Evicted": CellState.EVICTED,
    "Failed": CellState.FAILED,
    "Removing": CellState.REMOVING,
}
# From what KServe's agent reports, in status.modelStatus.
_KSERVE_STATES = {
    "ModelDownloaded": CellState.AVAILABLE,
    "ModelDownloading": CellState.DOWNLOADING,
    "ModelDownloadPending": CellState.WAITING,
    "ModelDownloadError": CellState.FAILED,
}


class Cell(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One model on one node.

    size, done, disk_bytes: bytes; size is 0 until it is known, done counts downloaded bytes. rate:
    bytes per second. eta, next_try, last_used: RFC 3339, empty if not known. cached: whether a
    complete copy is on the disk, also of a node that is not Ready. pods: those of the node that use
    the model. reason and message: why the model failed, waits or was evicted, as the agent reports.
    group: that of the entry. origin_bytes, peer_bytes: what the last download got from the origin,
    and from other nodes.
    """

    state: CellState
    reason: str = ""
    message: str = ""
    size: int = 0
    done: int = 0
    rate: int = 0
    eta: str = ""
    attempts: int = 0
    next_try: str = ""
    cached: bool = False
    pods: int = 0
    disk_bytes: int = 0
    last_used: str = ""
    group: str = ""
    origin_bytes: int = 0
    peer_bytes: int = 0

    @property
    def percent(self) -> int:
        """Percent of the bytes that are on the disk, rounded down; 0 if the size is not known."""
        if self.cached:
            return 100
        return min(100 * self.done // self.size, 99) if self.size else 0


@dataclass(frozen=True)
class Model:
    """A row of the matrix: a cache, and what its status says.

    key: name of the folder. ready: status of the condition Ready; empty if the cache has none.
    size: bytes of the files, or those declared until the source was listed.
    """

    namespace: str
    name: str
    key: str
    uri: str
    groups: tuple[str, ...]
    size: int
    pinned: bool
    ready: str
    reason: str
    message: str
    available: int
    total: int
    failed: int
    percent: int
    pods: int

    @property
    def title(self) -> str:
        """`name` or `namespace/name`, as in the arguments of the commands."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def cache(self) -> CacheName:
        """Namespace and name of the cache."""
        return (self.namespace, self.name)


@dataclass(frozen=True)
class NodeRow:
    """A column of the matrix: a node that is, or was, in a group.

    ready: whether the Node is Ready. problem: reason and message of the first condition of the
    LocalModelNode that says that its disk or its agent needs a person; empty if there is none.
    capacity, used, free: bytes of its disk; 0 until its agent has reported them.
    """

    name: str
    ready: bool
    groups: tuple[str, ...]
    capacity: int
    used: int
    free: int
    problem: str
    reported: bool


@dataclass(frozen=True)
class Matrix:
    """The models, the nodes, and a cell for each pair that has an entry or a report.

    cells: by namespace and name of the cache, then by the name of the node.
    """

    models: tuple[Model, ...]
    nodes: tuple[NodeRow, ...]
    cells: Mapping[CacheName, Mapping[str, Cell]]

    def cell(self, cache: CacheName, node: str) -> Cell | None:
        """The cell of a model and a node; None if neither a plan nor a disk has the model there."""
        return self.cells.get(cache, {}).get(node)

    @cached_property
    def model_by_name(self) -> dict[CacheName, Model]:
        """The models, by namespace and name of the cache."""
        return {model.cache: model for model in self.models}


def matrix(snapshot: Snapshot) -> Matrix:
    """The matrix of a snapshot, in time proportional to its size.

    Models and nodes are sorted by name, LocalModelCaches first.
    """
    cells: dict[CacheName, dict[str, Cell]] = {}
    rows = []
    for name, node in sorted(snapshot.local_model_node_by_name.items()):
        ready = is_ready(snapshot, name)
        rows.append(_node_row(name, node, ready=ready))
        for cache, cell in _cells_of(node, snapshot, ready=ready):
            cells.setdefault(cache, {})[name] = cell
    models = [_model(one) for _, one in sorted(snapshot.cache_by_name.items())]
    return Matrix(tuple(models), tuple(rows), cells)


def cells_of_cache(snapshot: Snapshot, cache: CacheName) -> dict[str, Cell]:
    """The cells of one model, by the name of the node."""
    found = {}
    for name, node in snapshot.local_model_node_by_name.items():
        cell = dict(_cells_of(_only(node, cache), snapshot, ready=is_ready(snapshot, name)))
        if cache in cell:
            found[name] = cell[cache]
    return found


def _only(node: KubeObject, cache: CacheName) -> KubeObject:
    """A LocalModelNode with the entries and the reports of one cache."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    entries = [one for one in entries_of(node) if _cache_of(one, "modelName") == cache]
    reports = [one for one in reports_of(node) if _cache_of(one, "name") == cache]
    # Without any report, KServe's words count.
    status = status if not reports_of(node) else status | {"models": reports, "modelStatus": {}}
    return node | {"spec": spec | {"localModels": entries}, "status": status}


def _cache_of(item: Mapping[str, Any], name: str) -> CacheName:
    return (item.get("namespace") or "", item.get(name) or "")


def is_ready(snapshot: Snapshot, node: str) -> bool:
    """Whether a Node is Ready: as the Node says, or else as its LocalModelNode says."""
    found = snapshot.node_by_name.get(node)
    if found is not None:
        return any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in (found.get("status") or {}).get("conditions") or ()
        )
    listed = snapshot.local_model_node_by_name.get(node) or {}
    return bool((listed.get("spec") or {}).get("nodeReady"))


def entries_of(node: KubeObject) -> list[dict[str, Any]]:
    """The entries of a LocalModelNode."""
    return (node.get("spec") or {}).get("localModels") or []


def reports_of(node: KubeObject) -> list[dict[str, Any]]:
    """What the agent of a LocalModelNode reports of its models."""
    return (node.get("status") or {}).get("models") or []


def bytes_of(quantity: object) -> int:
    """Bytes of a quantity in an object; 0 if there is none, or it is not a quantity."""
    try:
        return parse_quantity(str(quantity)) if quantity is not None else 0
    except ValueError:
        return 0


def condition_of(obj: KubeObject, kind: str) -> dict[str, Any]:
    """A condition of an object; empty if it has none of this type."""
    for one in (obj.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind:
            found: dict[str, Any] = one
            return found
    return {}


def estimate(size: int, done: int, rate: int, now: datetime) -> str:
    """When a download ends at its present rate, RFC 3339.

    Empty if that is not known, or more than a year ahead: a download that stalls has no end, and a
    date has a largest value.
    """
    if rate <= 0 or size <= done or size - done > rate * _MAX_ESTIMATE_SECONDS:
        return ""
    end = now + timedelta(seconds=(size - done) / rate)
    return end.isoformat(timespec="seconds").replace("+00:00", "Z")


def _cells_of(
    node: KubeObject, snapshot: Snapshot, *, ready: bool
) -> Iterator[tuple[CacheName, Cell]]:
    reports = {_identity(one): one for one in reports_of(node)}
    kserve = {} if reports else (node.get("status") or {}).get("modelStatus") or {}
    listed = set()
    # A node in two groups of a cache has two entries of it, and one report.
    for entry in entries_of(node):
        cache = _cache_of(entry, "modelName")
        listed.add(cache)
        report = reports.get((model_key(entry.get("sourceModelUri") or ""), *cache))
        group = entry.get("nodeGroup") or ""
        if report is not None:
            yield cache, _reported(report, snapshot.at, group, ready=ready)
        else:
            word = str(kserve.get("/".join(filter(None, cache))))
            state = _KSERVE_STATES.get(word, CellState.UNREPORTED)
            cached = state is CellState.AVAILABLE
            yield (
                cache,
                Cell(
                    state if ready else CellState.NOT_READY,
                    size=bytes_of(entry.get("modelSize")),
                    cached=cached,
                    group=group,
                ),
            )
    # Copies that no entry requests. That of a cache's former URI must not hide its present one.
    for (_, namespace, name), report in reports.items():
        if (namespace, name) not in listed:
            yield (namespace, name), _reported(report, snapshot.at, "", ready=ready)


def _reported(report: Mapping[str, Any], now: datetime, group: str, *, ready: bool) -> Cell:
    state = _STATES.get(report.get("state") or "", CellState.WAITING)
    get = report.get
    size, done, rate = get("size") or 0, get("downloadedBytes") or 0, get("bytesPerSecond") or 0
    return Cell(
        state=state if ready or state is CellState.REMOVING else CellState.NOT_READY,
        reason=get("reason") or "",
        message=get("message") or "",
        size=size,
        done=done,
        rate=rate,
        eta=get("estimatedCompletionTime") or estimate(size, done, rate, now),
        attempts=get("attempts") or 0,
        next_try=get("nextRetryTime") or "",
        cached=bool(get("cached")),
        pods=get("pods") or 0,
        disk_bytes=get("diskBytes") or 0,
        last_used=get("lastUsedTime") or "",
        group=group,
        origin_bytes=get("originBytes") or 0,
        peer_bytes=get("peerBytes") or 0,
    )


def _identity(report: Mapping[str, Any]) -> _Identity:
    return (report.get("key") or "", report.get("namespace") or "", report.get("name") or "")


def _model(cache: KubeObject) -> Model:
    spec, status = cache.get("spec") or {}, cache.get("status") or {}
    uri = spec.get("sourceModelUri") or ""
    ready = condition_of(cache, "Ready")
    copies = status.get("copies") or {}
    return Model(
        namespace=meta.namespace(cache),
        name=meta.name(cache),
        key=model_key(uri),
        uri=uri,
        groups=groups_of(cache),
        size=status.get("size") or bytes_of(spec.get("modelSize")),
        pinned=spec.get("retention") == "Pinned",
        ready=ready.get("status") or "",
        reason=ready.get("reason") or "",
        message=ready.get("message") or "",
        available=copies.get("available") or 0,
        total=copies.get("total") or 0,
        failed=copies.get("failed") or 0,
        percent=status.get("progress") or 0,
        pods=status.get("pods") or 0,
    )


def groups_of(cache: KubeObject) -> tuple[str, ...]:
    """The names of the groups that a cache names, in either form."""
    spec = cache.get("spec") or {}
    named = spec.get("nodeGroups") or ([spec["nodeGroup"]] if spec.get("nodeGroup") else [])
    return tuple(dict.fromkeys(named))


def _node_row(name: str, node: KubeObject, *, ready: bool) -> NodeRow:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    disk = status.get("disk") or {}
    return NodeRow(
        name=name,
        ready=ready,
        groups=tuple(group.get("name") or "" for group in spec.get("groups") or ()),
        capacity=bytes_of(disk.get("capacity")),
        used=bytes_of(disk.get("used")),
        free=bytes_of(disk.get("available")),
        problem=_problem(node),
        reported=bool(status),
    )


def _problem(node: KubeObject) -> str:
    found: Iterable[tuple[str, str]] = (("DiskReady", "False"), ("ForeignDirectories", "True"))
    for kind, bad in found:
        condition = condition_of(node, kind)
        if condition.get("status") == bad:
            return f"{condition.get('reason') or kind}: {condition.get('message') or ''}"
    return ""
