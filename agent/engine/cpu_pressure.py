"""Whether the fetch threads spend more time waiting for a CPU than running.

Fewer connections are faster then: with many, received bytes have left the CPU's caches before a
thread reads them, and a thread that waits for a CPU may hold a lock that other threads wait for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# How many threads must wait for a CPU on average for the CPU to count as the bottleneck.
MIN_WAITING_THREADS = 1.0

_TASKS = Path("/proc/self/task")


@dataclass
class CpuPressure:
    """CPU pressure on some threads, from the kernel's scheduler statistics (schedstat).

    On a kernel without these statistics there is never any pressure.
    """

    tasks: Path = _TASKS
    # By thread: nanoseconds on a CPU, and nanoseconds waiting for one, at the last sample. Bounded
    # by the engine's threads, which never end.
    _seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    _sampled_at: float | None = None

    def add(self, thread: int) -> None:
        """Watch this thread too, given its native thread id."""
        self._seen[thread] = (0, 0)

    def sample(self, now: float) -> bool:
        """Whether the CPU was the bottleneck since the last sample. `now`: monotonic seconds."""
        ran = waited = 0
        for thread, before in list(self._seen.items()):
            found = self._statistics(thread)
            if found is not None:
                ran += found[0] - before[0]
                waited += found[1] - before[1]
                self._seen[thread] = found
        elapsed = 0.0 if self._sampled_at is None else now - self._sampled_at
        self._sampled_at = now
        return elapsed > 0 and waited > max(ran, MIN_WAITING_THREADS * elapsed * 1e9)

    def _statistics(self, thread: int) -> tuple[int, int] | None:
        # /proc/<pid>/schedstat, see the kernel's Documentation/scheduler/sched-stats.rst.
        try:
            ran, waited, _ = (self.tasks / str(thread) / "schedstat").read_text().split()
        except (OSError, ValueError):
            return None
        return int(ran), int(waited)
