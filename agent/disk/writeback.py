"""When written data goes to the disk: what Linux has for it, and Python has not. Raises OSError."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SYNC_FILE_RANGE_WRITE = 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_writeback(descriptor: int, start: int, end: int, place: Path) -> None:
    """Begin to write bytes of a file to the disk, where the file system can do that."""
    if _LIBC.sync_file_range(descriptor, start, end - start, _SYNC_FILE_RANGE_WRITE):
        error = ctypes.get_errno()
        if error not in {errno.ENOSYS, errno.EINVAL, errno.ESPIPE}:
            raise OSError(error, os.strerror(error), str(place))


def sync_file_system(directory: Path) -> None:
    """Put all on the disk that was written to the file system of a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(descriptor):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(directory))
    finally:
        os.close(descriptor)
