"""Which requests are too slow, by comparison with the others of their origin. Pure.

The usual rate is that of a connection on average: many requests end within a second, so that the
rates of those that are under way at one moment say little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localmodel.agent.engine.job import Segment

# A request below this part of the usual rate, twice in a row, gets a second one.
SLOW = 0.25
LOOK_SECONDS = 1.0
# So many requests make an average that means something.
ENOUGH = 4
# What a second request must save to be worth its connection.
WORTH_SECONDS = 2.0
# Less than this in so long is as good as nothing.
STALL_BYTES = 32 << 10
STALL_SECONDS = 30.0


@dataclass
class Pace:
    """The pace of one origin's requests. Times are monotonic seconds."""

    stall_seconds: float = STALL_SECONDS
    usual: float = 0.0
    _looked_at: float | None = None
    _received: int = 0

    def look(
        self, segments: Sequence[Segment], received: int, now: float
    ) -> tuple[list[Segment], list[Segment]]:
        """The requests to hedge, and those to give up. Call it often; it looks once a second.

        `received` is what the origin has sent in all.
        """
        if self._looked_at is None:
            self._looked_at = now
        elapsed = now - self._looked_at
        if elapsed < LOOK_SECONDS:
            return [], []
        if len(segments) >= ENOUGH or not self.usual:
            # Before the first look most may have come and gone: then it was at least so many.
            connections = max(ENOUGH, len(segments))
            self.usual = (received - self._received) / elapsed / connections
        self._looked_at, self._received = now, received
        rates = {s: (s.position - max(s.seen, s.begun)) / elapsed for s in segments}
        old = {s for s in segments if now - s.started >= LOOK_SECONDS}
        slow, stalled = [], []
        for segment in segments:
            segment.seen = segment.position
            if segment not in old or segment.aborted:
                continue
            if self._has_stalled(segment, now):
                stalled.append(segment)
            elif rates[segment] >= SLOW * self.usual:
                segment.slow_since = None
            elif segment.slow_since is None:
                segment.slow_since = now
            elif self._is_worth_it(segment, rates[segment]):
                slow.append(segment)
        return slow, stalled

    def _has_stalled(self, segment: Segment, now: float) -> bool:
        if segment.position - segment.mark_bytes >= STALL_BYTES or not segment.mark_time:
            segment.mark_bytes, segment.mark_time = segment.position, now
        return now - segment.mark_time >= self.stall_seconds

    def _is_worth_it(self, segment: Segment, rate: float) -> bool:
        if segment.twin is not None or segment.end is None or not segment.file.remote.ranges:
            return False
        left = segment.end - segment.position
        return left / max(rate, 1.0) - left / max(self.usual, 1.0) > WORTH_SECONDS
