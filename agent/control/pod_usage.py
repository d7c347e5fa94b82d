"""Which models the pods of the node use, and when they last did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from agent.cluster.pod_mounts import PodMounts, PodUse, users
from agent.disk.on_disk import Found

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from agent.disk.inventory import Inventory
    from agent.structs.manifest import CacheName

# How often it is noted that a model is in use.
NOTE_SECONDS = 60.0

Names = dict[str, tuple["CacheName", ...]]


class PodSource(Protocol):
    """The pods of the node. See agent.cluster.pod_watch."""

    def watch(
        self,
        observe: Callable[[tuple[PodMounts, ...] | None], None],
        stopped: threading.Event,
    ) -> None:
        """Call `observe` with the pods after each change until stopped. It raises nothing."""
        ...

    def read(self) -> tuple[PodMounts, ...] | None:
        """The pods as they are now; None: nobody can know. Raises ApiUnavailableError."""
        ...


class PodUsage:
    """The models that pods use. Until the first pods are observed, each model may be in use."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._pods: tuple[PodMounts, ...] | None = None
        # The last answer, and the owners that it was made for: one for each row.
        self._names: Names = {}
        self._users: Mapping[str, tuple[PodUse, ...]] | None = None
        self._used: frozenset[str] = frozenset()

    def observe(self, pods: tuple[PodMounts, ...] | None) -> None:
        """Take in the pods as they are now; None: nobody knows."""
        if pods != self._pods:
            self._pods, self._users = pods, None

    @property
    def mounts_claims(self) -> bool:
        """Whether a pod mounts any claim as a whole, as far as is known."""
        return self._pods is None or any(pod.claims for pod in self._pods)

    def by_key(self, names: Names) -> Mapping[str, tuple[PodUse, ...]] | None:
        """The pods that use each key, by the owners of the keys; None: nobody knows."""
        if self._pods is None:
            return None
        if self._users is None or names != self._names:
            self._names, self._users = names, users(self._pods, names)
        return self._users

    def note(self, used: Collection[str], now: datetime) -> None:
        """Note on the disk that these keys are used: each minute, and when the last pod goes."""
        for key in {*used, *self._used}:
            copy = self._inventory.copy(key)
            if copy.found is not Found.PUBLISHED or copy.usage is None:
                continue
            last = copy.usage.last_used_time
            recent = last is not None and 0 <= (now - last).total_seconds() < NOTE_SECONDS
            if key in used and recent:
                continue
            noted = replace(copy.usage, last_used_time=now)
            if noted != copy.usage:
                self._inventory.note_usage(key, noted)
        self._used = frozenset(used)
