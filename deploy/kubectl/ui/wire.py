"""The messages that bring the matrix to the page. Pure.

A message has what changed since the message before, and the first message (`full`) has everything:

    {"version": 7, "full": false,
     "groups": {"gpu": {"ready": true, "reason": "", "limit": 549755813888}},
     "models": {"team-a/llama": {...}, "gone": null},
     "nodes": {"node-1": {...}},
     "columns": ["llama", "mistral"], "reasons": ["DiskFull"],
     "cells": {"node-1": ["DF", [0, 1], [[0, 42, 250000000, 1790000000, -1], [1, null, 0, 0, 0]]]}}

null means that the object is gone. `cells` has for each node that changed: the letters of its
changed cells, their places in `columns` (null: all, in order), and for each cell that has more than
a letter: its place among the letters, percent, bytes per second, end of the download in Unix
seconds, and place of the reason in `reasons` (-1: none). `.` is a cell that is gone.

The size of a message is proportional to what changed, and the work to the objects that changed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy.kube import meta
from deploy.kubectl.cells import CellState, bytes_of, condition_of, matrix
from deploy.kubectl.links import moment
from deploy.kubectl.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.cells import Cell, Model, NodeRow

Message = dict[str, Any]
Head = dict[str, Any]

NOTHING = "."
# As in status.models[].states of a LocalModelNodeGroup, and two more: U and R.
LETTERS = {
    CellState.AVAILABLE: "A",
    CellState.DOWNLOADING: "D",
    CellState.WAITING: "P",
    CellState.UNREPORTED: "U",
    CellState.EVICTED: "E",
    CellState.FAILED: "F",
    CellState.NOT_READY: "N",
    CellState.REMOVING: "R",
}


class Mark(NamedTuple):
    """What the page shows of a cell. percent: None unless the model is being downloaded."""

    letter: str
    percent: int | None = None
    rate: int = 0
    eta: int = 0
    reason: str = ""


# By title of the model.
Marks = dict[str, Mark]
_GONE = Mark(NOTHING)
_NO_CACHE: Head = {"groups": [], "size": 0, "ready": False, "pinned": False}


class Board:
    """What the page shows now. It holds one snapshot and a mark for each cell."""

    def __init__(self) -> None:
        self.version = 0
        self._snapshot = Snapshot()
        self._groups: dict[str, Head] = {}
        self._models: dict[str, Head] = {}
        self._nodes: dict[str, Head] = {}
        self._marks: dict[str, Marks] = {}
        # How many nodes have a cell of a title: also copies whose cache is gone have a column.
        self._uses: Counter[str] = Counter()

    def advance(self, snapshot: Snapshot) -> Message | None:
        """Take over a newer snapshot. Returns what changed; None if the page shows nothing of it.

        Objects that did not change must be the same in both snapshots, not only equal: the others
        are computed anew. Whatever error an object causes, the board stays as it was.
        """
        changed, gone = _changed_nodes(self._snapshot, snapshot)
        part = matrix(replace(snapshot, local_model_nodes=tuple(changed)))
        marks = _marks_by_node(part.nodes, part.models, part.cells)
        differences = {
            node: difference
            for node, found in marks.items()
            if (difference := _difference(self._marks.get(node, {}), found))
        }
        group_heads = {meta.name(one): _group(one) for one in snapshot.groups}
        model_heads = {one.title: _model(one) for one in part.models}
        node_heads = {one.name: _node(one) for one in part.nodes}
        self._snapshot = snapshot
        for node, difference in differences.items():
            self._count(self._marks.get(node, {}), difference)
        self._marks.update(marks)
        for node in gone:
            self._uses.subtract(self._marks.pop(node, {}).keys())
        # Positive counts only, so that a title that no node has takes no memory.
        self._uses = +self._uses
        groups = _replace(self._groups, group_heads)
        models = _replace(self._models, dict.fromkeys(self._uses, _NO_CACHE) | model_heads)
        nodes = _update(self._nodes, node_heads, gone)
        if not (groups or models or nodes or differences):
            return None
        self.version += 1
        return _message(
            version=self.version, groups=groups, models=models, nodes=nodes, marks=differences
        )

    def full(self) -> Message:
        """All that the page shows."""
        found = _message(
            version=self.version,
            groups=self._groups,
            models=self._models,
            nodes=self._nodes,
            marks=self._marks,
            columns=list(self._models),
        )
        return found | {"full": True}

    def _count(self, before: Marks, difference: Marks) -> None:
        for title, mark in difference.items():
            if mark is _GONE:
                self._uses[title] -= 1
            elif title not in before:
                self._uses[title] += 1

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return self._snapshot


def _changed_nodes(before: Snapshot, now: Snapshot) -> tuple[list[KubeObject], list[str]]:
    """The LocalModelNodes to compute, and the names of those that are gone."""
    was, nodes = before.local_model_node_by_name, before.node_by_name
    changed = [
        one
        for name, one in now.local_model_node_by_name.items()
        if one is not was.get(name) or now.node_by_name.get(name) is not nodes.get(name)
    ]
    return changed, [name for name in was if name not in now.local_model_node_by_name]


def _marks_by_node(
    nodes: Iterable[NodeRow],
    models: Iterable[Model],
    cells: Mapping[tuple[str, str], Mapping[str, Cell]],
) -> dict[str, Marks]:
    found: dict[str, Marks] = {node.name: {} for node in nodes}
    titles = {model.cache: model.title for model in models}
    for (namespace, name), by_node in cells.items():
        title = titles.get((namespace, name), f"{namespace}/{name}" if namespace else name)
        for node, cell in by_node.items():
            found[node][title] = _mark(cell)
    return found


def _mark(cell: Cell) -> Mark:
    letter = LETTERS[cell.state]
    if cell.state is CellState.DOWNLOADING:
        return Mark(letter, cell.percent if cell.size else None, cell.rate, _unix(cell.eta))
    return Mark(letter, reason=cell.reason)


def _unix(time: str) -> int:
    then = moment(time)
    return int(then.timestamp()) if then else 0


def _difference(before: Marks, now: Marks) -> Marks:
    changed = {title: mark for title, mark in now.items() if before.get(title) != mark}
    return changed | {title: _GONE for title in before if title not in now}


def _replace(known: dict[str, Head], now: dict[str, Head]) -> dict[str, Head | None]:
    """Replace all heads. Returns the changed ones, and None for each that is gone."""
    gone = [name for name in known if name not in now]
    return _update(known, now, gone)


def _update(
    known: dict[str, Head], now: Mapping[str, Head], gone: Iterable[str]
) -> dict[str, Head | None]:
    changed: dict[str, Head | None] = {
        name: head for name, head in now.items() if known.get(name) != head
    }
    known.update(now)
    for name in gone:
        if known.pop(name, None) is not None:
            changed[name] = None
    return changed


def _group(group: KubeObject) -> Head:
    ready = condition_of(group, "Ready")
    return {
        "ready": ready.get("status") == "True",
        "reason": ready.get("reason") or "",
        "limit": bytes_of((group.get("spec") or {}).get("storageLimit")),
        "used": bytes_of((group.get("status") or {}).get("used")),
    }


def _model(model: Model) -> Head:
    return {
        "groups": list(model.groups),
        "size": model.size,
        "ready": model.ready == "True",
        "pinned": model.pinned,
    }


def _node(node: NodeRow) -> Head:
    return {
        "groups": sorted(node.groups),
        "ready": node.ready,
        "problem": node.problem.partition(":")[0],
        "disk": [node.capacity, node.used, node.free] if node.capacity else None,
    }


def _message(
    *,
    version: int,
    groups: Mapping[str, Head | None],
    models: Mapping[str, Head | None],
    nodes: Mapping[str, Head | None],
    marks: Mapping[str, Marks],
    columns: list[str] | None = None,
) -> Message:
    reasons: dict[str, int] = {}
    places: dict[str, int] = {}
    if columns is not None:
        places = {title: place for place, title in enumerate(columns)}
    cells: dict[str, tuple[str, list[int] | None, list[list[int | None]]]] = {}
    for node, row in marks.items():
        if columns is None:
            where = [places.setdefault(title, len(places)) for title in row]
            cells[node] = (_letters(row.values()), where, _extras(row.values(), reasons))
        else:
            every = [row.get(title, _GONE) for title in columns]
            cells[node] = (_letters(every), None, _extras(every, reasons))
    return {
        "version": version,
        "full": False,
        "groups": groups,
        "models": models,
        "nodes": nodes,
        "columns": list(places),
        "reasons": list(reasons),
        "cells": cells,
    }


def _letters(marks: Iterable[Mark]) -> str:
    return "".join(mark.letter for mark in marks)


def _extras(marks: Iterable[Mark], reasons: dict[str, int]) -> list[list[int | None]]:
    return [
        [
            place,
            mark.percent,
            mark.rate,
            mark.eta,
            reasons.setdefault(mark.reason, len(reasons)) if mark.reason else -1,
        ]
        for place, mark in enumerate(marks)
        if mark.percent is not None or mark.rate or mark.reason
    ]
