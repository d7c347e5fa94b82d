"""Reserves room on the disk for running downloads, so that together they never take too much."""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING

from agent.capacity.ledger import Ledger, Taken

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agent.capacity.models import Model
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
        # The sizes that sources reported, by key, declared size and kind: a new declaration is used
        # until a source reports a size again. At most three for each request: `keep` drops all
        # others in each step.
        self._learned: dict[tuple[str, int, Coming], int] = {}

    @property
    def reserved(self) -> dict[str, int]:
        """The reserved bytes of each running download."""
        with self._lock:
            return dict(self._reserved)

    def learned(self, key: str, declared: int, *, beside: bool) -> int | None:
        """The size that the source reported of a model; with `beside`, of what a folder lacks."""
        with self._lock:
            return self._learned.get((key, declared, Coming.REST if beside else Coming.MODEL))

    def keep(self, requests: Mapping[str, Request]) -> None:
        """Forget the sizes of all other keys and declarations."""
        asked = {(key, request.size) for key, request in requests.items()}
        with self._lock:
            self._learned = {
                known: size for known, size in self._learned.items() if known[:2] in asked
            }

    def see(self, ledger: Ledger) -> None:
        """Use this ledger from now on."""
        with self._lock:
            self._ledger, self._since = ledger, Taken()
            for key, model in ledger.models.items():
                if model.reserved != self._reserved.get(key, 0):
                    self._since.change(model, self._model(key))

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
            self._reserve(key, self._ledger.model(key).size)
            return True

    def grow(self, request: Request, size: int, coming: Coming) -> None:
        """Reserve the real size of a running download.

        Raises NoRoomError if there is not enough room.
        """
        key = request.key
        with self._lock:
            if coming is not Coming.REPAIR:
                self._learned[key, request.size, coming] = size
            grows = size > self._reserved.get(key, 0)
            if grows and self._lacks(key, size, [self._since, self._held_from(key)]):
                raise NoRoomError
            self._reserve(key, size)

    def end(self, key: str) -> None:
        """Release the reservation of a download that has ended."""
        with self._lock:
            self._reserve(key, 0)
            del self._reserved[key]

    def _model(self, key: str) -> Model:
        """The model of a key, with its present reservation."""
        return self._ledger.model(key).reserving(self._reserved.get(key, 0))

    def _held_from(self, key: str) -> Taken:
        """The room that is held for a download at least as important as this one."""
        found, held = Taken(), self._ledger.model(self._held)
        waits = self._held not in self._reserved and self._held != key
        if waits and held.priority >= self._ledger.model(key).priority:
            found.change(held, held.reserving())
        return found

    def _lacks(
        self, key: str, size: int | None = None, beside: Collection[Taken] | None = None
    ) -> bool:
        if not self._ledger.is_gated(key):
            return False
        beside = [self._since] if beside is None else beside
        return self._ledger.shortage_of(self._model(key), size, beside) is not None

    def _reserve(self, key: str, size: int) -> None:
        before = self._model(key)
        self._reserved[key] = size
        self._since.change(before, self._model(key))
