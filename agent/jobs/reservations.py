"""The room of the disk that running downloads have, so that together they never take too much."""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING

from localmodel.agent.capacity.ledger import Ledger, Taken

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from localmodel.agent.capacity.ledger import Holding
    from localmodel.agent.structs.requests import Request


class Coming(Enum):
    """What a download brings: a model, what a folder to be adopted lacks, or a copy's bad files."""

    MODEL = "model"
    REST = "rest"
    REPAIR = "repair"


class NoRoomError(Exception):
    """A model is larger than was reserved for it, and does not fit."""


class Reservations:
    """What running downloads may take, in bytes. Calls may come from any thread.

    The loop decides by what it knows, and a download may learn its model's size meanwhile: so each
    start and each growth is looked at once more here, one after the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ledger = Ledger()
        # What is reserved more than the ledger says.
        self._since = Taken()
        self._reserved: dict[str, int] = {}
        # For what room is being made, which nothing less important may take.
        self._held = ""
        # The sizes that sources reported, by key: see `learned`. Bounded by the requests: `retain`.
        self._learned: dict[str, Mapping[tuple[int, Coming], int]] = {}

    @property
    def reserved(self) -> dict[str, int]:
        """Bytes that each running download has, by key."""
        with self._lock:
            return dict(self._reserved)

    @property
    def learned(self) -> dict[str, Mapping[tuple[int, Coming], int]]:
        """Bytes that sources reported to downloads, by key; then by declared size and what comes.

        Another declaration is another guess, and a rest is not the whole.
        """
        with self._lock:
            return dict(self._learned)

    def retain(self, requests: Mapping[str, Request]) -> None:
        """Forget the sizes of all other models, and of other declarations."""
        with self._lock:
            for key, sizes in list(self._learned.items()):
                declared = requests[key].size if key in requests else None
                left = {known: size for known, size in sizes.items() if known[0] == declared}
                if not left:
                    del self._learned[key]
                elif len(left) < len(sizes):
                    self._learned[key] = left

    def see(self, ledger: Ledger) -> None:
        """Decide by this from now on."""
        with self._lock:
            self._ledger, self._since = ledger, Taken()
            for key, holding in ledger.holdings.items():
                if holding.reserved != self._reserved.get(key, 0):
                    self._since.change(holding, self._holding(key))

    def hold(self, key: str | None) -> None:
        """Room is being made for a download: what it takes is not for others that grow."""
        with self._lock:
            self._held = key or ""

    def ask(self, key: str) -> None:
        """A download starts for which there is no room, to hear what its source tells."""
        with self._lock:
            self._reserve(key, 0)

    def start(self, key: str) -> bool:
        """Reserve room for a download; False if there is none any more."""
        with self._lock:
            if self._lacks(key):
                return False
            self._reserve(key, self._ledger.holding(key).size)
            return True

    def grow(self, request: Request, size: int, coming: Coming) -> None:
        """Reserve what a download really takes.

        Raises NoRoomError if that is more than there is.
        """
        key = request.key
        with self._lock:
            if coming is not Coming.REPAIR:
                self._learned[key] = {**self._learned.get(key, {}), (request.size, coming): size}
            grows = size > self._reserved.get(key, 0)
            if grows and self._lacks(key, size, [self._since, self._held_from(key)]):
                raise NoRoomError
            self._reserve(key, size)

    def end(self, key: str) -> None:
        """A download has ended."""
        with self._lock:
            self._reserve(key, 0)
            del self._reserved[key]

    def _holding(self, key: str) -> Holding:
        """What is known of a key, with what it has reserved by now."""
        return self._ledger.holding(key).reserving(self._reserved.get(key, 0))

    def _held_from(self, key: str) -> Taken:
        """The room that is being made for what is at least as important as this."""
        found, held = Taken(), self._ledger.holding(self._held)
        waits = self._held not in self._reserved and self._held != key
        if waits and held.priority >= self._ledger.holding(key).priority:
            found.change(held, held.reserving())
        return found

    def _lacks(
        self, key: str, size: int | None = None, beside: Collection[Taken] | None = None
    ) -> bool:
        if not self._ledger.is_gated(key):
            return False
        beside = [self._since] if beside is None else beside
        return self._ledger.shortage_of(self._holding(key), size, beside) is not None

    def _reserve(self, key: str, size: int) -> None:
        before = self._holding(key)
        self._reserved[key] = size
        self._since.change(before, self._holding(key))
