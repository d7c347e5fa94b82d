"""The answers of a hub's API as types: entries of trees, and descriptions of models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AliasChoices, BaseModel, FailFast, Field, TypeAdapter, ValidationError

from agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile

if TYPE_CHECKING:
    import requests

# The checksum of large files.
LARGE = ChecksumAlgorithm.SHA256
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Revision(BaseModel):
    """The current commit of a revision."""

    sha: str = Field(pattern="^[0-9a-f]{40}$")


class _Lfs(BaseModel):
    # The names in a tree and in a description.
    oid: str = Field(validation_alias=AliasChoices("oid", "sha256"))
    size: int = Field(ge=0)


class Entry(BaseModel):
    """A file or a folder of a listing. A large file's `oid` is that of its pointer."""

    type: str
    path: str
    oid: str = ""
    size: int = Field(default=0, ge=0)
    lfs: _Lfs | None = None


class Sibling(BaseModel):
    """A file in the description of a model. Some mirrors give its name only."""

    path: str = Field(validation_alias="rfilename")
    oid: str | None = Field(default=None, validation_alias="blobId")
    size: int | None = Field(default=None, ge=0)
    lfs: _Lfs | None = None


class Description(BaseModel):
    """A model at a revision."""

    # Validation stops at the first error: the report of each is larger than its entry.
    siblings: Annotated[list[Sibling], FailFast()] = Field(min_length=1)


_ENTRIES = TypeAdapter(Annotated[list[Entry], FailFast()])


def entries_of(answer: requests.Response) -> list[Entry] | None:
    """The entries of a tree's page; None for an answer that is no such page."""
    if answer.status_code >= 400:
        return None
    try:
        return _ENTRIES.validate_json(answer.content)
    except ValidationError:
        return None


def linked(answer: requests.Response) -> tuple[int | None, str]:
    """Size and digest of a large file, in the headers of a hub's redirect to its bytes."""
    size = answer.headers.get("X-Linked-Size", "")
    digest = answer.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"')
    return (int(size) if size.isdecimal() else None), digest


def remote_file(entry: Entry | Sibling) -> RemoteFile:
    """A file with its version and its checksum. A sibling must have its size."""
    checksum = None
    size, version = entry.size, entry.oid or ""
    if entry.lfs is not None:
        size, version = entry.lfs.size, entry.lfs.oid.removeprefix("sha256:")
        if SHA256.fullmatch(version):
            checksum = Checksum(LARGE, version)
    elif COMMIT.fullmatch(version):
        checksum = Checksum(ChecksumAlgorithm.GIT_BLOB, version)
    return file_at_commit(entry.path, size, version or None, checksum)


def file_at_commit(
    path: str, size: int | None, version: str | None, checksum: Checksum | None
) -> RemoteFile:
    """A file. Without a checksum it is read whole: a mirror may not keep to the commit."""
    return RemoteFile(path, path, size, version, checksum, ranges=checksum is not None)
