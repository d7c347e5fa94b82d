"""Archives: every regular file of a tar or a zip, as a stream, in bounded memory.

An archive is a tenant's input. Nothing of it names a place outside of the model, no header of it is
read at any size it likes, and no more bytes come out than the caller has room for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localmodel.agent.jobs.archive.layout import Layout
from localmodel.agent.jobs.archive.tar import untar
from localmodel.agent.jobs.archive.zip import unzip
from localmodel.agent.structs.archive_kinds import START_BYTES, ArchiveKind, kind_of, other_kind

if TYPE_CHECKING:
    from pathlib import Path

    from localmodel.agent.jobs.archive.layout import Sink


def unpack(archive: Path, named: ArchiveKind, sink: Sink, *, free: int) -> None:
    """Put every file of an archive into `sink`, whatever kind of archive its first bytes show.

    `free` is how many bytes may be written. Raises DownloadError: Unsupported for what a model
    cannot have, Corrupt, NoSpace; what was written until then is to be deleted. Errors of `sink`,
    and OSError for the archive itself, pass.
    """
    plan = Layout(archive.name, sink, free)
    with archive.open("rb") as raw:
        start = raw.read(START_BYTES)
    kind, other = kind_of(start, named), other_kind(start)
    if other:
        raise plan.refused("it", f"is packed by {other}, which is not unpacked here")
    if kind is ArchiveKind.ZIP:
        unzip(archive, plan)
    else:
        untar(archive, plan, kind)
    plan.finish()
    if not plan.files:
        raise plan.refused("it", "holds no file")
