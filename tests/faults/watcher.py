"""Checks all disks of a cluster continuously, in a separate process."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tests.faults.disk import Disk
from tests.faults.forks import Fork, fork

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.faults.disk import Model

LOOK_SECONDS = 0.05

# Name, inode, size and time of all files below a folder.
_Mark = tuple[tuple[str, int, int, int], ...]


def watch(nodes: Path, models: Sequence[Model]) -> Fork:
    """Send each loss on the disks of these nodes once, until the process is killed."""
    return fork(lambda send: _watch(nodes, models, send))


def _watch(nodes: Path, models: Sequence[Model], send: Callable[[object], None]) -> None:
    watcher = Watcher(nodes, models)
    while True:
        for what, size in watcher.look().items():
            send({"lost": size, "what": what})
        time.sleep(LOOK_SECONDS)


class Watcher:
    """Checks disks, and remembers the losses that were reported."""

    def __init__(self, nodes: Path, models: Sequence[Model]) -> None:
        self._nodes, self._models = nodes, models
        self._known: dict[Path, _Mark] = {}
        self._told: set[str] = set()

    def look(self) -> dict[str, int]:
        """The new losses, each with the bytes that are lost."""
        found = {
            f"{disk.name}: {loss}": loss.size
            for disk in self._nodes.glob("*")
            if not _is_as_before(disk / "models", self._known)
            for loss in Disk(disk, self._models).losses()
            if f"{disk.name}: {loss}" not in self._told
        }
        self._told |= found.keys()
        return found


def _is_as_before(folder: Path, known: dict[Path, _Mark]) -> bool:
    """Whether nothing below a folder has changed since the last check."""
    try:
        now = tuple(_stats(folder))
    except OSError:
        return False
    before, known[folder] = known.get(folder), now
    return before == now


def _stats(folder: Path) -> list[tuple[str, int, int, int]]:
    found = []
    for root, _, names in os.walk(folder):
        for name in (".", *names):
            stat = os.lstat(os.path.join(root, name))  # noqa: PTH118 - called continuously
            found.append((f"{root}/{name}", stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return found
