"""Digests of a file, computed in the order of its bytes: SHA-256 and the store's checksum."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Any, Protocol

from agent.structs.remote import Checksum, ChecksumAlgorithm

if TYPE_CHECKING:
    from collections.abc import Callable

# How many hexadecimal digits each has.
_CRCS = {ChecksumAlgorithm.CRC32: 8, ChecksumAlgorithm.CRC32C: 8, ChecksumAlgorithm.CRC64NVME: 16}
_XXHASHES = {
    ChecksumAlgorithm.XXHASH64,
    ChecksumAlgorithm.XXHASH3,
    ChecksumAlgorithm.XXHASH128,
}


class _Digest(Protocol):
    def update(self, piece: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc:
    """A CRC with the interface of hashlib."""

    def __init__(self, algorithm: ChecksumAlgorithm) -> None:
        self._function, self._digits = _crc_function(algorithm), _CRCS[algorithm]
        self._value = 0

    def update(self, piece: bytes | memoryview, /) -> None:
        self._value = self._function(piece, self._value)  # type: ignore[arg-type]

    def hexdigest(self) -> str:
        return f"{self._value:0{self._digits}x}"


class _XXHash:
    """An XXHash with the interface of hashlib."""

    def __init__(self, algorithm: ChecksumAlgorithm) -> None:
        self._hash = _new_xxhash(algorithm)

    def update(self, piece: bytes | memoryview, /) -> None:
        # awscrt accepts only read-only buffers, although its annotations allow others.
        self._hash.update(piece if isinstance(piece, bytes) else bytes(piece))

    def hexdigest(self) -> str:
        digest: bytes = self._hash.finalize()
        return digest.hex()


# awscrt is slow to import, and only some object stores have checksums that need it.


def _crc_function(algorithm: ChecksumAlgorithm) -> Callable[[bytes, int], int]:
    if algorithm is ChecksumAlgorithm.CRC32:
        return zlib.crc32
    from awscrt import checksums  # noqa: PLC0415

    function: Callable[[bytes, int], int] = (
        checksums.crc32c if algorithm is ChecksumAlgorithm.CRC32C else checksums.crc64nvme
    )
    return function


def _new_xxhash(algorithm: ChecksumAlgorithm) -> Any:
    from awscrt import checksums  # noqa: PLC0415

    if algorithm is ChecksumAlgorithm.XXHASH64:
        return checksums.XXHash.new_xxhash64()
    if algorithm is ChecksumAlgorithm.XXHASH3:
        return checksums.XXHash.new_xxhash3_64()
    return checksums.XXHash.new_xxhash3_128()


class Digests:
    """The digests of the first `position` bytes of one file.

    Without `ours`, SHA-256 is left out where the store has a checksum of its own: that one is
    cheaper, and proves as well that the bytes are the store's.
    """

    def __init__(self, checksum: Checksum | None, size: int | None, *, ours: bool = True) -> None:
        self.position = 0
        self._expected = checksum
        self._ours: _Digest | None = None
        if ours or checksum is None or checksum.algorithm is ChecksumAlgorithm.SHA256:
            self._ours = hashlib.sha256()
        self._theirs = _their_digest(checksum, size)

    def update(self, piece: bytes | memoryview) -> None:
        """Add the next bytes of the file."""
        if self._ours is not None:
            self._ours.update(piece)
        if self._theirs is not None:
            self._theirs.update(piece)
        self.position += len(piece)

    @property
    def sha256(self) -> str | None:
        """The SHA-256 as hexadecimal digits; None if it is not computed."""
        return self._ours.hexdigest() if self._ours is not None else None

    @property
    def found(self) -> Checksum | None:
        """The checksum of these bytes by the store's algorithm; None if the store gave none."""
        if self._expected is None:
            return None
        digest = self._theirs or self._ours
        assert digest is not None  # noqa: S101
        return Checksum(self._expected.algorithm, digest.hexdigest())

    @property
    def agree(self) -> bool:
        """Whether the bytes match the store's checksum; True if the store gave none."""
        return self.found == self._expected


def is_cheap(checksum: Checksum | None) -> bool:
    """Whether this checksum is enough to publish a file before its SHA-256 is computed."""
    return checksum is not None and checksum.algorithm in {*_CRCS, *_XXHASHES}


def _their_digest(checksum: Checksum | None, size: int | None) -> _Digest | None:
    if checksum is None or checksum.algorithm is ChecksumAlgorithm.SHA256:
        return None
    if checksum.algorithm in _CRCS:
        return _Crc(checksum.algorithm)
    if checksum.algorithm in _XXHASHES:
        return _XXHash(checksum.algorithm)
    if checksum.algorithm is ChecksumAlgorithm.GIT_BLOB:
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    return hashlib.new(checksum.algorithm.value, usedforsecurity=False)
