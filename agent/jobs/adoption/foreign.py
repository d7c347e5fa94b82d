"""Reads a folder that another program filled, and changes nothing in it. Raises OSError."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from localmodel.agent.disk.beneath import find, open_file
from localmodel.agent.disk.files import read_whole
from localmodel.agent.engine.digests import Digests, is_cheap
from localmodel.agent.jobs.adoption.compare import Seen
from localmodel.agent.structs.failures import CancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from localmodel.agent.structs.remote import Checksum

_KINDS = {
    stat.S_IFLNK: "a symbolic link, which is not followed",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}

# Path, inode, size and change time (ctime) of a folder and of everything in it. No program can set
# the ctime.
Signature = frozenset[tuple[str, int, int, int]]


def signature(tree: Path) -> Signature:
    """A value that changes with every change in a folder. No file is read."""
    top = os.lstat(tree)
    found = {(str(tree), top.st_ino, top.st_size, top.st_ctime_ns)}
    for folder, folders, names in os.walk(tree):
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
    return "" if stat.S_ISDIR(mode) else f"it is {_kind(mode)}"


def _seen(path: str, at: str, found: os.stat_result | None) -> Seen | None:
    if found is None:
        return None
    if at == path and stat.S_ISREG(found.st_mode):
        return Seen(found.st_size)
    return Seen(instead=f"{at!r} is {_kind(found.st_mode)}")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


class Reader:
    """Reads files of one folder. `report` is called with the total of bytes read."""

    def __init__(
        self, tree: Path, stopped: Callable[[], bool], report: Callable[[int], None]
    ) -> None:
        self._tree = tree
        self._stopped = stopped
        self._report = report
        self._done = 0

    def skip(self, size: int) -> None:
        """Count the bytes of a file as read."""
        self._done += size
        self._report(self._done)

    def digests(self, path: str, checksum: Checksum | None, *, ours: bool) -> Digests | None:
        """The digests of a file; None if it changed meanwhile. Raises CancelledError too.

        As in a download, SHA-256 is left out where the store's checksum is cheaper, unless `ours`.
        """
        descriptor = open_file(self._tree, path)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            before = os.fstat(descriptor)
            digests = Digests(checksum, before.st_size, ours=ours or not is_cheap(checksum))

            def take(piece: memoryview) -> None:
                # Copied, since the checksums of awscrt accept only bytes.
                digests.update(bytes(piece))
                self.skip(len(piece))

            try:
                read_whole(file, take, self._stopped)
            except InterruptedError:
                raise CancelledError from None
            after = os.fstat(descriptor)
        same = (before.st_size, before.st_ctime_ns) == (after.st_size, after.st_ctime_ns)
        return digests if same and digests.position == after.st_size else None
