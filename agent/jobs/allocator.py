"""Settings of the C library's allocator and of Python's garbage collector."""

from __future__ import annotations

import ctypes
import gc

_LIBC = ctypes.CDLL(None)
# Options of mallopt and their values: few arenas, where otherwise each fetch thread would have its
# own; and freed memory is kept for the next pieces, since giving it back costs page faults.
_ARENA_MAX = (-8, 2)
_MMAP_THRESHOLD = (-3, 8 << 20)
_TRIM_THRESHOLD = (-1, 16 << 20)
# A model of many files has several objects for each file: collections must not be too frequent.
_GARBAGE_OBJECTS = 20_000


def tune() -> None:
    """Apply the settings for downloads, at the start of the process."""
    gc.set_threshold(_GARBAGE_OBJECTS)
    # C libraries without mallopt, such as musl, keep their defaults.
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is not None:
        for option, value in (_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(option, value)


def give_back() -> None:
    """Return freed memory to the system, after a download."""
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)
