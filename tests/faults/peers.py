"""Part g: agents that exchange a model while peers lie or leave, and the origin goes away.

Stores, engines, servers and clients are the real ones, in one process; the origin is in memory.
"""

from __future__ import annotations

import random
import shutil
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.structs.causes import unreachable
from agent.structs.failures import DownloadError
from agent.structs.pieces import MIN_PIECE_BYTES
from tests.faults.forks import fork
from tests.faults.report import Row
from tests.unit.agent.helpers import tree
from tests.unit.agent.peers.group import KEY, group, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.peers.shelf import Opened
    from tests.unit.agent.memory import Memory
    from tests.unit.agent.peers.group import Group, Node

PART = "peers"
NODES = 3
# Each model takes more reads of the origin, which brings so many bytes at most.
READS, READ_BYTES = 12, 256 << 10


@dataclass
class Scene:
    """The nodes of one round. `happened` is set once the fault has occurred."""

    nodes: Group
    source: Memory
    chance: random.Random
    happened: threading.Event = field(default_factory=threading.Event)

    @property
    def first(self) -> Node:
        """The node whose copy the others ask for."""
        return self.nodes.nodes[0]

    def at_a_read(self, then: Callable[[], None]) -> None:
        """Do something at a random read of the origin."""
        left = self.chance.randrange(1, READS)

        def on_read(*_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                then()
                self.happened.set()

        self.source.on_read = on_read


def _damage(node: Node, chance: random.Random, keep: int | None = None) -> None:
    """Flip a byte of a published file or, with `keep`, cut the file to so many bytes."""
    path = node.store.path(KEY) / "a.bin"
    with path.open("r+b") as file:
        if keep is not None:
            file.truncate(keep)
            return
        at = chance.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def _gone(*_: object) -> None:
    raise unreachable(ConnectionError(), "the origin")


def _there(*_: object) -> None:
    """The origin answers."""


def _lying(scene: Scene) -> None:
    scene.first.download()
    _damage(scene.first, scene.chance)
    scene.happened.set()


def _truncated(scene: Scene) -> None:
    scene.first.download()
    _damage(scene.first, scene.chance, keep=scene.chance.randrange(MIN_PIECE_BYTES))
    scene.happened.set()


def _dying(scene: Scene) -> None:
    scene.first.download()
    shelf, server = scene.first.shelf, scene.first.server
    left, opened = scene.chance.randrange(1, 4), shelf.open

    def open_or_die(key: str, grant: str, digest: str) -> Opened | None:
        nonlocal left
        left -= 1
        if left == 0:
            # Not in the thread of a request, which the server may wait for.
            threading.Thread(target=server.close, daemon=True).start()
            scene.happened.set()
        return opened(key, grant, digest)

    shelf.open = open_or_die  # type: ignore[method-assign]


def _all_gone(scene: Scene) -> None:
    scene.at_a_read(lambda: scene.nodes.meet([]))


def _origin_gone(scene: Scene) -> None:
    scene.first.download()
    scene.source.on_open = _gone
    scene.happened.set()


def _both_gone(scene: Scene) -> None:
    nodes, source = scene.nodes, scene.source

    def leave() -> None:
        nodes.meet([])
        source.on_open = source.on_read = _gone

    scene.at_a_read(leave)
    with suppress(DownloadError):
        nodes.download()
    source.on_open = source.on_read = _there
    nodes.meet(nodes.nodes)


FAULTS = {
    "a peer sends wrong bytes": _lying,
    "a peer has less of a file than it says": _truncated,
    "a peer dies": _dying,
    "all peers leave": _all_gone,
    "the origin goes away, and a peer has the model": _origin_gone,
    "origin and peers go away, and come back": _both_gone,
}


def run(work: Path, seed: int, seconds: float) -> list[Row]:
    """Run rounds of all faults until the time is over."""
    rows = {name: Row(PART, name) for name in FAULTS}
    child = fork(lambda send: _rounds(work, seed, seconds, send))
    try:
        while (messages := child.receive()) is not None:
            for name, problems, lost in messages:
                rows[name].take(problems, lost)
                sys.stderr.write(f"{PART}: {name}\n")
        child.receive_all(1)
    finally:
        child.end()
    if child.status:
        raise RuntimeError(f"{PART} failed with {child.status}: see above")
    return list(rows.values())


def _rounds(work: Path, seed: int, seconds: float, send: Callable[[object], None]) -> None:
    chance, deadline, number = random.Random(seed), time.monotonic() + seconds, 0
    while number == 0 or time.monotonic() < deadline:
        number += 1
        for name, fault in FAULTS.items():
            files = {
                "a.bin": chance.randbytes(chance.randrange(MIN_PIECE_BYTES, 3 * MIN_PIECE_BYTES)),
                "config.json": b"{}",
            }
            send([name, *_round(work / "nodes", files, fault, chance)])


def _round(
    folder: Path,
    files: Mapping[str, bytes],
    fault: Callable[[Scene], None],
    chance: random.Random,
) -> tuple[list[str], int]:
    """Inject a fault. Returns the problems, and the bytes of models that are wrong or missing."""
    source, problems, lost = origin(files, piece=READ_BYTES), [], 0
    with group(folder, source, NODES) as nodes:
        scene = Scene(nodes, source, chance)
        fault(scene)
        # The first node may have a copy that the harness has damaged.
        nodes.nodes = nodes.nodes[1:]
        try:
            nodes.download()
        except DownloadError as error:
            problems.append(error.message)
        if not scene.happened.is_set():
            problems.append("the fault did not occur")
        for node in nodes.nodes:
            if tree(node.store, KEY) != files:
                problems.append(f"{node.name} has not the model")
                lost += sum(map(len, files.values()))
    shutil.rmtree(folder)
    return problems, lost
