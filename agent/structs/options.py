"""Options of the agent's loop: those that flags set, and those that tests replace."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from agent.structs.counts import NO_COUNTS, Counts

if TYPE_CHECKING:
    from collections.abc import Callable

# The most connections to one origin.
MAX_CONNECTIONS = 64


def wall_clock() -> datetime:
    """The current time in whole seconds, as in Kubernetes' timestamps."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Options:
    """Options of the loop. Times in seconds; clocks and random numbers can be replaced."""

    grace: float = 60.0
    progress: float = 15.0
    max_downloads: int = 2
    # None: no scrubbing.
    scrub_bytes_per_second: int | None = None
    scrub_interval: float = 86400.0
    # Whether backoffs continue after a restart; not if a person starts the agent by hand.
    remembers_failures: bool = True
    # How often sources are asked whether namespaces may still use their copies.
    recheck: float = 3600.0
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = wall_clock
    jitter: Callable[[], float] = random.random
    counts: Counts = NO_COUNTS

    def later(self, seconds: float) -> datetime:
        """The wall clock's time after this many seconds, rounded up."""
        return self.now() + timedelta(seconds=math.ceil(seconds))
