"""A tar's files, read forward only: links become copies of files that are in the archive too.

Every other kind of member is refused. Each further read of the archive makes one copy of each file.
"""

from __future__ import annotations

import gzip
import posixpath
import re
import tarfile
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from agent.archive.plan import BROKEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.archive.plan import Plan, Stream

# Of one member with its extensions: tarfile reads what a header announces.
MAX_HEADER_BYTES = 1 << 20
# What may follow a tar's end.
MAX_PADDING_BYTES = 64 << 20
# Links to links, and links to one file.
MAX_CHAIN = 40
MAX_COPIES = 16

_PIECE = 1 << 20
_BLOCK = 512
# Numbers in a header are short, and tarfile needs quadratic time for a long one.
_LONG_NUMBER = re.compile(rb"\d{64}")
_ALL_BROKEN = (*BROKEN, tarfile.TarError, gzip.BadGzipFile)


class _TarStream:
    """The archive's bytes, forward only, with a limit for what tarfile reads of headers."""

    def __init__(self, raw: BinaryIO, plan: Plan) -> None:
        self._raw = raw
        self._plan = plan
        self._at = 0
        self._last = b""
        self.budget = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """A part of a header, for tarfile."""
        self.budget -= max(size, _BLOCK)
        if size < 0 or self.budget < 0:
            raise self._plan.corrupt()
        found = self.piece(size)
        if size > _BLOCK and _LONG_NUMBER.search(found):
            raise self._plan.corrupt()
        self._last = found
        return found

    def piece(self, size: int) -> bytes:
        """A part of a content."""
        try:
            found = self._raw.read(size)
        except _ALL_BROKEN:
            raise self._plan.corrupt() from None
        self._at += len(found)
        return found

    def skip_to(self, offset: int) -> None:
        """Go forward."""
        while self._at < offset:
            if not self.piece(min(_PIECE, offset - self._at)):
                raise self._plan.corrupt()

    def tell(self) -> int:
        return self._at

    def seek(self, _offset: int) -> int:
        # Each header is read where the last content ended.
        raise self._plan.corrupt()

    def check_end(self) -> None:
        """Raises DownloadError (Corrupt) unless this is a tar's end, and then a gzip's.

        tarfile takes any block that is no header for the end.
        """
        left = MAX_PADDING_BYTES
        if len(self._last) < _BLOCK or any(self._last):
            raise self._plan.corrupt()
        while found := self.piece(_PIECE):
            left -= len(found)
            if left < 0:
                raise self._plan.corrupt()


class _TarMember:
    """The content of one member of a tar."""

    def __init__(self, stream: _TarStream, size: int, plan: Plan) -> None:
        self._stream = stream
        self._left = size
        self._plan = plan

    def read(self, size: int) -> bytes:
        found = self._stream.piece(min(size, self._left)) if self._left else b""
        if self._left and size and not found:
            raise self._plan.corrupt()
        self._left -= len(found)
        return found


def untar(archive: Path, plan: Plan, *, compressed: bool) -> None:
    """Write every file of a tar, and then a copy for every link."""
    links: dict[str, str] = {}
    for member, stream in _members(archive, plan, compressed=compressed):
        if member.isdir():
            plan.path(member.name, folder=True)
        elif member.issym() or member.islnk():
            path = plan.path(member.name)
            links[path] = _target(member, path, plan)
        elif member.isreg() and member.sparse is None:
            plan.put(plan.path(member.name), member.size, stream)
        else:
            raise plan.refused(member.name, "is neither a file nor a folder nor a link")
    copies = _copies(links, plan)
    # One more read for each copy that a file has: usually one.
    while copies:
        wanted = {path: places.pop() for path, places in copies.items()}
        copies = {path: places for path, places in copies.items() if places}
        for member, stream in _members(archive, plan, compressed=compressed):
            place = wanted.get(posixpath.normpath(member.name)) if member.isreg() else None
            if place is not None:
                plan.put(place, member.size, stream)


def _opened(archive: Path, *, compressed: bool) -> BinaryIO:
    return cast("BinaryIO", gzip.open(archive)) if compressed else archive.open("rb")


def _members(
    archive: Path, plan: Plan, *, compressed: bool
) -> Iterator[tuple[tarfile.TarInfo, Stream]]:
    """The members with their contents. Each content is to be read before the next member."""
    with _opened(archive, compressed=compressed) as raw:
        stream = _TarStream(raw, plan)
        tar: Any = None
        while True:
            stream.budget = MAX_HEADER_BYTES
            try:
                if tar is None:
                    tar = tarfile.TarFile(fileobj=cast("BinaryIO", stream))
                member = tar.next()
            except _ALL_BROKEN:
                raise plan.corrupt() from None
            if member is None:
                stream.check_end()
                return
            if member.size < 0 or member.offset_data != stream.tell():
                raise plan.corrupt()
            # tarfile keeps what it has read, and headers for all members have no place here.
            tar.members.clear()
            tar.pax_headers.clear()
            yield member, _TarMember(stream, member.size if member.isreg() else 0, plan)
            stream.skip_to(tar.offset)


def _target(member: tarfile.TarInfo, path: str, plan: Plan) -> str:
    """The path that a link leads to."""
    plan.remember(member.name, member.linkname)
    folder = posixpath.dirname(path) if member.issym() else ""
    target = posixpath.normpath(posixpath.join(folder, member.linkname))
    if member.linkname.startswith("/") or target.split("/")[0] in {"..", "."}:
        raise plan.refused(member.name, f"is a link that leaves the archive ({_short(member)})")
    return target


def _short(member: tarfile.TarInfo) -> str:
    return repr(member.linkname)[:300]


def _copies(links: dict[str, str], plan: Plan) -> dict[str, list[str]]:
    """For each file that links lead to, the paths that become copies of it."""
    copies: dict[str, list[str]] = {}
    for path, first in links.items():
        target = first
        for _ in range(MAX_CHAIN):
            target = links.get(target, target)
        if target in links or target not in plan.files:
            raise plan.refused(path, f"is a link to no file in the archive ({first[:300]!r})")
        copies.setdefault(target, []).append(path)
        if len(copies[target]) > MAX_COPIES:
            raise plan.refused(path, f"is one of more than {MAX_COPIES} links to one file")
    return copies
