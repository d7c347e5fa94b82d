"""Which requests are too slow, compared with the other requests to the same origin. Pure.

The usual rate is the origin's rate divided by its connections. The rates of the requests that run
at one moment say little: many requests end within a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

# A request below this part of the usual rate at two looks in a row is hedged by a second request.
SLOW = 0.25
LOOK_SECONDS = 1.0
# The fewest requests whose average counts as the usual rate.
ENOUGH = 4
# The time that a second request must save.
WORTH_SECONDS = 2.0
# A request that brings less than STALL_BYTES in STALL_SECONDS has stalled, and is aborted.
STALL_BYTES = 32 << 10
STALL_SECONDS = 30.0


class Request(Protocol):
    """A running request: see agent.engine.job.Segment. The last four are this module's."""

    position: int
    begun: int
    started: float
    aborted: bool
    seen: int
    slow_since: float | None
    mark_bytes: int
    mark_time: float

    @property
    def left(self) -> int | None:
        """The bytes that a second request would ask for; None if there may be none."""
        ...


_R = TypeVar("_R", bound=Request)


@dataclass
class Pace:
    """The pace of one origin's requests. Times are monotonic seconds."""

    stall_seconds: float = STALL_SECONDS
    usual: float = 0.0
    _looked_at: float | None = None
    _received: int = 0

    def look(self, segments: Sequence[_R], received: int, now: float) -> tuple[list[_R], list[_R]]:
        """The requests to hedge, and those that have stalled. At most once a second not empty.

        `received` is the total of bytes from the origin.
        """
        if self._looked_at is None:
            self._looked_at = now
        elapsed = now - self._looked_at
        if elapsed < LOOK_SECONDS:
            return [], []
        if len(segments) >= ENOUGH or not self.usual:
            # Most of the requests before the first look may have ended already.
            connections = max(ENOUGH, len(segments))
            self.usual = (received - self._received) / elapsed / connections
        self._looked_at, self._received = now, received
        slow, stalled = [], []
        for segment in segments:
            rate = (segment.position - max(segment.seen, segment.begun)) / elapsed
            segment.seen = segment.position
            if now - segment.started < LOOK_SECONDS or segment.aborted:
                continue
            if self._has_stalled(segment, now):
                stalled.append(segment)
            elif rate >= SLOW * self.usual:
                segment.slow_since = None
            elif segment.slow_since is None:
                segment.slow_since = now
            elif self._is_worth_it(segment, rate):
                slow.append(segment)
        return slow, stalled

    def _has_stalled(self, segment: Request, now: float) -> bool:
        if segment.position - segment.mark_bytes >= STALL_BYTES or not segment.mark_time:
            segment.mark_bytes, segment.mark_time = segment.position, now
        return now - segment.mark_time >= self.stall_seconds

    def _is_worth_it(self, segment: Request, rate: float) -> bool:
        left = segment.left
        if left is None:
            return False
        return left / max(rate, 1.0) - left / max(self.usual, 1.0) > WORTH_SECONDS
