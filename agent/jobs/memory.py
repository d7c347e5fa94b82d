"""What the process keeps of its memory, and how often Python looks for garbage."""

from __future__ import annotations

import ctypes
import gc

_LIBC = ctypes.CDLL(None)
# Options of mallopt and their values: few heaps, where each fetching thread would have its own; and
# what comes and goes all the time is kept, since giving it back costs a page fault for each page.
_ARENA_MAX = (-8, 2)
_MMAP_THRESHOLD = (-3, 8 << 20)
_TRIM_THRESHOLD = (-1, 16 << 20)
# A model of many files has objects for each: they are not to be looked through all the time.
_GARBAGE_OBJECTS = 20_000


def tune() -> None:
    """Set it up for downloads, at the start of the process."""
    gc.set_threshold(_GARBAGE_OBJECTS)
    # Other C libraries are left as they are.
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is not None:
        for option, value in (_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(option, value)


def give_back() -> None:
    """Give back what is free now, after a download."""
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)
