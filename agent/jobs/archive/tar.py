"""Unpacks a tar, which is read forward only and once."""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from agent.jobs.archive.layout import BROKEN
from agent.jobs.archive.packed import TooLargeDictionaryError, opened
from agent.structs.archive_kinds import ArchiveKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.jobs.archive.layout import Layout, Stream

# The bytes of headers of one member, and of all members: tarfile reads as many as they announce.
MAX_HEADER_BYTES = 1 << 20
MAX_HEADERS_BYTES = 256 << 20
# The bytes that may follow the end of a tar.
MAX_PADDING_BYTES = 64 << 20

_PIECE = 1 << 20
_BLOCK = 512
# Numbers in a header are short, and tarfile needs quadratic time for a long one.
_LONG_NUMBER = re.compile(rb"\d{64}")
_ALL_BROKEN = (*BROKEN, tarfile.TarError)


class _TarStream:
    """The bytes of an archive, forward only, with limits for the headers that tarfile reads."""

    def __init__(self, raw: BinaryIO, layout: Layout) -> None:
        self._raw = raw
        self._layout = layout
        self._at = 0
        self._last = b""
        self._headers = 0
        self.budget = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Read a part of a header. Called by tarfile."""
        self.budget -= max(size, _BLOCK)
        self._headers += max(size, _BLOCK)
        if size < 0 or self.budget < 0 or self._headers > MAX_HEADERS_BYTES:
            raise self._layout.corrupt()
        found = self.piece(size)
        if size > _BLOCK and _LONG_NUMBER.search(found):
            raise self._layout.corrupt()
        self._last = found
        return found

    def piece(self, size: int) -> bytes:
        """Read a part of the content of a member."""
        try:
            found = self._raw.read(size)
        except TooLargeDictionaryError:
            raise self._layout.too_large_dictionary() from None
        except _ALL_BROKEN:
            raise self._layout.corrupt() from None
        self._at += len(found)
        return found

    def skip_to(self, offset: int) -> None:
        """Skip bytes up to this offset."""
        while self._at < offset:
            if not self.piece(min(_PIECE, offset - self._at)):
                raise self._layout.corrupt()
        if self._at > offset:
            raise self._layout.corrupt()

    def tell(self) -> int:
        return self._at

    def seek(self, _offset: int) -> int:
        # tarfile seeks backward only in a damaged archive: each header follows a content.
        raise self._layout.corrupt()

    def check_end(self, *, compressed: bool) -> None:
        """Raise DownloadError (Corrupt) unless the tar, and its compression, end here.

        tarfile accepts any block that is no header as the end. Some programs write no end: then a
        compressed tar is still known to be complete if the compressed data is.
        """
        left = MAX_PADDING_BYTES
        is_end = len(self._last) == _BLOCK and not any(self._last)
        if not is_end and (self._last or not compressed):
            raise self._layout.corrupt()
        while found := self.piece(_PIECE):
            left -= len(found)
            if left < 0:
                raise self._layout.corrupt()


class _TarMember:
    """The content of one member of a tar, `size` bytes of the archive."""

    def __init__(self, stream: _TarStream, size: int, layout: Layout) -> None:
        self._stream = stream
        self._left = size
        self._layout = layout

    def read(self, size: int) -> bytes:
        found = self._stream.piece(min(size, self._left)) if self._left else b""
        if self._left and size and not found:
            raise self._layout.corrupt()
        self._left -= len(found)
        return found


class _SparseMember:
    """The content of a sparse member, whose zeros are not stored."""

    def __init__(self, stream: _TarStream, member: tarfile.TarInfo, layout: Layout) -> None:
        # Pairs: the number of zeros, and the number of stored bytes after them.
        runs = _runs(member, layout)
        self._runs = iter(runs)
        self._zeros, self._stored = 0, 0
        self._data = _TarMember(stream, sum(stored for _, stored in runs), layout)

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


def _runs(member: tarfile.TarInfo, layout: Layout) -> list[tuple[int, int]]:
    """The pairs of zeros and stored bytes of a sparse member. Raises DownloadError (Corrupt)."""
    runs, at = [], 0
    for offset, stored in cast("list[tuple[int, int]]", member.sparse):
        if not stored:
            # Unused entries of a header, and the mark of the end.
            continue
        if offset < at or stored < 0 or offset + stored > member.size:
            raise layout.corrupt()
        runs.append((offset - at, stored))
        at = offset + stored
    return [*runs, (member.size - at, 0)]


def untar(archive: Path, layout: Layout, kind: ArchiveKind) -> None:
    """Add all members of a tar to the layout."""
    for member, stream in _members(archive, layout, kind):
        if member.isdir():
            layout.folder(member.name)
        elif member.issym():
            layout.link(member.name, member.linkname)
        elif member.islnk():
            layout.hard_link(member.name, member.linkname)
        elif member.isreg():
            layout.file(member.name, member.size, stream)
        else:
            raise layout.refused(member.name, "is neither a file nor a folder nor a link")


def _members(
    archive: Path, layout: Layout, kind: ArchiveKind
) -> Iterator[tuple[tarfile.TarInfo, Stream]]:
    """The members with their contents. Each content is to be read before the next member."""
    with archive.open("rb") as file, opened(file, kind, layout.sink.check) as raw:
        stream = _TarStream(raw, layout)
        tar: Any = None
        while True:
            stream.budget = MAX_HEADER_BYTES
            try:
                if tar is None:
                    tar = tarfile.TarFile(fileobj=cast("BinaryIO", stream))
                member = tar.next()
            except _ALL_BROKEN:
                raise layout.corrupt() from None
            if member is None:
                stream.check_end(compressed=kind is not ArchiveKind.TAR)
                return
            if member.size < 0 or member.offset_data != stream.tell():
                raise layout.corrupt()
            # tarfile would keep all members in memory; global headers are not supported.
            tar.members.clear()
            tar.pax_headers.clear()
            if member.sparse is not None:
                yield member, _SparseMember(stream, member, layout)
            else:
                yield member, _TarMember(stream, member.size if member.isreg() else 0, layout)
            stream.skip_to(tar.offset)
