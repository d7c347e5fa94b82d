"""What `status` shows: groups, models and nodes at a glance. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import Struct

from deploy.kube import meta
from deploy.kubectl.cells import Cell, CellState, bytes_of, condition_of, matrix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.cells import Matrix, Model, NodeRow
    from deploy.kubectl.snapshot import Snapshot


class GroupLine(Struct, frozen=True, rename="camel"):
    """A LocalModelNodeGroup.

    ready, reason, message: its condition Ready; ready is empty if it has none. copies: those that
    should exist. limit, used: bytes; used on the fullest node. downloading, awaiting_turn: nodes.
    """

    name: str
    ready: str
    reason: str
    message: str
    nodes: int
    models: int
    available: int
    copies: int
    failed: int
    limit: int
    used: int
    downloading: int
    awaiting_turn: int


class ModelLine(Struct, frozen=True, rename="camel"):
    """A cache. copies: the number in each state, such as {"available": 3}. rate: bytes/s of all.

    origin_bytes, peer_bytes: what the last downloads of all copies got from the origin, and from
    other nodes.
    """

    namespace: str
    name: str
    key: str
    uri: str
    groups: tuple[str, ...]
    ready: str
    reason: str
    message: str
    size: int
    available: int
    total: int
    copies: dict[str, int]
    percent: int
    rate: int
    eta: str
    pods: int
    pinned: bool
    origin_bytes: int
    peer_bytes: int

    @property
    def title(self) -> str:
        """`name` or `namespace/name`."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class NodeLine(Struct, frozen=True, rename="camel"):
    """A LocalModelNode. models: its entries. problem: empty if no person has to act."""

    name: str
    ready: bool
    groups: tuple[str, ...]
    available: int
    models: int
    failed: int
    downloading: int
    rate: int
    capacity: int
    used: int
    free: int
    problem: str


class Overview(Struct, frozen=True, rename="camel"):
    """A cluster at a glance. not_visible: the kinds that the user may not read."""

    at: str
    copies: dict[str, int]
    rate: int
    groups: list[GroupLine]
    models: list[ModelLine]
    nodes: list[NodeLine]
    not_visible: list[str]


@dataclass
class _Sum:
    """Counts over some cells."""

    states: Counter[str] = field(default_factory=Counter)
    rate: int = 0
    eta: str = ""
    origin_bytes: int = 0
    peer_bytes: int = 0

    def add(self, cell: Cell) -> None:
        self.states[cell.state.value] += 1
        self.rate += cell.rate
        self.eta = max(self.eta, cell.eta)
        self.origin_bytes += cell.origin_bytes
        self.peer_bytes += cell.peer_bytes


def overview(snapshot: Snapshot) -> Overview:
    """The overview of a snapshot, in time proportional to its size."""
    found = matrix(snapshot)
    by_node: dict[str, _Sum] = {row.name: _Sum() for row in found.nodes}
    by_model: dict[tuple[str, str], _Sum] = {}
    for cache, cells in found.cells.items():
        model = by_model.setdefault(cache, _Sum())
        for node, cell in cells.items():
            model.add(cell)
            by_node[node].add(cell)
    whole = Counter[str]()
    for counted in by_model.values():
        whole.update(counted.states)
    return Overview(
        at=snapshot.at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        copies=dict(whole),
        rate=sum(counted.rate for counted in by_model.values()),
        groups=[_group(one) for _, one in sorted(snapshot.group_by_name.items())],
        models=_models(found, by_model),
        nodes=[_node(row, by_node[row.name]) for row in found.nodes],
        not_visible=sorted({*snapshot.forbidden, *snapshot.absent}),
    )


def with_trouble_first(nodes: Iterable[NodeLine]) -> list[NodeLine]:
    """The nodes in the order in which a person looks at them."""
    return sorted(nodes, key=lambda one: (not one.problem, -one.failed, -one.downloading, one.name))


def _models(found: Matrix, sums: dict[tuple[str, str], _Sum]) -> list[ModelLine]:
    return [_model(one, sums.get(one.cache) or _Sum()) for one in found.models]


def _model(model: Model, counted: _Sum) -> ModelLine:
    return ModelLine(
        namespace=model.namespace,
        name=model.name,
        key=model.key,
        uri=model.uri,
        groups=model.groups,
        ready=model.ready,
        reason=model.reason or "NotAnswered",
        message=model.message,
        size=model.size,
        # The agents' reports, and not the cache's status, which follows them.
        available=counted.states[CellState.AVAILABLE.value],
        total=counted.states.total() - counted.states[CellState.REMOVING.value],
        copies=dict(counted.states),
        percent=model.percent,
        rate=counted.rate,
        eta=counted.eta,
        pods=model.pods,
        pinned=model.pinned,
        origin_bytes=counted.origin_bytes,
        peer_bytes=counted.peer_bytes,
    )


def _node(row: NodeRow, counted: _Sum) -> NodeLine:
    return NodeLine(
        name=row.name,
        ready=row.ready,
        groups=row.groups,
        available=counted.states[CellState.AVAILABLE.value],
        models=counted.states.total() - counted.states[CellState.REMOVING.value],
        failed=counted.states[CellState.FAILED.value],
        downloading=counted.states[CellState.DOWNLOADING.value],
        rate=counted.rate,
        capacity=row.capacity,
        used=row.used,
        free=row.free,
        problem=_problem(row, counted),
    )


def _problem(row: NodeRow, counted: _Sum) -> str:
    if not row.ready:
        return "NodeNotReady"
    if not row.reported:
        return "its agent has not reported"
    if counted.states[CellState.UNREPORTED.value] and not row.problem:
        return f"its agent has not reported {counted.states[CellState.UNREPORTED.value]} entries"
    return row.problem


def _group(group: KubeObject) -> GroupLine:
    status = group.get("status") or {}
    ready = condition_of(group, "Ready")
    models = status.get("models") or ()
    letters = Counter(letter for one in models for letter in one.get("states") or "")
    download = status.get("download") or {}
    return GroupLine(
        name=meta.name(group),
        ready=ready.get("status") or "",
        reason=ready.get("reason") or "NotAnswered",
        message=ready.get("message") or "",
        nodes=len(status.get("nodes") or ()),
        models=len(models),
        available=letters["A"],
        copies=letters.total(),
        failed=letters["F"],
        limit=bytes_of((group.get("spec") or {}).get("storageLimit")),
        used=bytes_of(status.get("used")),
        downloading=download.get("downloading") or 0,
        awaiting_turn=download.get("waiting") or 0,
    )
