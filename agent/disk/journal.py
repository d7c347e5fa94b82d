"""The journal of a download: the listed files and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from agent.structs.json_record import JsonRecord, RecordError
from agent.structs.manifest import Grant

if TYPE_CHECKING:
    from pathlib import Path

    from agent.structs.remote import RemoteFile


class JournalFile(Struct, frozen=True, gc=False):
    """A file as its source lists it."""

    path: str
    size: int | None
    version: str | None = None
    checksum: str | None = None
    # The digest that pieces from peers must have, where the store reports none.
    verified: str | None = None

    @classmethod
    def of(cls, file: RemoteFile) -> JournalFile:
        """The entry of a listed file."""
        checksum = str(file.checksum) if file.checksum else None
        return cls(
            path=file.path,
            size=file.size,
            version=file.version,
            checksum=checksum,
            verified=file.verified,
        )

    def continues_as(self, other: JournalFile) -> bool:
        """Whether what is on the disk belongs to this file as it is listed now.

        What came by a verified digest is worth nothing without it.
        """
        return other in {self, self if self.verified else replace(self, verified=other.verified)}


class Journal(JsonRecord, frozen=True, kw_only=True):
    """The files of an unfinished download, and the name of its progress file.

    `origin` is the server that the files come from, `by` the requester whose credentials fetched
    them; each None if not known.
    """

    schema_version: Literal[1] = 1
    uri: str
    version: str | None = None
    origin: str | None = None
    by: Grant | None = None
    boot: str
    progress: str
    files: tuple[JournalFile, ...]

    def is_of(self, origin: str | None) -> bool:
        """Whether its files are from this server: files of two servers are never mixed."""
        return self.origin == origin


def read_journal(directory: Path) -> Journal | None:
    """The journal in a staging folder; None if there is no valid one. Raises OSError."""
    try:
        return Journal.decode((directory / "journal.json").read_bytes())
    except (FileNotFoundError, RecordError):
        return None
