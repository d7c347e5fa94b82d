"""Whether the paths of the root still lead to the folders that the agent started with.

If a disk is mounted over these folders, they are hidden: paths lead to the new disk, and only files
that are open already are still those of the former one.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROC = Path("/proc/thread-self")


class MovedError(OSError):
    """The paths of the root lead to other folders than before.

    `is_covered`: a disk was mounted over the former folders, which are hidden below it. Otherwise
    the former folders may come back at any time.
    """

    def __init__(self, path: Path, *, is_covered: bool) -> None:
        super().__init__(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        self.is_covered = is_covered


@dataclass(frozen=True)
class DiskIdentity:
    """The file systems and inodes of some folders, and the mount of the first one."""

    folders: tuple[Path, ...]
    identities: tuple[tuple[int, int], ...]
    mount: int | None

    def check(self) -> None:
        """Raise MovedError if other folders are in their place, and OSError if none are."""
        missing = None
        for path, identity in zip(self.folders, self.identities, strict=True):
            try:
                if _identity(path) == identity:
                    continue
            except FileNotFoundError as error:
                missing = missing or error
                continue
            raise MovedError(path, is_covered=self._is_covered())
        if missing is not None:
            if self._is_covered():
                raise MovedError(self.folders[0], is_covered=True)
            raise missing

    def _is_covered(self) -> bool:
        """Whether the first path leads to another mount, while the former one still exists."""
        now = mount_id(self.folders[0])
        return None not in {now, self.mount} and now != self.mount and self.mount in _mounts()


def identify(folders: Sequence[Path]) -> DiskIdentity:
    """The present identity of these folders. Raises OSError."""
    return DiskIdentity(tuple(folders), tuple(map(_identity, folders)), mount_id(folders[0]))


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def mount_id(path: Path) -> int | None:
    """The id of the mount that a folder is in; None if the kernel does not report it."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        text = (_PROC / "fdinfo" / str(descriptor)).read_text()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    numbers = [line.split()[1] for line in text.splitlines() if line.startswith("mnt_id:")]
    return int(numbers[0]) if numbers else None


def _mounts() -> set[int]:
    try:
        lines = (_PROC / "mountinfo").read_text().splitlines()
    except OSError:
        return set()
    return {int(line.split()[0]) for line in lines}
