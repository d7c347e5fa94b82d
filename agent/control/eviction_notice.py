"""Evictions are reported before they happen: the labels of warm nodes go before the copies do.

A victim of the plan is reported as evicted first. Its copy goes EVICTION_NOTICE_SECONDS after that
was written, so that the scheduler sends no pod here for it. If the plan names the copy no more, as
when a pod mounts it, the report returns to what it was. Pure. Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.structs.records import Evicted

EVICTION_NOTICE_SECONDS = 2.0
# The longest wait, where the report cannot be written.
MAX_NOTICE_SECONDS = 5.0


@dataclass(frozen=True)
class _Notice:
    """A reported eviction: what is reported, since when, and when that was written."""

    note: Evicted
    since: float
    written: float | None = None

    @property
    def due_at(self) -> float:
        latest = self.since + MAX_NOTICE_SECONDS
        return (
            latest if self.written is None else min(latest, self.written + EVICTION_NOTICE_SECONDS)
        )


class EvictionNotices:
    """The copies that are about to be evicted, by key. Bounded by the victims of the last plan."""

    def __init__(self) -> None:
        self._notices: dict[str, _Notice] = {}

    def of(self, key: str) -> Evicted | None:
        """What is reported of a copy that is about to be evicted; None for all others."""
        notice = self._notices.get(key)
        return notice.note if notice else None

    def add(self, key: str, note: Evicted, now: float) -> None:
        """Report from now on that a copy is evicted. A former notice of it stays as it is."""
        self._notices.setdefault(key, _Notice(note, now))

    def retain(self, keys: Collection[str]) -> bool:
        """Withdraw the notices of all other copies. Returns whether there were any."""
        before = len(self._notices)
        self._notices = {key: one for key, one in self._notices.items() if key in keys}
        return len(self._notices) < before

    def are_written(self, now: float) -> None:
        """Record that the API server has what is reported."""
        for key, notice in self._notices.items():
            if notice.written is None:
                self._notices[key] = replace(notice, written=now)

    def is_due(self, key: str, now: float) -> bool:
        """Whether a copy may go now."""
        notice = self._notices.get(key)
        return notice is not None and notice.due_at <= now

    def next_after(self, now: float) -> float | None:
        """When the next copy may go that may not go yet; None if there is none."""
        times = (notice.due_at for notice in self._notices.values())
        return min((at for at in times if at > now), default=None)
