"""Whether a folder that somebody else filled is the model that its source lists. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localmodel.agent.jobs.archive.model import archive_of
from localmodel.agent.structs.adoption import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from localmodel.agent.structs.remote import Checksum, RemoteFile


@dataclass(frozen=True)
class Seen:
    """What is in the place of a file: so many bytes, or what it is instead of a file, and where."""

    size: int = 0
    instead: str = ""


def says_too_little(files: Sequence[RemoteFile]) -> bool:
    """Whether a listing cannot tell what must be in the folder, so that the content is needed.

    An archive lies there unpacked, and a file of unknown size could be any.
    """
    return archive_of(files) is not None or any(file.size is None for file in files)


def missing(files: Sequence[RemoteFile], seen: Mapping[str, Seen | None]) -> tuple[RemoteFile, ...]:
    """The files that are not there."""
    return tuple(file for file in files if seen[file.path] is None)


def first_difference(files: Sequence[RemoteFile], seen: Mapping[str, Seen | None]) -> str:
    """What of the folder is not as the source has it, without a look into files; empty: nothing.

    Files that are missing are no difference, unless all are: then nothing says that the folder is
    the model's.
    """
    for file in files:
        there = seen[file.path]
        if there is None:
            continue
        if there.instead:
            return f"{there.instead}, where the source has {shown(file.path)}"
        if there.size != file.size:
            return f"{shown(file.path)} has {there.size} bytes there, and {file.size} at the source"
    if len(missing(files, seen)) == len(files):
        return f"none of the source's {len(files)} files is in it, such as {shown(files[0].path)}"
    return ""


def other_content(path: str, checksum: Checksum) -> str:
    """A file has the right size, and other content."""
    return f"{shown(path)} has another {checksum.algorithm} there than at the source"


def still_written(path: str) -> str:
    """A file changed while it was read."""
    return f"something still writes to {shown(path)} (it is looked at again by itself)"
