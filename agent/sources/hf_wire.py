"""What a hub of models answers, in types: the entries of its trees, and models' descriptions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AliasChoices, BaseModel, FailFast, Field, TypeAdapter, ValidationError

from localmodel.agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile

if TYPE_CHECKING:
    import requests

# Of large files.
LARGE = ChecksumAlgorithm.SHA256
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Revision(BaseModel):
    """A revision, as the commit that it is now."""

    sha: str = Field(pattern="^[0-9a-f]{40}$")


class _Lfs(BaseModel):
    # As in a tree, and as among siblings.
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
    """A file as the description of a model has it. Not every mirror tells more than its name."""

    path: str = Field(validation_alias="rfilename")
    oid: str | None = Field(default=None, validation_alias="blobId")
    size: int | None = Field(default=None, ge=0)
    lfs: _Lfs | None = None


class Description(BaseModel):
    """A model at a revision."""

    # The first wrong one is enough: each has a report that is larger than itself.
    siblings: Annotated[list[Sibling], FailFast()] = Field(min_length=1)


_ENTRIES = TypeAdapter(Annotated[list[Entry], FailFast()])


def entries_of(answer: requests.Response) -> list[Entry] | None:
    """The entries of a tree's page; None: it is none."""
    if answer.status_code >= 400:
        return None
    try:
        return _ENTRIES.validate_json(answer.content)
    except ValidationError:
        return None


def linked(answer: requests.Response) -> tuple[int | None, str]:
    """Size and digest of a large file, as a hub tells them beside where it is."""
    size = answer.headers.get("X-Linked-Size", "")
    digest = answer.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"')
    return (int(size) if size.isdecimal() else None), digest


def remote_file(entry: Entry | Sibling) -> RemoteFile:
    """A file, with what pins and proves it. One of siblings has its size."""
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
    """A file, in ranges only with a checksum: nothing else proves what a mirror has at a commit."""
    return RemoteFile(path, path, size, version, checksum, ranges=checksum is not None)
