"""Archives, well made and not, and what comes out of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from agent.archive.unpack import ArchiveKind, unpack
from agent.failures import DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from agent.archive.plan import Stream

ROOM = 1 << 40


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
    mode = "w:gz" if kind is ArchiveKind.TAR_GZ else "w"
    with tarfile.open(path, mode, format=style) as archive:  # type: ignore[call-overload]
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


def contents(path: Path, kind: ArchiveKind, *, free: int = ROOM) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def write(name: str, size: int, stream: Stream) -> None:
        assert name not in found
        found[name] = b"".join(iter(lambda: stream.read(100_000), b""))
        assert len(found[name]) == size

    unpack(path, kind, write, free=free)
    return found


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
