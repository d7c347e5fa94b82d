"""Unpacks a model that is one archive: its members replace the archive in staging."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

from agent.disk.files import write_all
from agent.structs.archive_kinds import ArchiveKind, archive_kind
from agent.structs.failures import CancelledError, DownloadError, FailureKind, public_uri
from agent.structs.manifest import ManifestFile
from agent.structs.sizes import in_blocks

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from agent.disk.staging import Staging
    from agent.jobs.archive.layout import Stream
    from agent.structs.remote import RemoteFile

READ_BYTES = 1 << 20


def archive_of(files: Sequence[RemoteFile]) -> ArchiveKind | None:
    """The kind of the archive if a model is one file with the name of an archive, else None."""
    return archive_kind(files[0].path) if len(files) == 1 else None


def unpack_model(
    staging: Staging,
    name: str,
    uri: str,
    *,
    free: int,
    reserve: Callable[[int], None],
    cancelled: threading.Event,
) -> list[ManifestFile]:
    """Unpack a staged archive, and delete it. Returns the members with their digests.

    `free` is how many bytes may be written. `reserve` is called before each member is written, with
    the size of all members up to it. Raises DownloadError, CancelledError, OSError, and what
    `reserve` raises.
    """
    from agent.jobs.archive.unpack import unpack  # noqa: PLC0415 - few models are archives

    kind = archive_kind(name)
    assert kind is not None  # noqa: S101
    members = _Members(staging, name, uri, reserve, cancelled)
    unpack(staging.path(name), kind, members, free=free)
    staging.drop(name)
    return list(members.found.values())


class _Members:
    """Writes the members of an archive to staging."""

    def __init__(
        self,
        staging: Staging,
        archive: str,
        uri: str,
        reserve: Callable[[int], None],
        cancelled: threading.Event,
    ) -> None:
        self._staging = staging
        self._archive = archive
        self._uri = uri
        self._reserve = reserve
        self._cancelled = cancelled
        self._taken = 0
        self.found: dict[str, ManifestFile] = {}

    def check(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError

    def write(self, path: str, size: int, stream: Stream) -> None:
        self._taken += in_blocks(size)
        self._reserve(self._taken)
        if path == self._archive or path.startswith(f"{self._archive}/"):
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{public_uri(self._uri)} has a member named as the archive itself ({path}): "
                "rename one",
            )
        digest, written = hashlib.sha256(), 0
        descriptor = self._staging.create(path)
        try:
            while piece := stream.read(READ_BYTES):
                self.check()
                write_all(descriptor, piece)
                digest.update(piece)
                written += len(piece)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.found[path] = ManifestFile(path=path, size=written, sha256=digest.hexdigest())

    def open(self, path: str) -> BinaryIO:
        return self._staging.path(path).open("rb")

    def drop(self, path: str) -> None:
        self._taken -= in_blocks(self.found.pop(path).size)
        self._staging.drop(path)
