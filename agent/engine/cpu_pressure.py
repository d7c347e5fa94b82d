"""Whether the threads that fetch wait for a CPU more than they work.

Then fewer connections are faster: what more of them have in their sockets is in no cache any more
when its turn comes, and a thread that waits for a CPU may hold what others wait for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# So many threads wait at any time, or it is no crowd.
WAITING = 1.0

_TASKS = Path("/proc/self/task")


@dataclass
class CpuPressure:
    """Looks at the kernel's account of some threads. Without one, nothing is ever crowded."""

    tasks: Path = _TASKS
    # Nanoseconds on a CPU, and waiting for one, by thread: the engine's, which never end.
    _seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    _looked_at: float | None = None

    def add(self, thread: int) -> None:
        """Look at this thread too, by its number."""
        self._seen[thread] = (0, 0)

    def look(self, now: float) -> bool:
        """Whether it is crowded since the last look. Monotonic seconds."""
        ran = waited = 0
        for thread, before in list(self._seen.items()):
            found = self._account(thread)
            if found is not None:
                ran += found[0] - before[0]
                waited += found[1] - before[1]
                self._seen[thread] = found
        elapsed = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        return elapsed > 0 and waited > max(ran, WAITING * elapsed * 1e9)

    def _account(self, thread: int) -> tuple[int, int] | None:
        # /proc/<pid>/schedstat, see the kernel's Documentation/scheduler/sched-stats.rst.
        try:
            ran, waited, _ = (self.tasks / str(thread) / "schedstat").read_text().split()
        except (OSError, ValueError):
            return None
        return int(ran), int(waited)
