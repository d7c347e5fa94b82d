"""A tar's members, read forward only and once."""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from localmodel.agent.jobs.archive.layout import BROKEN
from localmodel.agent.jobs.archive.packed import TooLargeDictionaryError, opened
from localmodel.agent.structs.archive_kinds import ArchiveKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localmodel.agent.jobs.archive.layout import Layout, Stream

# Of one member with its extensions, and of all: tarfile reads what a header announces.
MAX_HEADER_BYTES = 1 << 20
MAX_HEADERS_BYTES = 256 << 20
# What may follow a tar's end.
MAX_PADDING_BYTES = 64 << 20

_PIECE = 1 << 20
_BLOCK = 512
# Numbers in a header are short, and tarfile needs quadratic time for a long one.
_LONG_NUMBER = re.compile(rb"\d{64}")
_ALL_BROKEN = (*BROKEN, tarfile.TarError)


class _TarStream:
    """The archive's bytes, forward only, with a limit for what tarfile reads of headers."""

    def __init__(self, raw: BinaryIO, plan: Layout) -> None:
        self._raw = raw
        self._plan = plan
        self._at = 0
        self._last = b""
        self._headers = 0
        self.budget = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """A part of a header, for tarfile."""
        self.budget -= max(size, _BLOCK)
        self._headers += max(size, _BLOCK)
        if size < 0 or self.budget < 0 or self._headers > MAX_HEADERS_BYTES:
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
        except TooLargeDictionaryError:
            raise self._plan.too_large_dictionary() from None
        except _ALL_BROKEN:
            raise self._plan.corrupt() from None
        self._at += len(found)
        return found

    def skip_to(self, offset: int) -> None:
        """Go forward."""
        while self._at < offset:
            if not self.piece(min(_PIECE, offset - self._at)):
                raise self._plan.corrupt()
        if self._at > offset:
            raise self._plan.corrupt()

    def tell(self) -> int:
        return self._at

    def seek(self, _offset: int) -> int:
        # Each header is read where the last content ended.
        raise self._plan.corrupt()

    def check_end(self, *, compressed: bool) -> None:
        """Raises DownloadError (Corrupt) unless this is a tar's end, and then a compression's.

        tarfile takes any block that is no header for the end. Some leave the end away: what is
        compressed is whole nevertheless, if it has its own.
        """
        left = MAX_PADDING_BYTES
        is_end = len(self._last) == _BLOCK and not any(self._last)
        if not is_end and (self._last or not compressed):
            raise self._plan.corrupt()
        while found := self.piece(_PIECE):
            left -= len(found)
            if left < 0:
                raise self._plan.corrupt()


class _TarMember:
    """The content of one member of a tar, of which so many bytes are stored."""

    def __init__(self, stream: _TarStream, size: int, plan: Layout) -> None:
        self._stream = stream
        self._left = size
        self._plan = plan

    def read(self, size: int) -> bytes:
        found = self._stream.piece(min(size, self._left)) if self._left else b""
        if self._left and size and not found:
            raise self._plan.corrupt()
        self._left -= len(found)
        return found


class _SparseMember:
    """The content of a member whose zeros are not stored."""

    def __init__(self, stream: _TarStream, member: tarfile.TarInfo, plan: Layout) -> None:
        # Pairs of zeros and stored bytes that follow each other.
        runs = _runs(member, plan)
        self._runs = iter(runs)
        self._zeros, self._stored = 0, 0
        self._data = _TarMember(stream, sum(stored for _, stored in runs), plan)

    def read(self, size: int) -> bytes:
        while not self._zeros and not self._stored:
            run = next(self._runs, None)
            if run is None:
                return b""
            self._zeros, self._stored = run
        if self._zeros:
            count = min(size, self._zeros, _PIECE)
            self._zeros -= count
            return bytes(count)
        found = self._data.read(min(size, self._stored))
        self._stored -= len(found)
        return found


def _runs(member: tarfile.TarInfo, plan: Layout) -> list[tuple[int, int]]:
    """How many zeros come before how many stored bytes. Raises DownloadError (Corrupt)."""
    runs, at = [], 0
    for offset, stored in cast("list[tuple[int, int]]", member.sparse):
        if not stored:
            # Unused entries of a header, and the mark of the end.
            continue
        if offset < at or stored < 0 or offset + stored > member.size:
            raise plan.corrupt()
        runs.append((offset - at, stored))
        at = offset + stored
    return [*runs, (member.size - at, 0)]


def untar(archive: Path, plan: Layout, kind: ArchiveKind) -> None:
    """Put every file of a tar, and what links lead to."""
    for member, stream in _members(archive, plan, kind):
        if member.isdir():
            plan.folder(member.name)
        elif member.issym():
            plan.link(member.name, member.linkname)
        elif member.islnk():
            plan.hard_link(member.name, member.linkname)
        elif member.isreg():
            plan.file(member.name, member.size, stream)
        else:
            raise plan.refused(member.name, "is neither a file nor a folder nor a link")


def _members(
    archive: Path, plan: Layout, kind: ArchiveKind
) -> Iterator[tuple[tarfile.TarInfo, Stream]]:
    """The members with their contents. Each content is to be read before the next member."""
    with archive.open("rb") as file, opened(file, kind, plan.sink.check) as raw:
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
                stream.check_end(compressed=kind is not ArchiveKind.TAR)
                return
            if member.size < 0 or member.offset_data != stream.tell():
                raise plan.corrupt()
            # tarfile keeps what it has read, and headers for all members have no place here.
            tar.members.clear()
            tar.pax_headers.clear()
            if member.sparse is not None:
                yield member, _SparseMember(stream, member, plan)
            else:
                yield member, _TarMember(stream, member.size if member.isreg() else 0, plan)
            stream.skip_to(tar.offset)
