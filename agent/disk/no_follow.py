"""Accesses files below a directory that other programs may change: no link is ever followed.

Raises OSError.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.disk.files import DIRECTORY_MODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_HOLD = os.O_PATH | os.O_NOFOLLOW
# Non-blocking, since opening a named pipe would wait for its writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def find(tree: Path, path: str) -> tuple[str, os.stat_result | None]:
    """The status of a file; or the path and status of the first part above it that is no directory.

    The status is None if nothing is there.
    """
    *above, name = path.split("/")
    with _telling(tree / path), _opened(tree) as folder:
        for number, segment in enumerate(above, 1):
            found = _look(folder.descriptor, segment)
            if found is None or not stat.S_ISDIR(found.st_mode):
                return "/".join(above[:number]), found
            folder.descend(segment)
        return path, _look(folder.descriptor, name)


def open_file(tree: Path, path: str) -> int:
    """Open a file for reads, which may be no regular file. Returns its descriptor."""
    *above, name = path.split("/")
    with _telling(tree / path), _opened(tree) as folder:
        for segment in above:
            folder.descend(segment)
        return os.open(name, _READ, dir_fd=folder.descriptor)


@contextmanager
def holding(tree: Path, path: str) -> Iterator[int]:
    """A descriptor of a file or directory ("." is the tree), without access to its content."""
    *above, name = path.split("/")
    with _telling(tree / path):
        if path == ".":
            descriptor = os.open(tree, _HOLD)
        else:
            with _opened(tree) as folder:
                for segment in above:
                    folder.descend(segment)
                descriptor = os.open(name, _HOLD, dir_fd=folder.descriptor)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def look_in(
    tree: Path, folder: str, names: Iterable[str]
) -> Iterator[tuple[str, os.stat_result | None]]:
    """Names in a folder ("." is the tree), each with its status; None if nothing is there."""
    with holding(tree, folder) as descriptor, _telling(tree / folder):
        for name in names:
            yield name, _look(descriptor, name)


def put(source: Path, tree: Path, path: str, *, replace: bool) -> None:
    """Move a file to a path below the tree. With `replace`, it may replace an existing file."""
    *above, name = path.split("/")
    with _telling(tree / path), _opened(tree) as folder:
        for segment in above:
            folder.make(segment)
            folder.descend(segment)
        if not replace and _look(folder.descriptor, name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.rename(source, name, dst_dir_fd=folder.descriptor)
        os.fsync(folder.descriptor)


class _Folder:
    """An open directory."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, _FOLDER)

    def descend(self, segment: str) -> None:
        """Replace the descriptor by that of a folder in this one."""
        below = os.open(segment, _FOLDER, dir_fd=self.descriptor)
        os.close(self.descriptor)
        self.descriptor = below

    def make(self, segment: str) -> None:
        """Make a folder that pods of any user can read, whatever the umask, unless it exists."""
        try:
            os.mkdir(segment, dir_fd=self.descriptor)
        except FileExistsError:
            return
        os.chmod(segment, DIRECTORY_MODE, dir_fd=self.descriptor)
        os.fsync(self.descriptor)


@contextmanager
def _opened(tree: Path) -> Iterator[_Folder]:
    folder = _Folder(tree)
    try:
        yield folder
    finally:
        os.close(folder.descriptor)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Put the whole path into errors: calls that use descriptors name only its last part."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
