"""Unpacks a zip with zipfile, except for formats whose output zipfile does not limit."""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from agent.jobs.archive.layout import BROKEN, MAX_MEMBERS, MAX_PATH_LENGTH
from agent.jobs.archive.packed import TooLargeDictionaryError, Unpacked, UnpackedLzma

if TYPE_CHECKING:
    from pathlib import Path

    from agent.jobs.archive.layout import Layout, Stream

# The size of a zip's central directory, which zipfile reads as a whole.
MAX_DIRECTORY_BYTES = 16 << 20

# The most bytes of a content that are read at once.
_PIECE = 1 << 20
# The signature of an entry of the central directory, the local header of a member, and their flags.
_ENTRY = b"PK\x01\x02"
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x41
_HAS_END_MARK = 0x02
_UNIX = 3
_OURS = {zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, *_OURS}
_ALL_BROKEN = (*BROKEN, zipfile.BadZipFile, NotImplementedError)


class _Checked:
    """The content of one member, whose size and CRC are checked."""

    def __init__(self, opened: BinaryIO, info: zipfile.ZipInfo, layout: Layout) -> None:
        self._opened = opened
        self._left = info.file_size
        self._crc = info.CRC
        self._found_crc = 0
        self._layout = layout

    def read(self, size: int) -> bytes:
        try:
            # Also at the end, where there is nothing left: zipfile checks the CRC there.
            found = self._opened.read(min(size, self._left, _PIECE) or 1)
        except TooLargeDictionaryError:
            raise self._layout.too_large_dictionary() from None
        except _ALL_BROKEN:
            raise self._layout.corrupt() from None
        self._left -= len(found)
        self._found_crc = zlib.crc32(found, self._found_crc)
        if self._left < 0 or (self._left and not found):
            raise self._layout.corrupt()
        if not found and self._found_crc != self._crc:
            raise self._layout.corrupt()
        return found


class _ZipFile:
    """A zip file that limits the size of its central directory, which zipfile reads at once."""

    def __init__(self, raw: BinaryIO, layout: Layout) -> None:
        self._raw = raw
        self._layout = layout
        self.seek, self.tell, self.seekable = raw.seek, raw.tell, raw.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise self._layout.refused("it", "has a directory that is too large")
        # zipfile reads without a size only at the end of the file.
        found = self._raw.read(_PIECE if size < 0 else size)
        if len(found) > _PIECE and found.count(_ENTRY) > MAX_MEMBERS:
            raise self._layout.refused("it", f"has more than {MAX_MEMBERS} members")
        return found


def unzip(archive: Path, layout: Layout) -> None:
    """Add all members of a zip to the layout."""
    size = archive.stat().st_size
    with archive.open("rb") as raw:
        try:
            opened = zipfile.ZipFile(_ZipFile(raw, layout))
        except _ALL_BROKEN:
            raise layout.corrupt() from None
        with opened:
            # All members are checked first: a refused archive writes nothing.
            for info in opened.infolist():
                _check(info, layout, size)
            for info in opened.infolist():
                _take(raw, opened, info, layout)


def _take(raw: BinaryIO, opened: zipfile.ZipFile, info: zipfile.ZipInfo, layout: Layout) -> None:
    # The stored name: zipfile cuts `filename` at a zero byte.
    name = info.orig_filename
    if info.is_dir():
        layout.folder(name)
        return
    with _content(raw, opened, info, layout) as content:
        stream = _Checked(content, info, layout)
        if _mode(info) == stat.S_IFLNK:
            layout.link(name, _target(info, stream, layout))
        else:
            layout.file(name, info.file_size, stream)


def _mode(info: zipfile.ZipInfo) -> int:
    """The type bits of a member's Unix mode; 0 if it has none."""
    return stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0


def _check(info: zipfile.ZipInfo, layout: Layout, size: int) -> None:
    name = info.orig_filename
    if not 0 <= info.header_offset < size or not info.filename:
        # zipfile would fail on these with errors of the file system, or of its own code.
        raise layout.corrupt()
    if info.flag_bits & _ENCRYPTED:
        raise layout.refused(name, "is encrypted")
    if _mode(info) not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
        raise layout.refused(name, "is neither a file nor a folder nor a link")
    if info.compress_type not in _COMPRESSIONS:
        raise layout.refused(name, "is compressed otherwise than by deflate, bzip2 or LZMA")
    if ".." in name.split("/"):
        raise layout.refused(name, "has .. in its path")


def _target(info: zipfile.ZipInfo, stream: Stream, layout: Layout) -> str:
    if info.file_size > MAX_PATH_LENGTH:
        raise layout.refused(info.orig_filename, "is a link that is too long")
    target = b"".join(iter(lambda: stream.read(_PIECE), b""))
    return target.decode("utf-8", "surrogateescape")


def _content(
    raw: BinaryIO, opened: zipfile.ZipFile, info: zipfile.ZipInfo, layout: Layout
) -> BinaryIO:
    try:
        if info.compress_type in _OURS:
            return _unpacked(raw, info, layout)
        return cast("BinaryIO", opened.open(info))
    except (*_ALL_BROKEN, RuntimeError):
        raise layout.corrupt() from None


def _unpacked(raw: BinaryIO, info: zipfile.ZipInfo, layout: Layout) -> BinaryIO:
    """The content of formats that zipfile unpacks without a bound. Raises _ALL_BROKEN."""
    raw.seek(info.header_offset)
    sign, name, extra = _LOCAL.unpack(raw.read(_LOCAL.size))
    if sign != b"PK\x03\x04":
        raise EOFError
    raw.seek(name + extra, io.SEEK_CUR)
    left, first = info.compress_size, b""
    if info.compress_type == zipfile.ZIP_LZMA:
        # The LZMA settings follow a version and their length.
        _, length = struct.unpack("<HH", raw.read(4))
        left -= 4 + length
        ends = info.flag_bits & _HAS_END_MARK
        first = raw.read(length) + (b"\xff" * 8 if ends else struct.pack("<Q", info.file_size))

    def read(size: int) -> bytes:
        nonlocal first, left
        found, first = first, b""
        if not found:
            found = raw.read(min(size, left))
            left -= len(found)
        return found

    unpacked = (
        # Preceded by settings and size, the data has the legacy .lzma format.
        UnpackedLzma(read, layout.sink.check, lzma.FORMAT_ALONE)
        if info.compress_type == zipfile.ZIP_LZMA
        else Unpacked(read, bz2.BZ2Decompressor)
    )
    return cast("BinaryIO", io.BufferedReader(unpacked, _PIECE))
