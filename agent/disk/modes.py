"""Modes of published files: model servers of any user must be able to read them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from agent.disk.files import walk
from agent.disk.no_follow import holding, look_in
from agent.structs.manifest import folders

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

# The bits that everybody needs on a file, and on the folders above it.
_READ = 0o444
_ENTER = 0o555

_Inode = tuple[int, int]


def is_closed(mode: int) -> bool:
    """Whether some users cannot read a file, or enter a folder, of this mode."""
    return mode & _needed(mode) != _needed(mode)


def closed_problem(mode: int) -> str:
    """The problem with a file or a folder of such a mode, for a message."""
    return f"has the mode {stat.S_IMODE(mode):04o}, so that servers of other users cannot read it"


def open_up(
    tree: Path, paths: Collection[str], *, beside: Path | None = None
) -> Iterator[tuple[str, str]]:
    """Make these files, and the folders above them, readable to everybody.

    Yields each path whose mode cannot be changed, with the reason; the tree itself is ".". Links
    are not followed, and no other bits are changed. A file with hard links outside the tree, and
    outside of its view (`beside`), is left as it is, since it would become readable there too.
    Raises OSError.
    """

    @cache
    def names() -> Counter[_Inode]:
        return _names_in(tree) + (_names_in(beside) if beside else Counter())

    above = (".", *sorted(folders(paths)))
    for path in chain(above, _maybe_closed(tree, paths)):
        problem = _open_up(tree, path, names)
        if problem:
            yield path, problem


def closed_folders(tree: Path, paths: Iterable[str]) -> dict[str, str]:
    """The folders above these files that some users cannot enter, with the problem of each."""
    found = {}
    for path in (".", *sorted(folders(paths))):
        with suppress(FileNotFoundError, NotADirectoryError):
            mode = (tree / path).lstat().st_mode
            if is_closed(mode):
                found[path] = closed_problem(mode)
    return found


def _maybe_closed(tree: Path, paths: Iterable[str]) -> Iterator[str]:
    """The files without those that everybody can read already.

    Files are looked at one folder after the other, since each way to a folder takes several calls.
    """
    below: dict[str, list[str]] = {}
    for path in sorted(paths):
        folder, _, name = path.rpartition("/")
        below.setdefault(folder or ".", []).append(name)
    for folder, names in below.items():
        # Missing files are found by the comparison with the manifest.
        with suppress(FileNotFoundError, NotADirectoryError):
            for name, found in look_in(tree, folder, names):
                if found is not None and is_closed(found.st_mode):
                    yield name if folder == "." else f"{folder}/{name}"


def _open_up(tree: Path, path: str, names: Callable[[], Counter[_Inode]]) -> str:
    try:
        return _open_one(tree, path, names)
    except (FileNotFoundError, NotADirectoryError):
        # Missing files are found by the comparison with the manifest.
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
            # By way of /proc: fchmod refuses descriptors that were opened without read access.
            os.chmod(  # noqa: PTH101
                f"/proc/self/fd/{descriptor}", stat.S_IMODE(found.st_mode) | _needed(found.st_mode)
            )
        except PermissionError as error:
            return f"{problem}, and the agent may not change that ({error.strerror})"
    return ""


def _needed(mode: int) -> int:
    return _ENTER if stat.S_ISDIR(mode) else _READ


def _names_in(tree: Path) -> Counter[_Inode]:
    """The number of hard links to each file within a folder."""
    return Counter(
        _inode(os.lstat(os.path.join(folder, name)))  # noqa: PTH118 - many files
        for folder, _, names in walk(tree, skips_closed=True)
        for name in names
    )


def _inode(found: os.stat_result) -> _Inode:
    return found.st_dev, found.st_ino
