"""File system operations of the disk's modules. Raises OSError."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
PRIVATE_MODE = 0o600
TEMPORARY_SUFFIX = ".tmp"

# The unit of st_blocks, whatever the block size of the file system.
_STAT_BLOCK_BYTES = 512


def make_directory(path: Path) -> None:
    """Make a directory that pods of any user can read, whatever the umask, unless it exists."""
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(DIRECTORY_MODE)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all bytes: one call of the system may write only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by one rename. Only the agent can read it: a URI may contain a token."""
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
    """Delete a file if it exists."""
    path.unlink(missing_ok=True)


def delete_durably(path: Path) -> None:
    """Delete a file if it exists, also in the case of a loss of power."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_directory(path.parent)


def delete_tree(path: Path) -> None:
    """Delete a directory with its content, or a symbolic link itself, if it exists."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def blocks_of(found: os.stat_result) -> int:
    """The bytes of the disk that are allocated to a file, written or not."""
    return found.st_blocks * _STAT_BLOCK_BYTES


def walk(
    tree: Path, *, topdown: bool = True, skips_closed: bool = False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """The folders below a directory, as of os.walk. A folder that cannot be read raises OSError.

    A directory that does not exist, or is deleted meanwhile, has none. With `skips_closed`, a
    folder counts as empty which the agent may not read, such as one of another program.
    """
    absent = (FileNotFoundError, NotADirectoryError)
    skipped = (*absent, PermissionError) if skips_closed else absent

    def check(error: OSError) -> None:
        if not isinstance(error, skipped):
            raise error

    return os.walk(tree, topdown=topdown, onerror=check)  # noqa: TID251


def paths_below(tree: Path) -> Iterator[str]:
    """The paths of all files below a directory, relative to it. Raises OSError as `walk` does."""
    for folder, _, names in walk(tree):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), tree)  # noqa: PTH118 - many files


def tree_blocks(path: Path) -> int:
    """The bytes of the disk that all files below a directory take; 0 if it does not exist.

    Files that are deleted meanwhile do not count.
    """
    total = 0
    for folder, _, names in walk(path, skips_closed=True):
        for name in names:
            with suppress(FileNotFoundError):
                total += blocks_of(os.lstat(os.path.join(folder, name)))  # noqa: PTH118 - many files
    return total


def is_empty_directory(path: Path) -> bool:
    """Whether a directory is empty or does not exist; False if the agent may not read it."""
    try:
        return not path.is_symlink() and next(path.iterdir(), None) is None
    except FileNotFoundError:
        return True
    except (NotADirectoryError, PermissionError):
        return False
