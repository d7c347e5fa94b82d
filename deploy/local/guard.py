"""The supervisor's guard: kills what it is told of when the supervisor dies.

The kernel kills the supervisor's own children with it, but not theirs. The guard reads process
groups from its standard input (`+ID` when one starts, `-ID` when it is gone) and kills what is
left at the end of the input, which comes when the supervisor is gone, for whatever reason.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from deploy.local.posix import group_is_gone, kill_group, try_lock

LAST_LOOK_SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """Guard until the input ends. The argument is the lock that tells that a guard is there."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lock = Path(arguments[0])
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
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
