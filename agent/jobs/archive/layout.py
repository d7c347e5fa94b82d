"""The paths of an archive that is being unpacked, and their limits. An archive is a tenant's input.

A member replaces an earlier one of the same name. A published model has no links: each link becomes
a copy of its target, hard links at once and symbolic links at the end.
"""

from __future__ import annotations

import lzma
import posixpath
import struct
import zlib
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

from agent.structs.failures import DownloadError, FailureKind
from agent.structs.log import log
from agent.structs.manifest import check_path
from crds.quantity import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The number of members, copies for links included.
MAX_MEMBERS = 100_000
# The length of one path, and of all paths that are kept in memory.
MAX_PATH_LENGTH = 4000
MAX_PATHS_LENGTH = 64 << 20
# The depth of links to links and of folders in folders; and the path segments that are resolved in
# all.
MAX_CHAIN = 40
MAX_STEPS = 5_000_000
# The errors that modules of the standard library raise for bytes that are no archive.
BROKEN = (
    EOFError,
    IndexError,
    OverflowError,
    RecursionError,
    ValueError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)

_PIECE = 1 << 20


class Stream(Protocol):
    """The content of one member. Raises DownloadError (Corrupt) if it is incomplete."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


class Sink(Protocol):
    """Receives the unpacked files. Its exceptions are passed on."""

    def check(self) -> None:
        """Raise if the files are not wanted any more."""
        ...

    def write(self, path: str, size: int, stream: Stream) -> None:
        """Write a new file. What it leaves unread of the stream is skipped."""
        ...

    def open(self, path: str) -> BinaryIO:
        """Open a written file for reads."""
        ...

    def drop(self, path: str) -> None:
        """Delete a written file."""
        ...


@dataclass
class Layout:
    """The files, folders and links that were unpacked, and the limits of an archive.

    `links` has the targets of links by their paths, as written in the archive. A target with a
    leading `/` is that of a hard link: a path in the archive.
    """

    name: str
    sink: Sink
    left: int
    files: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    members: int = 0
    remembered: int = 0
    steps: int = 0

    def file(self, name: str, size: int, stream: Stream) -> None:
        """Add a file, and write it if there is room for it."""
        path = self._new(name)
        self._put(path, size, stream)
        self.files[path] = size

    def folder(self, name: str) -> None:
        """Add a folder."""
        self._count(name)
        path = self._resolve(name, [], name, last=True)
        if path:
            self._enter(name, path)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        path = self._new(name)
        if target.startswith("/") or not target:
            raise self._leaves(name, target)
        self.remember(name, target)
        # Raises if the target lies outside the archive.
        self._resolve(name, _folder(path), target, last=True)
        self.links[path] = target

    def hard_link(self, name: str, target: str) -> None:
        """Write a copy of the target of a hard link."""
        if target.startswith("/"):
            raise self._leaves(name, target)
        there = self._resolve(name, [], target, last=False)
        if there == self._resolve(name, [], name, last=False) and self._has(there):
            # The link is the file itself, which was packed twice.
            self._count(name)
            return
        path = self._new(name)
        if there in self.files:
            with self.sink.open(there) as content:
                self._put(path, self.files[there], content)
            self.files[path] = self.files[there]
        elif there in self.links:
            self.links[path] = self.links[there]
            self._resolve(name, [], path, last=True)
        else:
            self.remember(name, there)
            self.links[path] = f"/{there}"

    def finish(self) -> None:
        """Write copies of the targets of all links that are left."""
        paths = sorted(self.files.keys() | self.links.keys())
        for path in self.links:
            self._copy(path, path, paths, ())

    def _copy(self, link: str, path: str, paths: Sequence[str], within: tuple[str, ...]) -> None:
        """Write copies of a link's target at a path. `within` are the linked folders around it.

        A symbolic link without a target is left out: it could not be read either.
        """
        self._count(link)
        is_hard = self.links[link].startswith("/")
        there = self._resolve(link, [], link, last=True)
        if there in self.files:
            self._copy_file(there, path, link)
        elif is_hard:
            raise self.refused(link, f"is a link to no file in the archive ({there[:300]!r})")
        elif there in self.folders or not there:
            circles = not there or there in within or link.startswith(f"{there}/")
            if circles or len(within) >= MAX_CHAIN:
                raise self.refused(link, "is a link to a folder that the link itself is in")
            for inner in _below(there, paths):
                below = path + inner.removeprefix(there)
                if inner in self.links:
                    self._copy(inner, below, paths, (*within, there))
                else:
                    self._count(link)
                    self._copy_file(inner, below, link)
        else:
            log.info("Link to nothing is left out", archive=self.name, path=link[:300])

    def _copy_file(self, source: str, path: str, link: str) -> None:
        if len(path) > MAX_PATH_LENGTH:
            raise self._too_long(link)
        self.remember(link, path)
        with self.sink.open(source) as content:
            self._put(path, self.files[source], content)

    def _new(self, name: str) -> str:
        """The path of a new member. An earlier member there is deleted."""
        self._count(name)
        path = self._resolve(name, [], name, last=False)
        try:
            check_path(path)
        except ValueError as error:
            raise self.refused(name, f"cannot be stored ({str(error)[:300]})") from None
        if path in self.folders:
            raise self._twice(name)
        self._enter(name, posixpath.dirname(path))
        if path in self.files:
            self.left += self.files.pop(path)
            self.sink.drop(path)
        elif path in self.links:
            del self.links[path]
        else:
            self.remember(name, path)
        return path

    def _enter(self, name: str, folder: str) -> None:
        """Add a folder and those above it."""
        while folder and folder not in self.folders:
            if folder in self.files or folder in self.links:
                raise self._twice(name)
            self.remember(name, folder)
            self.folders.add(folder)
            folder = posixpath.dirname(folder)

    def _has(self, path: str) -> bool:
        return path in self.files or path in self.links

    def _resolve(self, member: str, folder: list[str], name: str, *, last: bool) -> str:
        """The path of a name in a folder with all links resolved; with `last`, that of a link too.

        A circle of links ends at one of them. Raises DownloadError (Unsupported) for a path that
        leaves the archive.
        """
        if len(name) > MAX_PATH_LENGTH:
            raise self._too_long(member)
        here, todo, chain = list(folder), deque(name.split("/")), 0
        while todo:
            segment = todo.popleft()
            self._step(member)
            if segment in {"", "."}:
                continue
            if segment == "..":
                if not here:
                    raise self._leaves(member, name)
                here.pop()
                continue
            here.append(segment)
            if not self.links or not (last or any(one not in {"", "."} for one in todo)):
                continue
            target = self.links.get("/".join(here))
            if target is not None:
                chain += 1
                if chain > MAX_CHAIN:
                    if last:
                        break
                    raise self.refused(member, "lies behind links that lead in circles")
                here = [] if target.startswith("/") else here[:-1]
                todo.extendleft(reversed(target.split("/")))
        return "/".join(here)

    def _step(self, member: str) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise self.refused(member, "comes after others whose paths are too long together")

    def _count(self, name: str) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise self.refused(name, f"comes after {MAX_MEMBERS} others, which are too many")

    def remember(self, member: str, *texts: str) -> None:
        """Raise DownloadError (Unsupported) if the paths are too long together for the memory."""
        self.remembered += sum(map(len, texts))
        if self.remembered > MAX_PATHS_LENGTH:
            raise self.refused(member, "comes after others whose paths are too long together")

    def _put(self, path: str, size: int, stream: Stream) -> None:
        if size > self.left:
            raise DownloadError(
                FailureKind.NO_SPACE,
                f"{self.name} is too large when unpacked: {path[-300:]!r} needs "
                f"{format_quantity(size)}, and {format_quantity(self.left)} are left: make space "
                "on the node",
            )
        self.left -= size
        self.sink.write(path, size, stream)
        while stream.read(_PIECE):
            pass

    def refused(self, member: str, why: str) -> DownloadError:
        """The failure for a member that is not supported."""
        shown = member if member == "it" else repr(member)[:300]
        return DownloadError(
            FailureKind.UNSUPPORTED,
            f"{self.name} is not unpacked: {shown} {why}; make the archive anew without it",
        )

    def corrupt(self) -> DownloadError:
        """The failure for a damaged archive."""
        return DownloadError(
            FailureKind.CORRUPT,
            f"{self.name} is damaged or not whole: check the archive at its source, it is tried "
            "again by itself",
        )

    def too_large_dictionary(self) -> DownloadError:
        """The failure for an LZMA dictionary above the limit of memory."""
        return self.refused("it", "is compressed with an LZMA dictionary of more than 64 MiB")

    def _twice(self, name: str) -> DownloadError:
        return self.refused(name, "is in it twice, as a file and as a folder")

    def _too_long(self, name: str) -> DownloadError:
        return self.refused(name, f"has a path of more than {MAX_PATH_LENGTH} characters")

    def _leaves(self, name: str, target: str) -> DownloadError:
        if target == name:
            return self.refused(name, "leaves the archive")
        return self.refused(name, f"is a link that leaves the archive ({repr(target)[:300]})")


def _folder(path: str) -> list[str]:
    return path.split("/")[:-1]


def _below(folder: str, paths: Sequence[str]) -> Iterator[str]:
    """The paths in a folder, out of sorted `paths`."""
    start = f"{folder}/"
    for at in range(bisect_left(paths, start), len(paths)):
        if not paths[at].startswith(start):
            return
        yield paths[at]
