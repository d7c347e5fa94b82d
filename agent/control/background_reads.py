"""Reads of published copies beside the loop: digests that are due, and scrubs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.control.digesting import Digesting
from agent.control.scrubbing import Scrubbing
from agent.jobs.workers import Digested

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from agent.disk.inventory import Inventory
    from agent.jobs.workers import Scrubbed, Workers
    from agent.structs.options import Options


class BackgroundReads:
    """Both kinds of reads. `damaged` is called with the key of a damaged copy, and the problem."""

    def __init__(
        self,
        workers: Workers,
        inventory: Inventory,
        options: Options,
        damaged: Callable[[str, str], None],
    ) -> None:
        self._scrubbing = Scrubbing(workers, inventory, options, damaged)
        self._digesting = Digesting(workers, inventory, self._scrubbing.note)

    def begin(self, busy: Collection[str], asked: Mapping[str, datetime]) -> None:
        """Start the reads that are due. Downloads work on the `busy` keys.

        `asked` is when the verification of a copy was requested, by key.
        """
        self._digesting.begin()
        self._scrubbing.begin(busy, asked)

    def observe(self, end: Digested | Scrubbed) -> None:
        """Take in the result of a read."""
        if isinstance(end, Digested):
            self._digesting.observe(end)
        else:
            self._scrubbing.observe(end)

    def stop(self, key: str) -> None:
        """Stop reading a copy that goes."""
        self._digesting.stop(key)
        self._scrubbing.stop(key)

    def retain(self, keys: Collection[str]) -> None:
        """Stop reading all other copies."""
        self._digesting.retain(keys)
        self._scrubbing.retain(keys)
