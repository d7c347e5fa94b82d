"""A model at its source: its files with what pins and proves them, and their bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from localmodel.agent.structs.failures import DownloadError, FailureKind


class ChecksumAlgorithm(StrEnum):
    """How a store says what a file contains."""

    CRC32 = "crc32"
    CRC32C = "crc32c"
    CRC64NVME = "crc64nvme"
    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"
    # XXH64, and the two widths of XXH3, as S3 names them.
    XXHASH64 = "xxhash64"
    XXHASH3 = "xxhash3"
    XXHASH128 = "xxhash128"
    # Git's name of a blob: SHA-1 of `blob <size>\0` and the content.
    GIT_BLOB = "git-blob"


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the store says of a whole file's content. `value` is lower-case hexadecimal."""

    algorithm: ChecksumAlgorithm
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a model at its source.

    `path` is its place in the model, `location` is the source's own name for it. `size` is None
    where the source does not tell it before the last byte. `version` is what pins it, such as an
    ETag; None where the source has nothing of the kind. `ranges` is whether a part of it can be
    read, and parts are of one version; otherwise it is read as a whole, in one stream. `recheck` is
    whether its source may change it while it is sent, so that its first byte is asked for once more
    after the last one.
    """

    path: str
    location: str
    size: int | None
    version: str | None = None
    checksum: Checksum | None = None
    ranges: bool = True
    recheck: bool = field(default=False, compare=False)


class RangeIgnoredError(DownloadError):
    """The server answered with the whole file to a request for a part of it."""

    _WHY = "is sent whole although a part was asked for"

    def __init__(self, where: str) -> None:
        super().__init__(FailureKind.UNSUPPORTED, f"{where} {self._WHY}; it is read in one stream")

    # The engine reads the file in another way: no attempt has failed.
    is_mended = True


class UnpinnedError(RangeIgnoredError):
    """An answer does not tell of which version it is, so that it must be the only one."""

    _WHY = "comes without the version that was listed"


class OtherTagError(DownloadError):
    """An answer has another ETag or time than the listing.

    The file has changed, or servers behind one address have their own: `modified` is the time of
    its last change, if nothing can have changed it since without changing that.
    """

    def __init__(self, where: str, modified: str | None) -> None:
        super().__init__(
            FailureKind.CHANGED,
            f"{where} changed while it was downloaded; the file starts over by itself",
        )
        self.modified = modified


class Body(Protocol):
    """The bytes of one range, as they arrive. Raises DownloadError for what can happen out there.

    A body that is shorter than what was asked for raises (Unreachable: the connection broke); one
    that is longer raises (Corrupt).
    """

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...

    def abort(self) -> None:
        """Make a `read` that waits, in another thread, raise soon. May be called at any time."""
        ...

    def close(self) -> None:
        """Give the connection back, or close it if bytes are left."""
        ...


class RemoteModel(Protocol):
    """One version of a model at its source. Used by several threads at once.

    `origin` is what limits of connections and of speed are for, such as a host; a copy is given
    only to those whose credentials lead to the same one. `version` names the model's version as a
    whole where the source has one, such as a commit.
    """

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """At least one file."""
        ...

    @property
    def origin(self) -> str:
        """What limits are for."""
        ...

    @property
    def version(self) -> str | None:
        """The version of the whole."""
        ...

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """The bytes from `start` up to and without `end` of the listed version of a file.

        `end` is None for a file of unknown size. Raises DownloadError: Changed if the file is no
        longer the one that was listed.
        """
        ...


@runtime_checkable
class Proving(Protocol):
    """A RemoteModel whose store tells more of a file when it is asked for that one."""

    def proof(self, file: RemoteFile, /) -> Checksum | None:
        """The checksum of a listed file that has none in the listing. Raises DownloadError.

        It takes a request for metadata: worth it for a file that is here already, and not for one
        that is downloaded.
        """
        ...


def proof_of(model: RemoteModel, file: RemoteFile) -> Checksum | None:
    """What its store says of a file's content; None if it says nothing. Raises DownloadError."""
    if file.checksum is not None or not isinstance(model, Proving):
        return file.checksum
    return model.proof(file)
