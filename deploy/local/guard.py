"""The guard of the supervisor: kills the process groups of the cluster when the supervisor dies.

The kernel kills the supervisor's children with it, but not their children. The guard reads the ids
of process groups from its standard input (`+ID` for a new group, `-ID` for a group that has ended).
The input ends when the supervisor ends, for whatever reason; then the guard kills the groups left,
and removes the cgroups of the cluster's real nodes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from deploy.local.layout import Layout
from deploy.local.posix import group_is_gone, kill_group, try_lock
from deploy.local.real import cgroups

LAST_LOOK_SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """Guard until the input ends. The argument is the cluster's folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    layout = Layout(Path(arguments[0]))
    lock = layout.guard_lock
    deadline = time.monotonic() + LAST_LOOK_SECONDS
    while try_lock(lock) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    lock.write_text(f"{os.getpid()}\n")
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        kill_group(group)
    deadline = time.monotonic() + LAST_LOOK_SECONDS
    while time.monotonic() < deadline and not all(group_is_gone(group) for group in groups):
        time.sleep(0.02)
    cgroups.remove(layout.root)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
