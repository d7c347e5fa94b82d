"""Detects the kind of an archive by its name and by its first bytes. Pure."""

from __future__ import annotations

import tarfile
from enum import StrEnum

# How many first bytes the detection needs.
START_BYTES = 512


class ArchiveKind(StrEnum):
    """Kinds of archives that the agent unpacks."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_BZ2 = "tar.bz2"
    TAR_XZ = "tar.xz"
    ZIP = "zip"


# Names that KServe unpacks, and other names of formats that Python's tarfile reads.
_ENDINGS = {
    ".tar": ArchiveKind.TAR,
    ".tar.gz": ArchiveKind.TAR_GZ,
    ".taz": ArchiveKind.TAR_GZ,
    ".tar.z": ArchiveKind.TAR_GZ,
    ".tgz": ArchiveKind.TAR_GZ,
    ".tz": ArchiveKind.TAR_GZ,
    ".tar.bz2": ArchiveKind.TAR_BZ2,
    ".tb2": ArchiveKind.TAR_BZ2,
    ".tbz": ArchiveKind.TAR_BZ2,
    ".tbz2": ArchiveKind.TAR_BZ2,
    ".tar.lzma": ArchiveKind.TAR_XZ,
    ".tar.xz": ArchiveKind.TAR_XZ,
    ".tlz": ArchiveKind.TAR_XZ,
    ".txz": ArchiveKind.TAR_XZ,
    ".zip": ArchiveKind.ZIP,
}
_STARTS = {
    b"PK\x03\x04": ArchiveKind.ZIP,
    b"PK\x05\x06": ArchiveKind.ZIP,
    b"PK\x07\x08": ArchiveKind.ZIP,
    b"\x1f\x8b": ArchiveKind.TAR_GZ,
    b"BZh": ArchiveKind.TAR_BZ2,
    b"\xfd7zXZ\0": ArchiveKind.TAR_XZ,
    # The LZMA-alone format, with the default settings.
    b"]\0\0": ArchiveKind.TAR_XZ,
}
_UNSUPPORTED = {
    b"\x1f\x9d": "compress",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "LZ4",
    b"LZIP": "lzip",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}


def archive_kind(name: str) -> ArchiveKind | None:
    """The kind of archive that a file's name stands for; None for no archive."""
    lower = name.lower()
    return next((kind for end, kind in _ENDINGS.items() if lower.endswith(end)), None)


def kind_of(start: bytes, named: ArchiveKind) -> ArchiveKind:
    """The kind of an archive with these first bytes, which count more than its name.

    A server may decompress a file on the way. Bytes that are no known signature leave the kind of
    the name: a zip may begin with other data.
    """
    if _is_tar(start, named):
        return ArchiveKind.TAR
    return next((kind for sign, kind in _STARTS.items() if start.startswith(sign)), named)


def other_kind(start: bytes) -> str:
    """The name of an unsupported format with these first bytes; empty for any other file."""
    return next((name for sign, name in _UNSUPPORTED.items() if start.startswith(sign)), "")


def _is_tar(start: bytes, named: ArchiveKind) -> bool:
    if len(start) < START_BYTES:
        return False
    if not any(start):
        # The end mark of a tar: an empty archive.
        return named is not ArchiveKind.ZIP
    try:
        tarfile.TarInfo.frombuf(start[:START_BYTES], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True
