"""File system steps that survive a crash: what returned is on the disk. Raises OSError."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
PRIVATE_MODE = 0o600
TEMPORARY_SUFFIX = ".tmp"

# What stat counts blocks in, whatever the file system has.
_STAT_BLOCK_BYTES = 512


def make_directory(path: Path) -> None:
    """A directory that pods of any user can read, whatever the umask; existing ones are kept."""
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(DIRECTORY_MODE)


def sync_directory(path: Path) -> None:
    """Put the directory's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write it whole: one call may take only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole. It is private: a URI may hold a token."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    sync_directory(path.parent)


def delete_file(path: Path) -> None:
    """Delete a file if it is there."""
    path.unlink(missing_ok=True)


def delete_tree(path: Path) -> None:
    """Delete a directory with all that is in it, or a link itself, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def blocks_of(found: os.stat_result) -> int:
    """Bytes of the disk that a file takes: allocated ones, written or not."""
    return found.st_blocks * _STAT_BLOCK_BYTES


def tree_blocks(path: Path) -> int:
    """Bytes of the disk that all files below a directory take; 0 if there is none.

    What vanishes meanwhile counts as nothing.
    """
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += blocks_of(os.lstat(os.path.join(folder, name)))  # noqa: PTH118 - many files
    return total


def is_empty_directory(path: Path) -> bool:
    """Whether it is an empty directory, or not there at all. One that is closed to us is not."""
    try:
        return not path.is_symlink() and next(path.iterdir(), None) is None
    except FileNotFoundError:
        return True
    except (NotADirectoryError, PermissionError):
        return False
