"""Which models the pods of the node use, and when they last did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.cluster.pods import PodMounts, users
from agent.disk.on_disk import Found
from agent.structs.notes import Usage

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from agent.disk.inventory import Inventory
    from agent.structs.manifest import CacheName

# How often it is noted that a model is in use.
NOTE_SECONDS = 60.0


class PodSource(Protocol):
    """Tells the pods of the node. See agent.cluster.pod_watch."""

    def watch(
        self,
        observe: Callable[[tuple[PodMounts, ...] | None], None],
        stopped: threading.Event,
    ) -> None:
        """Call `observe` with them after each change until stopped. It raises nothing."""
        ...

    def read(self) -> tuple[PodMounts, ...] | None:
        """They are these now; None: nobody can know. Raises ApiUnavailableError."""
        ...


class PodUsage:
    """What pods use. Until the first ones are seen, each model may be in use."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._pods: tuple[PodMounts, ...] | None = None
        self._used: frozenset[str] = frozenset()

    def see(self, pods: tuple[PodMounts, ...] | None) -> None:
        """These are the pods now; None: nobody knows."""
        self._pods = pods

    def by_key(
        self, caches: Mapping[str, Iterable[CacheName]]
    ) -> dict[str, tuple[PodMounts, ...]] | None:
        """The pods that use each key, by whose the keys are; None: nobody knows."""
        return None if self._pods is None else users(self._pods, caches)

    def note(self, used: frozenset[str] | None, now: datetime) -> None:
        """Note when these were used last: now, at most each minute, and when the last pod goes."""
        if used is None:
            return
        for key in used | self._used:
            copy = self._inventory.copy(key)
            if copy.found is not Found.PUBLISHED or copy.usage is None:
                continue
            last = copy.usage.last_used_time
            recent = last is not None and 0 <= (now - last).total_seconds() < NOTE_SECONDS
            if key in used and recent:
                continue
            noted = Usage(published_time=copy.usage.published_time, last_used_time=now)
            if noted != copy.usage:
                self._inventory.note_usage(key, noted)
        self._used = used
