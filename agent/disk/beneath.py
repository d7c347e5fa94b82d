"""Files below a directory that others may write, too: no link is ever followed. Raises OSError."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from localmodel.agent.disk.files import DIRECTORY_MODE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_HOLD = os.O_PATH | os.O_NOFOLLOW
# A pipe without a writer must not hold the opener up.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def find(tree: Path, path: str) -> tuple[str, os.stat_result | None]:
    """What is at a path, or at the first part of it that is no directory; None: nothing."""
    *above, name = path.split("/")
    with _telling(tree / path), _opened(tree) as folder:
        for number, segment in enumerate(above, 1):
            found = _look(folder.descriptor, segment)
            if found is None or not stat.S_ISDIR(found.st_mode):
                return "/".join(above[:number]), found
            folder.descend(segment)
        return path, _look(folder.descriptor, name)


def open_file(tree: Path, path: str) -> int:
    """A descriptor to read a file with. It may be no regular file."""
    *above, name = path.split("/")
    with _telling(tree / path), _opened(tree) as folder:
        for segment in above:
            folder.descend(segment)
        return os.open(name, _READ, dir_fd=folder.descriptor)


@contextmanager
def holding(tree: Path, path: str) -> Iterator[int]:
    """A descriptor of what is at a path, "." the tree itself, without a right to its content."""
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


def put(source: Path, tree: Path, path: str, *, replace: bool) -> None:
    """Move a file to a path below the tree, over what is there only with `replace`."""
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
        """Go to a folder in it."""
        below = os.open(segment, _FOLDER, dir_fd=self.descriptor)
        os.close(self.descriptor)
        self.descriptor = below

    def make(self, segment: str) -> None:
        """A folder that pods of any user can read, whatever the umask; an existing one is kept."""
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
    """An error names the whole path: calls by descriptors name its last part."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
