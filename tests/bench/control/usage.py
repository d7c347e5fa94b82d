"""CPU seconds and memory of processes, from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.running import status_bytes

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU seconds of a process and its children, and the peak of the largest one's memory."""

    cpu: float = 0.0
    peak_bytes: int = 0

    def since(self, before: Usage) -> Usage:
        """What was used after an earlier look at the same process."""
        return Usage(self.cpu - before.cpu, self.peak_bytes)


def cpu_seconds(stat: str) -> float:
    """Those of /proc/<pid>/stat, with those of children that have ended."""
    # The second field is the program's name in parentheses, and may hold spaces.
    fields = stat.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def busy_seconds(stat: str) -> float:
    """CPU seconds of the whole machine, from /proc/stat, with those that its host took away."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(field) for field in stat.split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS


def look_at_machine() -> Usage:
    """What everybody has used."""
    return Usage(busy_seconds(Path("/proc/stat").read_text()))


def look(pid: int) -> Usage:
    """What a process and its children have used; nothing when it is gone."""
    cpu, peak = 0.0, 0
    for one in _tree(pid):
        with suppress(OSError):
            cpu += cpu_seconds(Path(f"/proc/{one}/stat").read_text())
            peak = max(peak, status_bytes("VmHWM", one))
    return Usage(cpu, peak)


def forget_peak(pid: int) -> None:
    """Let the peaks of a process and its children begin anew."""
    for one in _tree(pid):
        with suppress(OSError):
            Path(f"/proc/{one}/clear_refs").write_text("5")


def _tree(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found
