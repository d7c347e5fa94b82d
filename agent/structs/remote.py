"""A model at its source: its files with versions and checksums, and their bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from agent.structs.failures import DownloadError, FailureKind


class ChecksumAlgorithm(StrEnum):
    """Algorithms of the checksums that stores report."""

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
    # The id of a Git blob: SHA-1 of `blob <size>\0` and the content.
    GIT_BLOB = "git-blob"


@dataclass(frozen=True, slots=True)
class Checksum:
    """The store's checksum of a whole file. `value` is lower-case hexadecimal."""

    algorithm: ChecksumAlgorithm
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a model at its source.

    `path` is the file's path in the model, `location` the source's own name of the file. `size` is
    None where the source does not report it before the last byte. `version` pins the file, such as
    an ETag; None where the source has no versions. `ranges` is whether the source serves ranges,
    all of one version; otherwise the file is read as a whole, in one stream. `recheck` is whether
    the source may change the file while it is sent, so that the first byte is requested once more
    after the last byte. `verified` is the SHA-256 of this version where nodes have found it and the
    store does not report it.
    """

    path: str
    location: str
    size: int | None
    version: str | None = None
    checksum: Checksum | None = None
    ranges: bool = True
    recheck: bool = field(default=False, compare=False)
    verified: str | None = None

    @property
    def sha256(self) -> str | None:
        """The SHA-256 in hexadecimal digits; None if it is not known before the file is here."""
        if self.checksum is not None and self.checksum.algorithm is ChecksumAlgorithm.SHA256:
            return self.checksum.value
        return self.verified


class RangeIgnoredError(DownloadError):
    """The server answered a range request with the whole file."""

    _WHY = "is sent whole although a part was asked for"

    def __init__(self, where: str) -> None:
        super().__init__(FailureKind.UNSUPPORTED, f"{where} {self._WHY}; it is read in one stream")

    # The engine reads the file in one stream instead: the attempt has not failed.
    is_mended = True


class UnpinnedError(RangeIgnoredError):
    """A response has no version, so that the file must be read in one response."""

    _WHY = "comes without the version that was listed"


class OtherTagError(DownloadError):
    """A response has another ETag or modification time than the listing.

    The file has changed, or several servers behind one address have different ETags for it.
    `modified` is the file's modification time, if any later change would have changed that time.
    """

    def __init__(self, where: str, modified: str | None) -> None:
        super().__init__(
            FailureKind.CHANGED,
            f"{where} changed while it was downloaded; the file starts over by itself",
        )
        self.modified = modified


class Body(Protocol):
    """The bytes of one range, as they arrive. Raises DownloadError for failures of the network.

    A body that is shorter than the range raises Unreachable (the connection broke), a longer body
    raises Corrupt.
    """

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...

    def abort(self) -> None:
        """Make a blocked `read` in another thread raise soon. May be called at any time."""
        ...

    def close(self) -> None:
        """Return the connection to its pool, or close it if bytes are left."""
        ...


class RemoteModel(Protocol):
    """One version of a model at its source. Used by several threads at once.

    `origin` is the server, to which limits of connections and of speed apply; a copy is granted
    only to requesters whose credentials lead to the same origin. `version` is the version of the
    whole model where the source has one, such as a commit.
    """

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """The files of the model, at least one."""
        ...

    @property
    def origin(self) -> str:
        """The server, as scheme, host and port or another name."""
        ...

    @property
    def version(self) -> str | None:
        """The version of the whole model, or None."""
        ...

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """The bytes from `start` up to and without `end` of the listed version of a file.

        `end` is None for a file of unknown size. Raises DownloadError: Changed if the file is no
        longer the one that was listed.
        """
        ...


@runtime_checkable
class Proving(Protocol):
    """A RemoteModel whose store reports more checksums in a request for a single file."""

    def proof(self, file: RemoteFile, /) -> Checksum | None:
        """The checksum of a listed file that has none in the listing. Raises DownloadError.

        It costs a request for metadata, which is worth it only for a file that is on the disk
        already.
        """
        ...


def proof_of(model: RemoteModel, file: RemoteFile) -> Checksum | None:
    """The store's checksum of a file; None if the store has none. Raises DownloadError."""
    if file.checksum is not None or not isinstance(model, Proving):
        return file.checksum
    return model.proof(file)
