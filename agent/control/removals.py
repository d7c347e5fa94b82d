"""Copies that go: what is no longer wanted, and what is evicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from agent.control.accounts import eviction_message
from agent.control.node_events import display_names
from agent.structs.notes import Evicted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agent.capacity.admission import Victim
    from agent.capacity.ledger import Ledger
    from agent.control.background_reads import BackgroundReads
    from agent.control.node_events import NodeEvents
    from agent.control.owners import Owners
    from agent.disk.inventory import Inventory
    from agent.disk.store import Store
    from agent.structs.manifest import CacheName, Manifest
    from agent.structs.options import Options

# The wait after one that failed.
REMOVE_SECONDS = 30.0

log = structlog.get_logger(__name__)


class Removals:
    """Takes copies away, and tells so. Times are monotonic seconds."""

    def __init__(
        self,
        store: Store,
        inventory: Inventory,
        reading: BackgroundReads,
        *,
        owners: Owners,
        news: NodeEvents,
        options: Options,
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._background_reads = reading
        self._owners = owners
        self._node_events = news
        self._options = options
        # Until when a copy stays that could not be taken away.
        self.retry_at: dict[str, float] = {}

    def keep(self, keys: Collection[str]) -> None:
        """Forget what is not there any more, whoever took it."""
        self.retry_at = {key: at for key, at in self.retry_at.items() if key in keys}

    def remove(self, key: str, now: float) -> None:
        """Remove what is no longer wanted, with all that is noted of it."""
        self._background_reads.stop(key)
        try:
            self._store.remove(key)
        except OSError as error:
            self.retry_at[key] = now + REMOVE_SECONDS
            log.warning("Could not remove a model", key=key, reason=str(error))
        else:
            self.retry_at.pop(key, None)
            log.info("Removed a model", key=key)
        self._inventory.look_at(key)

    def set_aside(self, manifest: Manifest, now: float) -> None:
        """Take a copy out of models/ that nobody may have now; its files wait for who may."""
        key = manifest.key
        self._background_reads.stop(key)
        try:
            self._store.set_aside(manifest)
        except OSError as error:
            self.retry_at[key] = now + REMOVE_SECONDS
            log.warning("Could not set a model aside", key=key, reason=str(error))
        else:
            log.info("Set a copy aside that is not for those who ask for it", key=key)
        self._inventory.look_at(key)

    def evict(self, eviction: Victim, ledger: Ledger, now: float) -> None:
        """Evict a copy. `ledger` is what was decided by."""
        key, time, copy = eviction.key, self._options.now(), self._inventory.copy(eviction.key)
        names = self._owners.granted(key)
        message = eviction_message(
            eviction,
            ledger,
            size=copy.tree_bytes,
            now=time,
            newcomer=display_names(_tellable(self._owners.of(eviction.newcomer), names)),
            last_used=copy.usage.last_used_time if copy.usage else None,
        )
        note = Evicted(time=time, size=copy.tree_bytes, reason=eviction.reason, message=message)
        self._background_reads.stop(key)
        try:
            self._store.evict(key, note)
        except OSError as error:
            self.retry_at[key] = now + REMOVE_SECONDS
            log.warning("Could not evict a model wholly", key=key, reason=str(error))
        else:
            self.retry_at.pop(key, None)
        self._inventory.evicted(key, note)
        if self._inventory.copy(key).evicted is not None:
            log.info("Evicted a model", key=key, reason=note.reason.value, bytes=note.size)
            self._node_events.evicted(names, note)


def _tellable(newcomers: Iterable[CacheName], names: Iterable[CacheName]) -> list[CacheName]:
    """For whom room was made, as far as those may know whose copy went: no other namespace's."""
    namespaces = {name.namespace for name in names}
    return [one for one in newcomers if not one.namespace or {one.namespace} == namespaces]
