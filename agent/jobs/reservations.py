"""Reserves room on the disk for running downloads, so that together they never take too much."""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING

from agent.capacity.ledger import Ledger, Taken

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agent.capacity.holdings import Holding
    from agent.structs.requests import Request


class Coming(Enum):
    """What a download fetches: a model, the files that an adopted folder lacks, or bad files."""

    MODEL = "model"
    REST = "rest"
    REPAIR = "repair"


class NoRoomError(Exception):
    """A model is larger than its reservation, and does not fit."""


class Reservations:
    """The bytes that are reserved for running downloads. Methods may be called from any thread.

    The loop decides by a ledger of its last step, and downloads learn their models' real sizes
    meanwhile: so each start and each growth is checked once more here, one after the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ledger = Ledger()
        # The difference between the reservations and those in the ledger.
        self._since = Taken()
        # By key, only of running downloads.
        self._reserved: dict[str, int] = {}
        # The key for which room is being made: less important downloads may not take that room.
        self._held = ""
        # The sizes that sources reported, by key: see `learned`. Bounded by the requests: `retain`.
        self._learned: dict[str, Mapping[tuple[int, Coming], int]] = {}

    @property
    def reserved(self) -> dict[str, int]:
        """The reserved bytes of each running download, by key."""
        with self._lock:
            return dict(self._reserved)

    @property
    def learned(self) -> dict[str, Mapping[tuple[int, Coming], int]]:
        """The sizes that sources reported, by key; then by declared size and kind of download.

        A new declaration is used until a source reports a size again.
        """
        with self._lock:
            return dict(self._learned)

    def retain(self, requests: Mapping[str, Request]) -> None:
        """Forget the sizes of all other keys and declarations."""
        with self._lock:
            for key, sizes in list(self._learned.items()):
                declared = requests[key].size if key in requests else None
                left = {known: size for known, size in sizes.items() if known[0] == declared}
                if not left:
                    del self._learned[key]
                elif len(left) < len(sizes):
                    self._learned[key] = left

    def see(self, ledger: Ledger) -> None:
        """Use this ledger from now on."""
        with self._lock:
            self._ledger, self._since = ledger, Taken()
            for key, holding in ledger.holdings.items():
                if holding.reserved != self._reserved.get(key, 0):
                    self._since.change(holding, self._holding(key))

    def hold(self, key: str | None) -> None:
        """Hold the room that is being made for a download; None: for no download."""
        with self._lock:
            self._held = key or ""

    def ask(self, key: str) -> None:
        """Register a download without room, which starts to ask its source for the size."""
        with self._lock:
            self._reserve(key, 0)

    def start(self, key: str) -> bool:
        """Reserve room for a download that starts; False if there is no room any more."""
        with self._lock:
            if self._lacks(key):
                return False
            self._reserve(key, self._ledger.holding(key).size)
            return True

    def grow(self, request: Request, size: int, coming: Coming) -> None:
        """Reserve the real size of a running download.

        Raises NoRoomError if there is not enough room.
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
        """Release the reservation of a download that has ended."""
        with self._lock:
            self._reserve(key, 0)
            del self._reserved[key]

    def _holding(self, key: str) -> Holding:
        """The holding of a key, with its present reservation."""
        return self._ledger.holding(key).reserving(self._reserved.get(key, 0))

    def _held_from(self, key: str) -> Taken:
        """The room that is held for a download at least as important as this one."""
        found, held = Taken(), self._ledger.holding(self._held)
        waits = self._held not in self._reserved and self._held != key
        other = self._ledger.holding(key)
        if waits and held.has_room_before(other):
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
