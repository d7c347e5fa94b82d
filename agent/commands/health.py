"""Whether the agent lives, and whether it is ready: the answers to kubelet's probes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.commands.disk_probe import DiskProbe
    from agent.control.loop import Loop

# Without an event the loop takes a step each minute, and its calls of the API server have timeouts
# of seconds. Only the disk can hold it up for longer.
READY_SECONDS = 150.0
LIVE_SECONDS = 300.0
# The first step reads the notes of all that is on the disk, nothing of which is cached yet.
START_SECONDS = 900.0


class Health:
    """Checks of the disk from its making on, and of a loop from `follow` on.

    Each check returns what fails, one line for each failure.
    """

    def __init__(self, disk: DiskProbe, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._disk = disk
        self._monotonic = monotonic
        self._loop: Loop | None = None

    def follow(self, loop: Loop) -> None:
        """Check this loop from now on."""
        self._loop = loop

    def live(self) -> list[str]:
        """What a restart may mend: a loop that does not move, and does not wait for its disk.

        Neither the API server nor an origin nor a disk that fails counts. The first step has
        START_SECONDS, and what comes before the loop all its time: a restart would only begin to
        read the disk anew.
        """
        if self._loop is None:
            return []
        idle = self._monotonic() - self._loop.moved_at
        is_starting = self._loop.snapshot is None
        if idle <= (START_SECONDS if is_starting else LIVE_SECONDS):
            return []
        self._disk.problem()
        if self._disk.is_slow:
            return []
        what = "start: the first step is not complete after" if is_starting else "loop: no step for"
        return [f"{what} {idle:.0f} s"]

    def ready(self) -> list[str]:
        """What keeps the agent from its work: sync with the API server, the disk, or the loop."""
        if self._loop is None:
            problem = self._disk.problem()
            return [
                "start: the agent is opening its disk",
                *([f"disk: {problem}"] if problem else []),
            ]
        snapshot = self._loop.snapshot
        if snapshot is None:
            return ["start: the first step is not complete"]
        failures = []
        if not snapshot.is_node_read:
            failures.append("sync: the API server has not answered what the LocalModelNode is")
        if not snapshot.table.pods_known:
            failures.append(
                "sync: the pods of the node are not known: the API server does not answer, or "
                "does not let the agent list pods"
            )
        failure, problem = snapshot.table.disk_failure, self._disk.problem()
        if failure is not None:
            problem = problem or failure.kind.value
        if problem:
            failures.append(f"disk: {problem}")
        idle = self._monotonic() - snapshot.table.now
        if idle > READY_SECONDS:
            failures.append(f"loop: no step was completed for {idle:.0f} s")
        return failures
