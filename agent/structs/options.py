"""How the agent behaves: what its flags set, and what tests replace."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The most connections that one origin gets.
MAX_CONNECTIONS = 64


def wall_clock() -> datetime:
    """Now, in whole seconds, as Kubernetes' times have them."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Options:
    """How the loop behaves. Times in seconds; clocks and chance can be replaced."""

    grace: float = 60.0
    progress: float = 15.0
    max_downloads: int = 2
    # None: nothing is read again after its publication.
    scrub_bytes_per_second: int | None = None
    scrub_interval: float = 86400.0
    # Whether a restart waits for what failed before it. Where a person starts it, it tries at once.
    remembers_failures: bool = True
    # How often sources are asked again whether namespaces may have their copies.
    recheck: float = 3600.0
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = wall_clock
    jitter: Callable[[], float] = random.random

    def later(self, seconds: float) -> datetime:
        """The wall clock's time in so many seconds, rounded up."""
        return self.now() + timedelta(seconds=math.ceil(seconds))
