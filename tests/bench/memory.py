"""Makes the first touch of free memory equally slow for all runs.

A virtual machine may return memory that was free for some seconds to its host (free page
reporting). The next touch of that memory is ten times as slow, which would count against the first
run, or the one that uses most memory. Two measures prevent that: a process holds one page of every
2 MiB, which the machine then does not return; and as much memory as a run needs is touched just
before the run. Run as a program, this module is that process.
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
# Private memory: shared memory, the default, has no huge pages, and is not freed at once.
_OWN = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def available_bytes() -> int:
    """The bytes of memory that can be allocated without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def warm(size: int) -> None:
    """Touch `size` bytes of memory, and free them."""
    size = min(size, available_bytes() // 2) // HUGE * HUGE
    if not size:
        return
    with mmap.mmap(-1, size, flags=_OWN) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        # One touch clears a whole huge page; without huge pages, each page has to be touched.
        memory[::PAGE] = bytes(size // PAGE)


@contextmanager
def ballast(size: int) -> Iterator[None]:
    """Hold one page of every 2 MiB of `size` bytes of memory."""
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
    """Hold the pages until the end of stdin."""
    with mmap.mmap(-1, max(size, HUGE), flags=_OWN) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[::PAGE] = bytes(len(memory) // PAGE)
        for start in range(0, len(memory), HUGE):
            memory.madvise(mmap.MADV_DONTNEED, start + PAGE, HUGE - PAGE)
        print("ready", flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
