"""Reads a folder that another program filled, and changes nothing in it. Raises OSError."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.disk.files import walk
from agent.disk.no_follow import find
from agent.disk.verify import kind_of
from agent.jobs.adoption.compare import Seen

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


# Path, inode, size and change time (ctime) of a folder and of everything in it. No program can set
# the ctime.
Signature = frozenset[tuple[str, int, int, int]]


def signature(tree: Path) -> Signature:
    """A value that changes with every change in a folder. No file is read."""
    top = os.lstat(tree)
    found = {(str(tree), top.st_ino, top.st_size, top.st_ctime_ns)}
    for folder, folders, names in walk(tree, skips_closed=True):
        for name in (*folders, *names):
            path = os.path.join(folder, name)  # noqa: PTH118 - many files
            with suppress(FileNotFoundError):
                one = os.lstat(path)
                found.add((path, one.st_ino, one.st_size, one.st_ctime_ns))
    return frozenset(found)


def look(tree: Path, paths: Iterable[str]) -> dict[str, Seen | None]:
    """What is at the path of each file; None if nothing is there."""
    return {path: _seen(path, *find(tree, path)) for path in paths}


def instead_of_folder(tree: Path) -> str:
    """What is there instead of a folder; empty if it is a folder."""
    mode = tree.lstat().st_mode
    return "" if stat.S_ISDIR(mode) else f"it is {kind_of(mode)}"


def _seen(path: str, at: str, found: os.stat_result | None) -> Seen | None:
    if found is None:
        return None
    if at == path and stat.S_ISREG(found.st_mode):
        return Seen(found.st_size)
    return Seen(instead=f"{at!r} is {kind_of(found.st_mode)}")
