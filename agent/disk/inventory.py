"""The state of the disk in memory: copies, foreign folders, and how full the disk is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec.structs

from agent.disk.on_disk import Disk, Found, OnDisk
from agent.structs.log import log
from agent.structs.records import Scrub, Usage
from agent.structs.sizes import Space, in_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

    from agent.disk.store import Store
    from agent.structs.adoption import Adopted
    from agent.structs.manifest import Manifest
    from agent.structs.records import Evicted


class Inventory:
    """The disk as of its last scan. Keys with a running download are not scanned.

    Bounded by the keys on the disk, and those that were evicted from it and are still wanted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.copies: dict[str, OnDisk] = {}
        self.foreign: tuple[str, ...] = ()
        # The keys whose volumes have a folder here.
        self.folders: set[str] = set()
        self.disk = Disk(0, 0, 0)
        self.measure()
        # Measured together with the copies, and not after each step: a file system may free the
        # space of deleted files later, and nothing more must be evicted meanwhile.
        self.space = Space(self.disk.capacity, self.disk.capacity, 0)

    def copy(self, key: str) -> OnDisk:
        """The copy of a key; an empty one if nothing is on the disk."""
        return self.copies.get(key, OnDisk())

    def published(self) -> Iterator[tuple[str, OnDisk, Manifest]]:
        """The keys of the whole published copies, with copy and manifest."""
        for key, copy in list(self.copies.items()):
            if copy.found is Found.PUBLISHED and copy.manifest is not None:
                yield key, copy, copy.manifest

    def rescan(self, active: Collection[str]) -> None:
        """Scan the whole disk. The `active` keys have running downloads. Raises OSError."""
        # Before the files: what is written meanwhile must not count as other programs' data.
        self.disk = self._store.disk()
        copies, foreign = self._store.scan()
        self.folders = self._store.views.folders()
        before = self.copies
        noted = {key for key, copy in before.items() if copy.evicted is not None}
        self.copies = {
            key: _best_known(copies.get(key, OnDisk()), before.get(key))
            for key in (copies.keys() | noted).difference(active)
        }
        for key in active:
            copy = before.get(key, OnDisk())
            staged = max(0, self._store.download_bytes(key) - copy.tree_bytes)
            self.copies[key] = replace(copy, staged_bytes=staged)
        # A model that is being published may look like a foreign folder for a moment.
        theirs = frozenset(self.foreign)
        self.foreign = tuple(n for n in foreign if n not in active or n in theirs)
        ours = sum(copy.tree_bytes + copy.staged_bytes for copy in self.copies.values())
        kubelet = self.disk.kubelet
        self.space = Space(
            capacity=self.disk.capacity,
            writable=self.disk.used + self.disk.available,
            others=max(0, self.disk.used - ours),
            kubelet=kubelet.mark if kubelet else None,
            kubelet_acts=kubelet.acts if kubelet else None,
        )
        for key, copy in copies.items():
            if copy.is_unreadable:
                log.warning("Model cannot be read now", key=key, problem=copy.problem)
            elif copy.found is Found.DAMAGED and before.get(key) != copy:
                log.warning("Published model is damaged", key=key, problem=copy.problem)

    def make_folders(self, keys: Iterable[str]) -> None:
        """Make the folders of these keys' volumes; what fails is tried again after a scan."""
        views = self._store.views
        new = [key for key in keys if key not in self.folders] if views.makes else []
        self.folders.update(new)
        for key in new:
            try:
                self._store.check_place()
                views.make_folder(key)
            except OSError as error:
                log.warning("Could not make the folder of a volume", key=key, reason=str(error))

    def delete_folder(self, key: str) -> None:
        """Delete the folder of a key's volume. Raises OSError."""
        self._store.check_place()
        self._store.views.delete_folder(key)
        self.folders.discard(key)

    def look_at(self, key: str) -> OnDisk:
        """Scan one key, and measure how full the disk is."""
        copy = self.copies[key] = self._store.inspect(key)
        self.measure()
        return copy

    def measure(self) -> None:
        """Measure how full the disk is."""
        # An error is reported by the next scan of the whole disk.
        with suppress(OSError):
            self.disk = self._store.disk()

    def adopted_now(self, key: str, now: datetime, adopted: Adopted) -> OnDisk:
        """Record a folder that was adopted. Before, it counted as data of other programs."""
        was_theirs = key in self.foreign
        copy = self.published_now(key, now)
        if was_theirs:
            theirs = max(0, copy.tree_bytes - in_blocks(adopted.added))
            self.space = replace(self.space, others=max(0, self.space.others - theirs))
        return copy

    def published_now(self, key: str, now: datetime, seconds: int | None = None) -> OnDisk:
        """Record a new or repaired copy. The time of the last use is that of the former copy.

        A repaired copy is as old as before: what was requested of it since is still to be done.
        seconds: how long its download took; None: it was not downloaded whole.
        """
        former = self.copy(key)
        self.foreign = tuple(name for name in self.foreign if name != key)
        copy = self.look_at(key)
        if copy.found is Found.PUBLISHED:
            is_repaired = _is_repaired(former, copy)
            usage = former.usage or copy.usage or Usage(published_time=now)
            if not is_repaired:
                usage = msgspec.structs.replace(usage, published_time=now)
            if seconds is not None:
                usage = msgspec.structs.replace(usage, download_seconds=seconds)
            self.note_usage(key, usage)
            if is_repaired and former.scrub is not None:
                # The last scrub has compared the good files, and the repair the others.
                self.note_scrub(key, Scrub(time=former.scrub.time))
        return self.copies[key]

    def evicted(self, key: str, note: Evicted) -> None:
        """Record that a copy was evicted, also if the note could not be written to the disk."""
        former = self.copy(key).usage
        copy = self.look_at(key)
        if not copy.is_published and not copy.is_unreadable:
            self.copies[key] = replace(copy, evicted=note, usage=former)

    def note_usage(self, key: str, usage: Usage) -> None:
        """Record the use of a copy, also on the disk."""
        self.copies[key] = replace(self.copies[key], usage=usage)
        try:
            self._store.note_usage(key, usage)
        except OSError as error:
            log.warning("Could not note the use of a model", key=key, reason=str(error))

    def note_scrub(self, key: str, scrub: Scrub) -> None:
        """Record the scrub result of a copy, also on the disk."""
        copy = replace(self.copies[key], scrub=scrub)
        if scrub.bad:
            first = scrub.bad[0]
            problem = f"{self._store.path(key) / first.path} {first.problem}"
            copy = replace(copy, found=Found.DAMAGED, problem=problem, bad_files=len(scrub.bad))
        self.copies[key] = copy
        try:
            self._store.note_scrub(key, scrub)
        except OSError as error:
            log.warning("Could not note the reading of a model", key=key, reason=str(error))

    def rewrite(self, key: str, manifest: Manifest) -> None:
        """Replace the manifest of a published copy, also on the disk."""
        self.copies[key] = replace(self.copies[key], manifest=manifest)
        try:
            self._store.rewrite(manifest)
        except OSError as error:
            log.warning("Could not rewrite a manifest", key=key, reason=str(error))


def _is_repaired(former: OnDisk, copy: OnDisk) -> bool:
    """Whether a damaged copy is whole again, with the same files."""
    if former.found is not Found.DAMAGED or former.manifest is None or copy.manifest is None:
        return False
    return copy.manifest.hash is not None and former.manifest.hash == copy.manifest.hash


def _best_known(now: OnDisk, before: OnDisk | None) -> OnDisk:
    """Merge the scanned state of a copy with the former one.

    A copy that was whole and cannot be read now counts as whole, and notes that could not be
    written to the disk are kept.
    """
    if before is None:
        return now
    if now.is_unreadable and before.found is Found.PUBLISHED:
        return before
    if before.evicted is not None and now.evicted is None and not now.is_published:
        return replace(now, evicted=before.evicted, usage=before.usage)
    if now.usage is not None and before.usage is not None and now.is_published:
        return replace(now, usage=before.usage)
    return now
