"""A zip's members. zipfile reads the directory; what it would unpack without a bound is ours."""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from localmodel.agent.jobs.archive.layout import BROKEN, MAX_MEMBERS, MAX_PATH_LENGTH
from localmodel.agent.jobs.archive.packed import TooLargeDictionaryError, Unpacked, UnpackedLzma

if TYPE_CHECKING:
    from pathlib import Path

    from localmodel.agent.jobs.archive.layout import Layout, Stream

# Of a zip's directory, which zipfile reads whole.
MAX_DIRECTORY_BYTES = 16 << 20

# At most this much of a content is read at once.
_PIECE = 1 << 20
# What begins an entry of a zip's directory and a member, and what their numbers mean.
_ENTRY = b"PK\x01\x02"
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x41
_HAS_END_MARK = 0x02
_UNIX = 3
_OURS = {zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, *_OURS}
_ALL_BROKEN = (*BROKEN, zipfile.BadZipFile, NotImplementedError)


class _Checked:
    """The content of one member, of exactly its announced size and CRC."""

    def __init__(self, opened: BinaryIO, info: zipfile.ZipInfo, plan: Layout) -> None:
        self._opened = opened
        self._left = info.file_size
        self._crc = info.CRC
        self._found_crc = 0
        self._plan = plan

    def read(self, size: int) -> bytes:
        try:
            # At the end too: there is no more, and zipfile checks the CRC there.
            found = self._opened.read(min(size, self._left, _PIECE) or 1)
        except TooLargeDictionaryError:
            raise self._plan.too_large_dictionary() from None
        except _ALL_BROKEN:
            raise self._plan.corrupt() from None
        self._left -= len(found)
        self._found_crc = zlib.crc32(found, self._found_crc)
        if self._left < 0 or (self._left and not found):
            raise self._plan.corrupt()
        if not found and self._found_crc != self._crc:
            raise self._plan.corrupt()
        return found


class _ZipFile:
    """A zip whose directory is of a bearable size: zipfile reads it in one piece."""

    def __init__(self, raw: BinaryIO, plan: Layout) -> None:
        self._raw = raw
        self._plan = plan
        self.seek, self.tell, self.seekable = raw.seek, raw.tell, raw.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise self._plan.refused("it", "has a directory that is too large")
        # All that is left is asked for at the end only.
        found = self._raw.read(_PIECE if size < 0 else size)
        if len(found) > _PIECE and found.count(_ENTRY) > MAX_MEMBERS:
            raise self._plan.refused("it", f"has more than {MAX_MEMBERS} members")
        return found


def unzip(archive: Path, plan: Layout) -> None:
    """Put every file of a zip, and what links lead to."""
    with archive.open("rb") as raw:
        try:
            opened = zipfile.ZipFile(_ZipFile(raw, plan))
        except _ALL_BROKEN:
            raise plan.corrupt() from None
        with opened:
            # All are looked at first: a refused archive writes nothing.
            for info in opened.infolist():
                _check(info, plan)
            for info in opened.infolist():
                _take(raw, opened, info, plan)


def _take(raw: BinaryIO, opened: zipfile.ZipFile, info: zipfile.ZipInfo, plan: Layout) -> None:
    # The name as it is stored: zipfile cuts it at a zero byte.
    name = info.orig_filename
    if info.is_dir():
        plan.folder(name)
        return
    with _content(raw, opened, info, plan) as content:
        stream = _Checked(content, info, plan)
        if _mode(info) == stat.S_IFLNK:
            plan.link(name, _target(info, stream, plan))
        else:
            plan.file(name, info.file_size, stream)


def _mode(info: zipfile.ZipInfo) -> int:
    """Which kind of file it is, if it says so."""
    return stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0


def _check(info: zipfile.ZipInfo, plan: Layout) -> None:
    name = info.orig_filename
    if info.header_offset < 0 or not info.filename:
        # zipfile fails on these as if it were the disk or itself.
        raise plan.corrupt()
    if info.flag_bits & _ENCRYPTED:
        raise plan.refused(name, "is encrypted")
    if _mode(info) not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
        raise plan.refused(name, "is neither a file nor a folder nor a link")
    if info.compress_type not in _COMPRESSIONS:
        raise plan.refused(name, "is compressed otherwise than by deflate, bzip2 or LZMA")
    if ".." in name.split("/"):
        raise plan.refused(name, "has .. in its path")


def _target(info: zipfile.ZipInfo, stream: Stream, plan: Layout) -> str:
    if info.file_size > MAX_PATH_LENGTH:
        raise plan.refused(info.orig_filename, "is a link that is too long")
    target = b"".join(iter(lambda: stream.read(_PIECE), b""))
    return target.decode("utf-8", "surrogateescape")


def _content(
    raw: BinaryIO, opened: zipfile.ZipFile, info: zipfile.ZipInfo, plan: Layout
) -> BinaryIO:
    try:
        if info.compress_type in _OURS:
            return _unpacked(raw, info, plan)
        return cast("BinaryIO", opened.open(info))
    except (*_ALL_BROKEN, RuntimeError):
        raise plan.corrupt() from None


def _unpacked(raw: BinaryIO, info: zipfile.ZipInfo, plan: Layout) -> BinaryIO:
    """What zipfile unpacks in pieces of any size. Raises what _ALL_BROKEN names."""
    raw.seek(info.header_offset)
    sign, name, extra = _LOCAL.unpack(raw.read(_LOCAL.size))
    if sign != b"PK\x03\x04":
        raise EOFError
    raw.seek(name + extra, io.SEEK_CUR)
    left, first = info.compress_size, b""
    if info.compress_type == zipfile.ZIP_LZMA:
        # The version of a program and a length, before the settings.
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
        # With settings and size before it, it is the older format of files.
        UnpackedLzma(read, plan.sink.check, lzma.FORMAT_ALONE)
        if info.compress_type == zipfile.ZIP_LZMA
        else Unpacked(read, bz2.BZ2Decompressor)
    )
    return cast("BinaryIO", io.BufferedReader(unpacked, _PIECE))
