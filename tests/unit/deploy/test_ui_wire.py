"""The messages of the plugin's page: what changed, and never more than that."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from deploy.kubectl.cells import matrix
from deploy.kubectl.snapshot import Snapshot, snapshot_of
from deploy.kubectl.ui import wire
from deploy.kubectl.ui.wire import Board
from tests.unit.deploy.ui_objects import (
    MODELS,
    cache,
    cluster,
    local_model_node,
    node,
    report,
)

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.ui.wire import Message

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Objects = dict[str, list["KubeObject"]]


def snapshot(objects: Objects) -> Snapshot:
    return snapshot_of(objects, at=NOW)


class Page:
    """Applies messages as store.js does."""

    def __init__(self) -> None:
        self.heads: dict[str, dict[str, Any]] = {"groups": {}, "models": {}, "nodes": {}}
        self.cells: dict[str, dict[str, list[Any]]] = {}

    def apply(self, message: Message | None) -> Page:
        if message is None:
            return self
        message = json.loads(json.dumps(message))
        if message["full"]:
            self.__init__()  # type: ignore[misc]
        for part, known in self.heads.items():
            known.update(message[part])
            for name in [name for name, head in known.items() if head is None]:
                del known[name]
        for name, (letters, places, extras) in message["cells"].items():
            row = self.cells.setdefault(name, {})
            titles = [message["columns"][n] for n in (places or range(len(letters)))]
            row |= {title: [letter] for title, letter in zip(titles, letters, strict=True)}
            for place, percent, rate, eta, reason in extras:
                text = "" if reason < 0 else message["reasons"][reason]
                row[titles[place]] += [percent, rate, eta, text]
        self.cells = {name: row for name, row in self.cells.items() if name in self.heads["nodes"]}
        return self

    def shown(self) -> Any:
        rows = {
            name: {title: cell for title, cell in row.items() if cell != ["."]}
            for name, row in self.cells.items()
        }
        return [self.heads, {name: row for name, row in rows.items() if row}]


def test_the_first_message_has_all_cells() -> None:
    objects = cluster(2)
    downloading = report("qwen", "Downloading", downloadedBytes=420, bytesPerSecond=10)
    failed = report("mistral", "Failed", reason="DiskFull", message="no room")
    objects["LocalModelNode"][1] = local_model_node("node-2", report("llama"), failed, downloading)
    objects["Node"][0] = node("node-1", ready=False)
    board = Board()
    board.advance(snapshot(objects))
    found = board.full()
    assert found["columns"] == ["llama", "mistral", "qwen"]
    assert found["cells"]["node-1"][0] == "NNN"
    letters, places, extras = found["cells"]["node-2"]
    end = int(NOW.timestamp()) + 58
    assert (letters, places) == ("AFD", None)
    assert extras == [[1, None, 0, 0, 0], [2, 42, 10, end, -1]]
    assert found["reasons"] == ["DiskFull"]
    assert found["nodes"]["node-1"]["ready"] is False
    assert found["nodes"]["node-2"]["disk"] == [100 << 30, 40 << 30, 60 << 30]


def test_a_message_has_what_changed() -> None:
    objects = cluster(50)
    board = Board()
    board.advance(snapshot(objects))
    whole = len(json.dumps(board.full()))
    changed = local_model_node(
        "node-7", report("llama"), report("mistral", "Failed", reason="DiskFull"), report("qwen")
    )
    objects["LocalModelNode"][6] = changed
    message = board.advance(snapshot(objects))
    assert message is not None
    assert message["cells"] == {"node-7": ("F", [0], [[0, None, 0, 0, 0]])}
    assert message["columns"] == ["mistral"]
    assert not message["models"]
    assert not message["nodes"]
    assert len(json.dumps(message)) < whole / 20
    # Another object with the same content changes nothing.
    objects["LocalModelNode"][6] = json.loads(json.dumps(changed))
    assert board.advance(snapshot(objects)) is None


def test_only_nodes_that_changed_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = cluster(20)
    board = Board()
    board.advance(snapshot(objects))
    seen: list[int] = []

    def counted(part: Snapshot) -> Any:
        seen.append(len(part.local_model_nodes))
        return matrix(part)

    monkeypatch.setattr(wire, "matrix", counted)
    objects["LocalModelNode"][3] = local_model_node("node-4", report("llama", "Failed"))
    objects["Node"][8] = node("node-9", ready=False)
    message = board.advance(snapshot(objects))
    assert seen == [2]
    assert message is not None
    assert set(message["cells"]) == {"node-4", "node-9"}


def test_a_node_and_a_cache_go() -> None:
    objects = cluster(2)
    board = Board()
    page = Page()
    board.advance(snapshot(objects))
    page.apply(board.full())
    # The copies are still there, and being removed: the model keeps its column.
    del objects["LocalModelCache"][2]
    for number in (0, 1):
        found = local_model_node(f"node-{number + 1}", *map(report, MODELS[:2]))
        found["status"]["models"].append(report("qwen", "Removing"))
        objects["LocalModelNode"][number] = found
    page.apply(board.advance(snapshot(objects)))
    assert page.cells["node-1"]["qwen"] == ["R"]
    assert page.heads["models"]["qwen"]["groups"] == []
    del objects["LocalModelNode"][0]
    objects["LocalModelNode"][0] = local_model_node("node-2", *map(report, MODELS[:2]))
    message = board.advance(snapshot(objects))
    assert message is not None
    assert message["models"] == {"qwen": None}
    assert message["nodes"] == {"node-1": None}
    assert page.apply(message).shown() == Page().apply(board.full()).shown()


@pytest.mark.parametrize("seed", range(8))
def test_changes_lead_to_the_same_page_as_the_whole(seed: int) -> None:
    random = Random(seed)
    board, page = Board(), Page()
    objects: Objects = {"LocalModelCache": [], "LocalModelNode": [], "Node": []}
    page.apply(board.full())
    states = ("Downloaded", "Downloading", "Failed", "Evicted", "Removing", "Pending")
    for _ in range(60):
        kind = random.choice(["LocalModelCache", "LocalModelNode", "Node"])
        number = random.randrange(6)
        if kind == "LocalModelCache":
            made = cache(f"model-{number}")
        elif kind == "Node":
            made = node(f"node-{number}", ready=random.random() < 0.7)
        else:
            reports = [
                report(
                    f"model-{one}",
                    random.choice(states),
                    downloadedBytes=random.randrange(1000),
                    reason=random.choice(["", "DiskFull", "AwaitingTurn"]),
                )
                for one in range(6)
                if random.random() < 0.6
            ]
            made = local_model_node(f"node-{number}", *reports)
        name = made["metadata"]["name"]
        rest = [one for one in objects[kind] if one["metadata"]["name"] != name]
        objects[kind] = rest if random.random() < 0.3 else [*rest, made]
        page.apply(board.advance(snapshot(objects)))
        assert page.shown() == Page().apply(board.full()).shown()
