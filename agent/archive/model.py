"""A model that is one archive: its members take the archive's place in staging, as KServe does."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from agent.archive.unpack import ArchiveKind, archive_kind, unpack
from agent.capacity.ledger import in_blocks
from agent.disk.files import write_all
from agent.disk.manifest import ManifestFile
from agent.engine.engine import CancelledError
from agent.failures import DownloadError, FailureKind, public_uri

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from agent.archive.plan import Stream
    from agent.disk.staging import Staging
    from agent.sources.base import RemoteFile

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
    taken = 0
    kind = archive_kind(name)
    assert kind is not None  # noqa: S101
    found: list[ManifestFile] = []

    def write(path: str, size: int, stream: Stream) -> None:
        nonlocal taken
        taken += in_blocks(size)
        reserve(taken)
        if path == name:
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{public_uri(uri)} has a member named as the archive itself ({path}): rename one",
            )
        found.append(_write(staging, path, stream, cancelled))

    unpack(staging.path(name), kind, write, free=free)
    if not found:
        raise DownloadError(
            FailureKind.NOT_FOUND, f"{public_uri(uri)} is an archive without a file: check it"
        )
    staging.drop(name)
    return found


def _write(staging: Staging, path: str, stream: Stream, cancelled: threading.Event) -> ManifestFile:
    digest = hashlib.sha256()
    size = 0
    descriptor = staging.create(path)
    try:
        while piece := stream.read(READ_BYTES):
            if cancelled.is_set():
                raise CancelledError
            write_all(descriptor, piece)
            digest.update(piece)
            size += len(piece)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return ManifestFile(path=path, size=size, sha256=digest.hexdigest())
