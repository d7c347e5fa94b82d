"""Probes whether the disk can be written, in a thread of its own: a hung disk hangs no caller."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from agent.disk.watch import probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.disk.store import Store

# How long the result of a probe counts, and how long a caller waits for a new one.
FRESH_SECONDS = 5.0
PATIENCE_SECONDS = 1.0
# To open a store takes a few calls of its disk. A disk that takes longer hangs.
OPENING_SECONDS = 60.0


class DiskProbe:
    """Writes a small file when asked, at most every FRESH_SECONDS. Any thread may call.

    While a probe hangs, no other begins: at most one thread waits for the disk. The store may be
    opened later; a disk on which that takes longer than OPENING_SECONDS hangs.
    """

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # Set while no probe runs.
        self._ended = threading.Event()
        self._ended.set()
        self._made_at = monotonic()
        self._began_at = 0.0
        self._ended_at = float("-inf")
        # What the last probe found; empty: the disk can be written.
        self._problem = ""

    def problem(self) -> str:
        """What is wrong with the disk; empty: nothing. The caller waits at most a second."""
        with self._lock:
            now = self._monotonic()
            if self._ended.is_set() and now - self._ended_at >= FRESH_SECONDS:
                self._ended.clear()
                self._began_at = now
                threading.Thread(target=self._probe, name="disk-probe", daemon=True).start()
        if self._ended.wait(PATIENCE_SECONDS):
            return self._problem or self._opening()
        seconds = self._monotonic() - self._began_at
        return f"the disk has not answered for {seconds:.0f} s"

    @property
    def is_slow(self) -> bool:
        """Whether the disk keeps a probe, or the agent's start, waiting now."""
        if not self._ended.is_set() and self._monotonic() - self._began_at > PATIENCE_SECONDS:
            return True
        return bool(self._opening())

    def _opening(self) -> str:
        seconds = self._monotonic() - self._made_at
        if self._store.is_locked or seconds <= OPENING_SECONDS:
            return ""
        return f"the disk could not be opened for {seconds:.0f} s"

    def _probe(self) -> None:
        problem = ""
        try:
            probe(self._store)
        except OSError as error:
            # Without the path, which is not for everybody who can reach the port.
            problem = f"the disk cannot be written: {error.strerror or type(error).__name__}"
        finally:
            self._problem, self._ended_at = problem, self._monotonic()
            self._ended.set()
