"""What a cluster has written, called, logged and used between two looks at it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local import controlplane, product
from tests.bench.control import counters, names, usage
from tests.bench.control.figures import Value
from tests.bench.control.usage import Usage

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping
    from pathlib import Path

    from tests.bench.control.counters import Calls
    from tests.bench.control.figures import Sample
    from tests.bench.control.stage import Stage

PROCESSES = (
    controlplane.ETCD,
    controlplane.API_SERVER,
    controlplane.CONTROLLER_MANAGER,
    product.META,
    product.HOOKS,
)
REPORTER = "reporter"
WATCHER = "watcher"
MACHINE = "machine"
OTHERS = "everybody else on the machine"


@dataclass(frozen=True)
class Look:
    """How it stood at one time."""

    writes: Counter[str]
    usage: Mapping[str, Usage]
    pids: Mapping[str, int]
    access_size: int
    log_size: int


class Meter:
    """Looks at one cluster."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        for pid in self._pids().values():
            usage.forget_peak(pid)

    def _pids(self) -> dict[str, int]:
        cluster = self._stage.cluster
        found = {name: cluster.pid(name) for name in PROCESSES}
        return {name: pid for name, pid in found.items() if pid is not None}

    def look(self) -> Look:
        """How it stands now."""
        pids = self._pids()
        metrics = self._stage.cluster.api.text("/metrics")
        used = {name: usage.look(pid) for name, pid in pids.items()}
        used[WATCHER] = Usage(time.process_time())
        used[MACHINE] = usage.look_at_machine()
        return Look(
            writes=counters.writes(metrics),
            usage=used,
            pids=pids,
            access_size=self._stage.size(),
            log_size=_size(self._stage.log),
        )

    def processes(
        self, before: Look, after: Look, reporter_cpu: float, reporter_peak: int
    ) -> Sample:
        """CPU seconds and peaks of all processes; those of the reporter are its own word."""
        used = {
            name: now.since(before.usage[name])
            if before.pids.get(name) == after.pids.get(name)
            else now
            for name, now in after.usage.items()
        }
        used[REPORTER] = Usage(reporter_cpu, reporter_peak)
        machine = used.pop(MACHINE)
        cpu = {names.CPU + name: Value(one.cpu, "s") for name, one in used.items()}
        # Where this is much, the times are not to be trusted.
        others = machine.cpu - sum(one.cpu for one in used.values())
        cpu[names.CPU + OTHERS] = Value(max(0.0, others), "s")
        del used[WATCHER]
        peaks = {names.PEAK + name: Value(one.peak_bytes / 1e6, "MB") for name, one in used.items()}
        return cpu | peaks

    def calls(self, before: Look, after: Look) -> dict[str, Calls]:
        """The hooks' calls by path."""
        return counters.calls(
            _between(self._stage.access_log, before.access_size, after.access_size)
        )

    def errors(self, before: Look, after: Look) -> int:
        """Lines of level error in Metacontroller's log."""
        return counters.errors(_between(self._stage.log, before.log_size, after.log_size))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _between(path: Path, start: int, end: int) -> list[str]:
    if end <= start:
        return []
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start).decode(errors="replace").splitlines()
