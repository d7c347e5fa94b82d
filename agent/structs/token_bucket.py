"""A limit in bytes per second. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TokenBucket:
    """A limit in bytes per second, which allows bursts of a tenth of a second's bytes."""

    rate: int | None = None
    _free_at: float = 0.0

    def take(self, count: int, now: float) -> float:
        """Account for `count` bytes. Returns how many seconds to wait before the next ones."""
        if self.rate is None:
            return 0.0
        start = max(self._free_at, now - 0.1)
        self._free_at = start + count / self.rate
        return max(0.0, self._free_at - now)
