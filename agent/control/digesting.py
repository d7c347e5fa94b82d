"""Digests of published copies that were left for later, and what becomes of them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agent.disk.inventory import Inventory
    from agent.jobs.workers import Digested, Workers
    from agent.structs.records import BadFile


class Digesting:
    """Has the digests computed of published copies that have none yet.

    `note_bad` is called with a key and the bad files that were found instead.
    """

    def __init__(
        self,
        workers: Workers,
        inventory: Inventory,
        note_bad: Callable[[str, tuple[BadFile, ...]], None],
    ) -> None:
        self._workers = workers
        self._inventory = inventory
        self._note_bad = note_bad
        # What stops each computation that is under way; None: it failed. `retain` bounds them.
        self._running: dict[str, threading.Event | None] = {}

    def begin(self) -> None:
        """Start to compute the digests that are missing."""
        for key, _, manifest in self._inventory.published():
            if manifest.hash is None and key not in self._running:
                stopped = self._running[key] = threading.Event()
                self._workers.digest(manifest, stopped)

    def observe(self, end: Digested) -> None:
        """Take in computed digests."""
        copy = self._inventory.copy(end.key)
        if self._running.get(end.key) is not end.stopped or copy.manifest is None:
            # Of a copy that has gone, or was replaced by another one.
            return
        if end.manifest is None:
            # The computation is tried again after the next look at the disk.
            self._running[end.key] = None
            if end.bad:
                self._note_bad(end.key, end.bad)
            return
        del self._running[end.key]
        noted = replace(copy.manifest, files=end.manifest.files, hash=end.manifest.hash)
        self._inventory.rewrite(end.key, noted)

    def stop(self, key: str) -> None:
        """Stop the computation for a copy that goes."""
        stopped = self._running.pop(key, None)
        if stopped is not None:
            stopped.set()

    def retain(self, keys: Collection[str]) -> None:
        """Stop all computations for other copies, and let failed ones be tried again."""
        for key, stopped in list(self._running.items()):
            if stopped is None or key not in keys:
                self.stop(key)
