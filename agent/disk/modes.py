"""Modes of published files: servers run as any user, and have to read them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from localmodel.agent.disk.beneath import holding
from localmodel.agent.structs.manifest import folders

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

# What everybody needs of a file, and of a folder on the way to it.
_READ = 0o444
_ENTER = 0o555

_Inode = tuple[int, int]


def is_closed(mode: int) -> bool:
    """Whether a file or a folder of this mode is closed to anybody."""
    return mode & _needed(mode) != _needed(mode)


def closed_problem(mode: int) -> str:
    """What is wrong with a file or a folder of such a mode."""
    return f"has the mode {stat.S_IMODE(mode):04o}, so that servers of other users cannot read it"


def open_up(tree: Path, paths: Collection[str]) -> Iterator[tuple[str, str]]:
    """Add to the modes of these files, and of their folders, what everybody needs to read them.

    Yields each path where that cannot be done, and why, when it comes to it; the tree itself is
    ".". No link is followed, and no other bit is changed. A file that has names elsewhere too is
    left as it is, since it would be opened there as well. Raises OSError.
    """

    @cache
    def names() -> Counter[_Inode]:
        return _names_in(tree)

    for path in (".", *sorted(folders(paths)), *sorted(paths)):
        problem = _open_up(tree, path, names)
        if problem:
            yield path, problem


def closed_folders(tree: Path, paths: Iterable[str]) -> dict[str, str]:
    """The folders of these files that are closed to anybody, and what is wrong with each."""
    found = {}
    for path in (".", *sorted(folders(paths))):
        with suppress(FileNotFoundError):
            mode = (tree / path).lstat().st_mode
            if is_closed(mode):
                found[path] = closed_problem(mode)
    return found


def _open_up(tree: Path, path: str, names: Callable[[], Counter[_Inode]]) -> str:
    try:
        return _open_one(tree, path, names)
    except (FileNotFoundError, NotADirectoryError):
        # That it is not there is another matter.
        return ""


def _open_one(tree: Path, path: str, names: Callable[[], Counter[_Inode]]) -> str:
    with holding(tree, path) as descriptor:
        found = os.fstat(descriptor)
        if not is_closed(found.st_mode):
            return ""
        problem = closed_problem(found.st_mode)
        if not stat.S_ISDIR(found.st_mode) and found.st_nlink > names()[_inode(found)]:
            return f"{problem}, and it has other names elsewhere (hard links)"
        try:
            # The descriptor reaches the file without the right to read it, and fchmod refuses it.
            os.chmod(  # noqa: PTH101
                f"/proc/self/fd/{descriptor}", stat.S_IMODE(found.st_mode) | _needed(found.st_mode)
            )
        except PermissionError as error:
            return f"{problem}, and the agent may not change that ({error.strerror})"
    return ""


def _needed(mode: int) -> int:
    return _ENTER if stat.S_ISDIR(mode) else _READ


def _names_in(tree: Path) -> Counter[_Inode]:
    """How many names each file has in a folder."""
    return Counter(
        _inode(os.lstat(os.path.join(folder, name)))  # noqa: PTH118 - many files
        for folder, _, names in os.walk(tree)
        for name in names
    )


def _inode(found: os.stat_result) -> _Inode:
    return found.st_dev, found.st_ino
