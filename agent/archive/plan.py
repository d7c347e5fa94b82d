"""What of an archive was unpacked already, and what may be. An archive is a tenant's input."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agent.disk.manifest import check_path
from agent.failures import DownloadError, FailureKind
from crds.quantity import format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_MEMBERS = 100_000
# Of one path, and of all that must be remembered.
MAX_PATH_LENGTH = 4000
MAX_PATHS_LENGTH = 64 << 20
# How the modules of the standard library fail on bytes that are no archive.
BROKEN = (EOFError, IndexError, OverflowError, RecursionError, ValueError, struct.error, zlib.error)

_PIECE = 1 << 20


class Stream(Protocol):
    """The content of one member. Raises DownloadError (Corrupt) if it is not whole."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


@dataclass
class Plan:
    """What was unpacked already, and what may be."""

    name: str
    write: Callable[[str, int, Stream], None]
    left: int
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    members: int = 0
    remembered: int = 0

    def path(self, name: str, *, folder: bool = False) -> str:
        """The path of a member in the model; empty for the top folder itself."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise self.refused(name, f"comes after {MAX_MEMBERS} others, which are too many")
        if len(name) > MAX_PATH_LENGTH:
            raise self.refused(name, f"has a path of more than {MAX_PATH_LENGTH} characters")
        path = name
        while path.startswith("./"):
            path = path[2:].lstrip("/")
        path = path.rstrip("/") if folder else path
        if folder and path in {"", "."}:
            return ""
        try:
            segments = check_path(path).split("/")
        except ValueError as error:
            raise self.refused(name, f"cannot be stored ({str(error)[:300]})") from None
        above = {"/".join(segments[:n]) for n in range(1, len(segments))}
        here = above | {path} if folder else above
        twice = not folder and (path in self.files or path in self.folders)
        if twice or here & self.files:
            raise self.refused(name, "is in it twice, as files or as a file and a folder")
        self.remember(name, path, *(here - self.folders))
        self.folders |= here
        if not folder:
            self.files.add(path)
        return path

    def remember(self, member: str, *texts: str) -> None:
        """Raises DownloadError (Unsupported) if these are more than should be kept in memory."""
        self.remembered += sum(map(len, texts))
        if self.remembered > MAX_PATHS_LENGTH:
            raise self.refused(member, "comes after others whose paths are too long together")

    def put(self, path: str, size: int, stream: Stream) -> None:
        """Write one file, if there is room for it."""
        if size > self.left:
            raise DownloadError(
                FailureKind.NO_SPACE,
                f"{self.name} is too large when unpacked: {path[-300:]!r} needs "
                f"{format_quantity(size)}, and {format_quantity(self.left)} are left: make space "
                "on the node",
            )
        self.left -= size
        self.write(path, size, stream)
        while stream.read(_PIECE):
            pass

    def refused(self, member: str, why: str) -> DownloadError:
        """The failure for a member that a model cannot have."""
        shown = member if member == "it" else repr(member)[:300]
        return DownloadError(
            FailureKind.UNSUPPORTED,
            f"{self.name} is not unpacked: {shown} {why}; make the archive anew without it",
        )

    def corrupt(self) -> DownloadError:
        """The failure for an archive that is damaged."""
        return DownloadError(
            FailureKind.CORRUPT,
            f"{self.name} is damaged or not whole: check the archive at its source, it is tried "
            "again by itself",
        )
