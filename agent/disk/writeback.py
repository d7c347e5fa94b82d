"""Linux calls for write-back that Python does not have. Raises OSError."""

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
    """Start to write bytes of a file to the disk, if the file system supports that."""
    if _LIBC.sync_file_range(descriptor, start, end - start, _SYNC_FILE_RANGE_WRITE):
        error = ctypes.get_errno()
        if error not in {errno.ENOSYS, errno.EINVAL, errno.ESPIPE}:
            raise OSError(error, os.strerror(error), str(place))


def sync_file_system(directory: Path) -> None:
    """Make all writes to the file system of a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(descriptor):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(directory))
    finally:
        os.close(descriptor)
