"""Verifies the files of a model on the disk: the one reader of what is there. Raises OSError.

A repair, a scrub, an adoption, a digest that is computed after publication and `pull --verify` read
files with a Verifier. It changes nothing and follows no link, since others may write to a folder
that is adopted.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from agent.disk.digests import Digests
from agent.disk.no_follow import find, open_file
from agent.structs.failures import CancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.structs.remote import Checksum

READ_BYTES = 1 << 20
# What is wrong with a file that was published as another one.
DIFFERS = "has other content than was downloaded"
_KINDS = {
    stat.S_IFLNK: "a symbolic link, which is not followed",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


class Fault(Enum):
    """What is wrong with a file."""

    # Nothing is at its path, or no regular file is.
    MISSING = auto()
    NOT_A_FILE = auto()
    # Its size, the source's checksum or our SHA-256 is another one.
    SIZE = auto()
    CHECKSUM = auto()
    CONTENT = auto()


@dataclass(frozen=True)
class Expected:
    """What a file should be. None: not known."""

    path: str
    size: int | None = None
    checksum: Checksum | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What was found of a file.

    `kind` names in words what is in the place of a regular file. `sha256` is None where the file
    was not read, or only for the cheaper checksum of its source. `changed` is whether the file was
    written to while it was read.
    """

    path: str
    fault: Fault | None
    size: int = 0
    mode: int = 0
    kind: str = ""
    sha256: str | None = None
    changed: bool = False


class Verifier:
    """Reads files below one folder.

    `report` gets the number of bytes of each piece that was read. `pieces` reads an open file; each
    of its pieces is good until the next one.
    """

    def __init__(
        self,
        tree: Path,
        stopped: Callable[[], bool],
        *,
        report: Callable[[int], object] = lambda _: None,
        pieces: Callable[[int], Iterator[memoryview]] | None = None,
    ) -> None:
        self._tree = tree
        self._stopped = stopped
        self._report = report
        self._pieces = pieces or read_pieces

    def verify(self, expected: Expected, *, ours: bool = True) -> Verdict:
        """Read a file and compare it. Raises CancelledError once stopped.

        Without `ours`, our own digest is left out where the checksum of the source is cheaper. A
        file of another size is not read.
        """
        path = expected.path
        try:
            at, found = find(self._tree, path)
            if found is None:
                return Verdict(path, Fault.MISSING)
            if at != path or not stat.S_ISREG(found.st_mode):
                return Verdict(path, Fault.NOT_A_FILE, kind=kind_of(found.st_mode))
            descriptor = open_file(self._tree, path)
        except FileNotFoundError:
            # The whole folder is missing, or the file was deleted meanwhile.
            return Verdict(path, Fault.MISSING)
        try:
            return self._compare(descriptor, expected, ours=ours)
        finally:
            os.close(descriptor)

    def _compare(self, descriptor: int, expected: Expected, *, ours: bool) -> Verdict:
        before = os.fstat(descriptor)
        size, mode = before.st_size, before.st_mode
        if expected.size not in {None, size}:
            return Verdict(expected.path, Fault.SIZE, size, mode)
        digests = Digests(expected.checksum, size, ours=ours)
        for piece in self._pieces(descriptor):
            if self._stopped():
                raise CancelledError
            digests.update(piece)
            self._report(len(piece))
        after = os.fstat(descriptor)
        steady = (size, before.st_ctime_ns) == (after.st_size, after.st_ctime_ns)
        return Verdict(
            expected.path,
            _fault(expected, digests),
            digests.position,
            mode,
            sha256=digests.sha256,
            changed=not steady or digests.position != size,
        )


def _fault(expected: Expected, digests: Digests) -> Fault | None:
    if expected.checksum is not None:
        return None if digests.agree else Fault.CHECKSUM
    if expected.sha256 is not None and expected.sha256 != digests.sha256:
        return Fault.CONTENT
    return None


def read_pieces(descriptor: int) -> Iterator[memoryview]:
    """All bytes of an open file, as fast as they come."""
    buffer = memoryview(bytearray(READ_BYTES))
    while count := os.readv(descriptor, [buffer]):
        yield buffer[:count]


def kind_of(mode: int) -> str:
    """What a file of this mode is, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")
