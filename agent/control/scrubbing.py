"""Which published copy is scrubbed next, and what becomes of bad files that are found."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.structs.log import log
from agent.structs.records import Scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from agent.disk.inventory import Inventory
    from agent.disk.on_disk import OnDisk
    from agent.jobs.workers import Scrubbed, Workers
    from agent.structs.options import Options
    from agent.structs.records import BadFile

# The pause after a read that failed, before a requested one is tried again.
RETRY_SECONDS = 300


class Scrubbing:
    """Has one copy after the other scrubbed, the least recently scrubbed first.

    Copies whose verification was requested come before all others; a requested read that fails is
    tried again soon, and any other one when it is due.

    `damaged` is called with the key of a damaged copy, and what is wrong with the copy.
    """

    def __init__(
        self,
        workers: Workers,
        inventory: Inventory,
        options: Options,
        damaged: Callable[[str, str], None],
    ) -> None:
        self._workers = workers
        self._inventory = inventory
        self._options = options
        self._damaged = damaged
        self._key = ""
        self._is_requested = False
        self._stopped = threading.Event()
        # When each copy was scrubbed, also without a result or a note. `retain` bounds it.
        self._read: dict[str, datetime] = {}
        # When the last read of a copy failed, by the monotonic clock. `retain` bounds it.
        self._failed: dict[str, float] = {}

    def begin(self, busy: Collection[str], asked: Mapping[str, datetime]) -> None:
        """Start to scrub a copy, if one is due. Downloads work on the `busy` keys.

        `asked` is when the verification of a copy was requested, by key. A scrub that nobody has
        requested gives way to a requested one, and begins anew later.
        """
        rate, now = self._options.scrub_bytes_per_second, self._options.now()
        if not rate or (self._key and (not asked or self._is_requested)):
            return
        due = [
            (last is not None, last or now, key, manifest)
            for key, copy, manifest in self._inventory.published()
            if manifest.hash is not None and key not in busy
            for last in [self._last(key, copy, now)]
            if last is None or (now - last).total_seconds() >= self._options.scrub_interval
        ]
        requested = [
            (True, asked[key], key, manifest)
            for key, copy, manifest in self._inventory.published()
            if key in asked and manifest.hash is not None and key not in busy
            if not self._pauses(key)
            for last in [self._last(key, copy, now, with_failed=False)]
            if last is None or last < asked[key]
        ]
        if self._key and any(key != self._key for _, _, key, _ in requested):
            self.stop(self._key)
        if not self._key and (requested or due):
            _, _, self._key, manifest = min(requested or due, key=lambda one: one[:3])
            self._is_requested = bool(requested)
            self._stopped = threading.Event()
            self._workers.scrub(manifest, rate, self._stopped)

    def _pauses(self, key: str) -> bool:
        """Whether a read has failed that recently that a requested one is not tried again."""
        failed = self._failed.get(key)
        return failed is not None and self._options.monotonic() < failed + RETRY_SECONDS

    def _last(
        self, key: str, copy: OnDisk, now: datetime, *, with_failed: bool = True
    ) -> datetime | None:
        """When the files of a copy were last read, or published, which verifies them.

        `with_failed`: also where the read had no result. A time in the future, from before the
        clock was set back, counts for nothing.
        """
        noted = copy.scrub.time if copy.scrub else None
        published = copy.usage.published_time if copy.usage else None
        read = self._read.get(key) if with_failed or key not in self._failed else None
        times = (noted, published, read)
        return max((time for time in times if time is not None and time <= now), default=None)

    def observe(self, end: Scrubbed) -> None:
        """Take in the result of a scrub."""
        if end.stopped is not self._stopped:
            return
        key, self._key = end.key, ""
        now = self._options.now()
        self._read[key] = now
        if end.bad is None or self._stopped.is_set():
            self._failed[key] = self._options.monotonic()
            return
        self._failed.pop(key, None)
        self.note(key, end.bad)

    def note(self, key: str, bad: tuple[BadFile, ...]) -> None:
        """Note the bad files of a copy whose files were read."""
        self._inventory.note_scrub(key, Scrub(time=self._options.now(), bad=bad))
        if bad:
            problem = self._inventory.copy(key).problem
            log.warning("Published model is damaged", key=key, problem=problem)
            self._damaged(key, problem)

    def stop(self, key: str) -> None:
        """Stop reading a copy that goes."""
        if key == self._key:
            self._stopped.set()
            self._key = ""

    def retain(self, keys: Collection[str]) -> None:
        """Stop reading all other copies, and forget when they were scrubbed."""
        if self._key not in keys:
            self.stop(self._key)
        self._read = {key: time for key, time in self._read.items() if key in keys}
        self._failed = {key: time for key, time in self._failed.items() if key in keys}
