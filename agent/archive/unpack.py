"""Archives: every regular file of a tar or a zip, as a stream, in bounded memory.

An archive is a tenant's input. Nothing of it names a place outside of the model, no header of it is
read at any size it likes, and no more bytes come out than the caller has room for. A symbolic or
hard link in a tar becomes a copy of the file that it leads to; in a zip it is refused.
"""

from __future__ import annotations

import stat
import zipfile
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, cast

from agent.archive.plan import BROKEN, MAX_MEMBERS, Plan
from agent.archive.tar import untar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.archive.plan import Stream

# Of a zip's directory, which zipfile reads whole.
MAX_DIRECTORY_BYTES = 16 << 20

# At most this much of a content is read at once.
_PIECE = 1 << 20
# What begins an entry of a zip's directory, and what its numbers mean.
_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x41
_UNIX = 3
# Others may want memory as they like.
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ALL_BROKEN = (*BROKEN, zipfile.BadZipFile, NotImplementedError)


class ArchiveKind(StrEnum):
    """Kinds of archives that are unpacked, as KServe does."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    ZIP = "zip"


_ENDINGS = {
    ".tar": ArchiveKind.TAR,
    ".tar.gz": ArchiveKind.TAR_GZ,
    ".tgz": ArchiveKind.TAR_GZ,
    ".zip": ArchiveKind.ZIP,
}


def archive_kind(name: str) -> ArchiveKind | None:
    """Which kind of archive a file is by its name; None for no archive."""
    lower = name.lower()
    return next((kind for end, kind in _ENDINGS.items() if lower.endswith(end)), None)


def unpack(
    archive: Path, kind: ArchiveKind, write: Callable[[str, int, Stream], None], *, free: int
) -> None:
    """Call `write` with path, size and content of every file of an archive.

    `free` is how many bytes may be written. Raises DownloadError: Unsupported for what a model
    cannot have, Corrupt, NoSpace; what was written until then is to be deleted. Errors of `write`,
    and OSError for the archive itself, pass. What `write` leaves unread is skipped.
    """
    plan = Plan(archive.name, write, free)
    if kind is ArchiveKind.ZIP:
        _unzip(archive, plan)
    else:
        untar(archive, plan, compressed=kind is ArchiveKind.TAR_GZ)
    if not plan.files:
        raise plan.refused("it", "holds no file")


class _ZipMember:
    """The content of one member of a zip, of exactly its announced size."""

    def __init__(self, opened: zipfile.ZipExtFile, size: int, plan: Plan) -> None:
        self._opened = opened
        self._left = size
        self._plan = plan

    def read(self, size: int) -> bytes:
        try:
            # At the end too: it checks the CRC there.
            found = self._opened.read(min(size, self._left, _PIECE) or 1)
        except _ALL_BROKEN:
            raise self._plan.corrupt() from None
        self._left -= len(found)
        if self._left < 0 or (self._left and not found):
            raise self._plan.corrupt()
        return found


class _ZipFile:
    """A zip whose directory is of a bearable size: zipfile reads it in one piece."""

    def __init__(self, raw: BinaryIO, plan: Plan) -> None:
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


def _unzip(archive: Path, plan: Plan) -> None:
    with archive.open("rb") as raw:
        try:
            opened = zipfile.ZipFile(_ZipFile(raw, plan))
        except _ALL_BROKEN:
            raise plan.corrupt() from None
        with opened:
            # All are looked at first: a refused archive writes nothing.
            paths = [_zip_path(info, plan) for info in opened.infolist()]
            for info, path in zip(opened.infolist(), paths, strict=True):
                if not info.is_dir():
                    with _zip_content(opened, info, plan) as content:
                        plan.put(path, info.file_size, _ZipMember(content, info.file_size, plan))


def _zip_path(info: zipfile.ZipInfo, plan: Plan) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0
    if info.flag_bits & _ENCRYPTED:
        raise plan.refused(info.filename, "is encrypted")
    if mode not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise plan.refused(info.filename, "is neither a file nor a folder")
    if info.compress_type not in _COMPRESSIONS:
        raise plan.refused(info.filename, "is compressed otherwise than by deflate")
    # The name as it is stored: zipfile cuts it at a zero byte.
    return plan.path(info.orig_filename, folder=info.is_dir())


def _zip_content(opened: zipfile.ZipFile, info: zipfile.ZipInfo, plan: Plan) -> zipfile.ZipExtFile:
    try:
        return cast("zipfile.ZipExtFile", opened.open(info))
    except (*_ALL_BROKEN, RuntimeError):
        raise plan.corrupt() from None
