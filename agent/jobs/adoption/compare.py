"""Whether a folder that another program filled is the model that its source lists. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.jobs.archive.model import archive_of
from agent.structs.adoption import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.structs.remote import Checksum, RemoteFile


@dataclass(frozen=True)
class Seen:
    """What is at the path of a file: its size in bytes, or what is there instead of a file."""

    size: int = 0
    instead: str = ""


def says_too_little(files: Sequence[RemoteFile]) -> bool:
    """Whether a listing is not enough to compare a folder with, so that the files are fetched.

    That is so for an archive, which is unpacked in the folder, and for files of unknown size.
    """
    return archive_of(files) is not None or any(file.size is None for file in files)


def missing(files: Sequence[RemoteFile], seen: Mapping[str, Seen | None]) -> tuple[RemoteFile, ...]:
    """The files that the folder lacks."""
    return tuple(file for file in files if seen[file.path] is None)


def first_difference(files: Sequence[RemoteFile], seen: Mapping[str, Seen | None]) -> str:
    """The first difference between folder and source in paths and sizes; empty if there is none.

    Missing files are no difference, unless all are missing: then nothing says that the folder has
    anything to do with the model.
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
    """The message for a file of the right size whose checksum differs."""
    return f"{shown(path)} has another {checksum.algorithm} there than at the source"


def still_written(path: str) -> str:
    """The message for a file that changed while it was read."""
    return f"something still writes to {shown(path)} (it is looked at again by itself)"
