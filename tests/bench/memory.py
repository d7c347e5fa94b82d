"""Makes the first touch of free memory equally dear for all.

A virtual machine may hand memory that was free for some seconds back to its host (free page
reporting), and then its next first touch is ten times as dear: whoever comes first, or takes most,
pays. Against that: a process that holds one page of every 2 MiB, which are then never handed back;
and a touch of as much memory as a run needs, just before it. As a program, it is that process.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HUGE = 2 << 20
PAGE = mmap.PAGESIZE
# Shared memory, the default, has no huge pages and stays when it is let go of.
_OWN = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def available_bytes() -> int:
    """What can be taken without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def warm(size: int) -> None:
    """Touch so much memory, and let go of it."""
    size = min(size, available_bytes() // 2) // HUGE * HUGE
    if not size:
        return
    with mmap.mmap(-1, size, flags=_OWN) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        # The kernel clears a huge page as a whole; without huge pages, page by page.
        memory[::PAGE] = bytes(size // PAGE)


@contextmanager
def ballast(size: int) -> Iterator[None]:
    """Hold one page of every 2 MiB of so much memory."""
    size = min(size, available_bytes() // 2) // HUGE * HUGE
    command = [sys.executable, "-m", __spec__.name, str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.stdin.close()
            process.wait(10)


def main(size: int) -> None:
    """Hold it until the input ends."""
    with mmap.mmap(-1, max(size, HUGE), flags=_OWN) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[::PAGE] = bytes(len(memory) // PAGE)
        for start in range(0, len(memory), HUGE):
            memory.madvise(mmap.MADV_DONTNEED, start + PAGE, HUGE - PAGE)
        print("ready", flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
