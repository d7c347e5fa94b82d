"""Unpacks a tar or a zip as a stream, in bounded memory.

An archive is a tenant's input. No member leads to a place outside the model, the sizes of headers
are limited, and no more bytes are written than the caller allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.jobs.archive.layout import Layout
from agent.jobs.archive.tar import untar
from agent.jobs.archive.zip import unzip
from agent.structs.archive_kinds import START_BYTES, ArchiveKind, kind_of, other_kind

if TYPE_CHECKING:
    from pathlib import Path

    from agent.jobs.archive.layout import Sink


def unpack(archive: Path, named: ArchiveKind, sink: Sink, *, free: int) -> None:
    """Write all files of an archive to `sink`. Its first bytes show the kind of the archive.

    `free` is how many bytes may be written. Raises DownloadError: Unsupported for members that a
    model cannot have, Corrupt, NoSpace; the caller deletes what was written. Errors of `sink`,
    and OSError for the archive itself, pass.
    """
    layout = Layout(archive.name, sink, free)
    with archive.open("rb") as raw:
        start = raw.read(START_BYTES)
    kind, other = kind_of(start, named), other_kind(start)
    if other:
        raise layout.refused("it", f"is packed by {other}, which is not unpacked here")
    if kind is ArchiveKind.ZIP:
        unzip(archive, layout)
    else:
        untar(archive, layout, kind)
    layout.finish()
    if not layout.files:
        raise layout.refused("it", "holds no file")
