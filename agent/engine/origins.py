"""What the engine knows of each origin: its connections, its limit and its pace."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from agent.engine.connection_limit import ConnectionLimit, Sample
from agent.engine.pace import Pace
from agent.sources.bounded_cache import BoundedCache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.engine.job import Job, Segment

# How many slow requests to one origin may be hedged by a second request at a time.
MAX_HEDGES = 4
# The part of the allowed connections that must be in use to judge their number by the rate.
BUSY = 0.7
# How many origins are remembered after their last job.
MAX_REMEMBERED = 64


@dataclass
class Origin:
    """One origin. `active` are the segments that use a connection to it."""

    limit: ConnectionLimit = field(default_factory=ConnectionLimit)
    pace: Pace = field(default_factory=Pace)
    active: set[Segment] = field(default_factory=set)
    received: int = 0
    paused_until: float = 0.0

    def has_room(self, now: float) -> bool:
        """Whether one more connection may be opened now."""
        return len(self.active) < self.limit.now and self.may_ask(now)

    def may_ask(self, now: float) -> bool:
        """Whether it is not paused."""
        return now >= self.paused_until

    def pause(self, until: float) -> None:
        """Open no connection before this time."""
        self.paused_until = max(self.paused_until, until)

    def watch(self, now: float, *, cpu_bound: bool) -> list[Segment]:
        """Adapt the limit, abort stalled segments, and return second requests for slow ones."""
        active = list(self.active)
        # Some connections are between two ranges at any moment.
        busy = BUSY * self.limit.now <= len(active)
        awaiting = sum(segment.awaits_bytes for segment in active) / max(len(active), 1)
        self.limit.sample(Sample(self.received, now, busy, awaiting, cpu_bound))
        slow, stalled = self.pace.look(active, self.received, now)
        for segment in stalled:
            segment.stalled = True
            segment.abort()
        # Both requests of a pair may be active, or only the first one so far.
        hedged = len(
            {
                min(id(segment), id(segment.twin))
                for segment in active
                if segment.twin is not None and segment.twin.lane is None
            }
        )
        return [segment.hedge(now) for segment in slow[: max(0, MAX_HEDGES - hedged)]]


class Origins:
    """The origins of an engine's jobs. Not thread-safe.

    An origin is in use as long as it has a job. Afterwards it is remembered, so that the next model
    from the same host begins with the limit that the last one ended with.
    """

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        # At most as many as jobs.
        self.in_use: dict[str, Origin] = {}
        # At most MAX_REMEMBERED, and none that had no job during the cache's IDLE_SECONDS.
        self._remembered: BoundedCache[str, Origin] = BoundedCache(MAX_REMEMBERED)

    def __getitem__(self, job: Job) -> Origin:
        name = job.remote.origin
        return self.in_use.get(name) or self._remembered.get(name, Origin)

    def use(self, jobs: Iterable[Job], max_connections: int) -> None:
        """Make the origins of these jobs, and no others, the ones in use."""
        before = self.in_use
        self.in_use = {job.remote.origin: self[job] for job in jobs}
        for name, origin in self.in_use.items():
            origin.limit.cap(max_connections)
            if name not in before:
                origin.limit.resume()
                origin.pace = Pace(self._stall_seconds)
        for name in before.keys() - self.in_use.keys():
            self._remembered.get(name, partial(before.__getitem__, name))
