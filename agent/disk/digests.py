"""Digests of a file whose bytes come in order: ours, and the one that its store gives."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Protocol

from awscrt import checksums

from localmodel.agent.structs.remote import Checksum, ChecksumAlgorithm

if TYPE_CHECKING:
    from collections.abc import Callable

_CRCS: dict[ChecksumAlgorithm, tuple[Callable[[bytes, int], int], int]] = {
    ChecksumAlgorithm.CRC32: (zlib.crc32, 8),
    ChecksumAlgorithm.CRC32C: (checksums.crc32c, 8),
    ChecksumAlgorithm.CRC64NVME: (checksums.crc64nvme, 16),
}


_XXHASHES: dict[ChecksumAlgorithm, Callable[[], checksums.XXHash]] = {
    ChecksumAlgorithm.XXHASH64: checksums.XXHash.new_xxhash64,
    ChecksumAlgorithm.XXHASH3: checksums.XXHash.new_xxhash3_64,
    ChecksumAlgorithm.XXHASH128: checksums.XXHash.new_xxhash3_128,
}


class _Digest(Protocol):
    def update(self, piece: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc:
    """A CRC with the interface of hashlib."""

    def __init__(self, algorithm: ChecksumAlgorithm) -> None:
        self._function, self._digits = _CRCS[algorithm]
        self._value = 0

    def update(self, piece: bytes | memoryview, /) -> None:
        # Those of awscrt take no memory that could be written to.
        self._value = self._function(bytes(piece), self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{self._digits}x}"


class _XXHash:
    """An XXHash with the interface of hashlib."""

    def __init__(self, algorithm: ChecksumAlgorithm) -> None:
        self._hash = _XXHASHES[algorithm]()

    def update(self, piece: bytes | memoryview, /) -> None:
        # It takes no memory that could be written to, whatever its annotations say.
        self._hash.update(piece if isinstance(piece, bytes) else bytes(piece))

    def hexdigest(self) -> str:
        digest: bytes = self._hash.finalize()
        return digest.hex()


class Digests:
    """The digests of one file. `position` is how many bytes they are of.

    Without `ours`, only the store's checksum is computed: it is cheaper, and proves as well that
    the bytes are those of the store.
    """

    def __init__(self, checksum: Checksum | None, size: int | None, *, ours: bool = True) -> None:
        self.position = 0
        self._expected = checksum
        self._ours: _Digest | None = None
        if ours or checksum is None or checksum.algorithm is ChecksumAlgorithm.SHA256:
            self._ours = hashlib.sha256()
        self._theirs = _their_digest(checksum, size)

    def update(self, piece: bytes | memoryview) -> None:
        """Take in the next bytes."""
        if self._ours is not None:
            self._ours.update(piece)
        if self._theirs is not None:
            self._theirs.update(piece)
        self.position += len(piece)

    @property
    def sha256(self) -> str | None:
        """Our digest, or None if it is left for later."""
        return self._ours.hexdigest() if self._ours is not None else None

    @property
    def found(self) -> Checksum | None:
        """The checksum of these bytes, of the kind that the store gave; None if it gave none."""
        if self._expected is None:
            return None
        digest = self._theirs or self._ours
        assert digest is not None  # noqa: S101
        return Checksum(self._expected.algorithm, digest.hexdigest())

    @property
    def agree(self) -> bool:
        """Whether the bytes are what the store says, as far as it says anything."""
        return self.found == self._expected


def is_cheap(checksum: Checksum | None) -> bool:
    """Whether this checksum can stand in for our digest until after the publication."""
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
