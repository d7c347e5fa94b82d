"""A model that is one archive: its members take the archive's place in staging."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

from localmodel.agent.disk.files import write_all
from localmodel.agent.jobs.archive.unpack import unpack
from localmodel.agent.structs.archive_kinds import ArchiveKind, archive_kind
from localmodel.agent.structs.failures import CancelledError, DownloadError, FailureKind, public_uri
from localmodel.agent.structs.manifest import ManifestFile
from localmodel.agent.structs.sizes import in_blocks

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from localmodel.agent.disk.staging import Staging
    from localmodel.agent.jobs.archive.layout import Stream
    from localmodel.agent.structs.remote import RemoteFile

READ_BYTES = 1 << 20


def archive_of(files: Sequence[RemoteFile]) -> ArchiveKind | None:
    """The kind of archive that a model is: one file, whose name says so."""
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
    """The members of a staged archive, with their digests; the archive itself goes.

    `free` is how many bytes may be written; `reserve` gets what all members take with the next one,
    before it is written. Raises DownloadError, CancelledError, OSError, and what `reserve` does.
    """
    kind = archive_kind(name)
    assert kind is not None  # noqa: S101
    members = _Members(staging, name, uri, reserve, cancelled)
    unpack(staging.path(name), kind, members, free=free)
    staging.drop(name)
    return list(members.found.values())


class _Members:
    """What came out of an archive, beside it in staging."""

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
