"""Makes valid and broken archives, and unpacks them into memory."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from agent.jobs.archive.unpack import unpack
from agent.structs.archive_kinds import ArchiveKind
from agent.structs.failures import DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from agent.jobs.archive.layout import Stream

ROOM = 1 << 40

TARS = [ArchiveKind.TAR, ArchiveKind.TAR_GZ, ArchiveKind.TAR_BZ2, ArchiveKind.TAR_XZ]
_MODES = {kind: f"w:{kind.value.removeprefix('tar').lstrip('.')}" for kind in TARS}


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar(
    path: Path,
    members: Iterable[tuple[tarfile.TarInfo, bytes]],
    kind: ArchiveKind = ArchiveKind.TAR,
    style: int = tarfile.PAX_FORMAT,
) -> Path:
    with tarfile.open(path, _MODES[kind], format=style) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content) if info.isreg() else info.size
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def make(path: Path, kind: ArchiveKind, files: dict[str, bytes]) -> Path:
    if kind is ArchiveKind.ZIP:
        return zipped(path, files.items())
    return tar(path, [(member(name), content) for name, content in files.items()], kind)


class Files:
    """A destination of unpacked files in memory."""

    def __init__(self) -> None:
        self.found: dict[str, bytes] = {}
        self.written: list[str] = []

    def check(self) -> None:
        """Never cancel the unpacking."""

    def write(self, path: str, size: int, stream: Stream) -> None:
        assert path not in self.found
        self.written.append(path)
        self.found[path] = b"".join(iter(lambda: stream.read(100_000), b""))
        assert len(self.found[path]) == size

    def open(self, path: str) -> io.BytesIO:
        return io.BytesIO(self.found[path])

    def drop(self, path: str) -> None:
        del self.found[path]


def contents(path: Path, kind: ArchiveKind, *, free: int = ROOM) -> dict[str, bytes]:
    files = Files()
    unpack(path, kind, files, free=free)
    return files.found


def failure(path: Path, kind: ArchiveKind, *, free: int = ROOM) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        contents(path, kind, free=free)
    assert path.name in caught.value.message
    assert str(path.parent) not in caught.value.message
    assert len(caught.value.message) < 2000
    return caught.value


def patched(path: Path, change: Callable[[bytearray], None]) -> Path:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = member(name, kind)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)
