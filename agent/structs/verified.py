"""The verified manifest of a model: the digests of its files, bound to versions at an origin. Pure.

Nodes report its hash. When two nodes report the same hash after direct downloads, the digests count
as known, also where the store has none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from agent.structs.json_record import JsonRecord, RecordError
from agent.structs.manifest import Bytes, ManifestFile, Sha256, check_path, model_hash

if TYPE_CHECKING:
    from agent.structs.manifest import Manifest

# About 100 000 files.
MAX_BYTES = 32 << 20


class VerifiedFile(Struct, frozen=True, gc=False):
    """A file as its origin lists it, with its digest in hexadecimal digits."""

    path: str
    size: Bytes
    version: str | None
    sha256: Sha256

    def __post_init__(self) -> None:
        check_path(self.path)


class VerifiedManifest(JsonRecord, frozen=True, kw_only=True):
    """The files of a model at its origin, sorted by path. `uri` is as in Manifest.

    `hash` is that of the JSON text, which is the same from every agent.
    """

    schema_version: Literal[1] = 1
    uri: str
    origin: str
    files: Annotated[tuple[VerifiedFile, ...], Meta(min_length=1)]

    @property
    def hash(self) -> str:
        """`sha256:` and the SHA-256 of the JSON text in hexadecimal digits."""
        return f"sha256:{hashlib.sha256(self.encode()).hexdigest()}"

    @property
    def model_hash(self) -> str | None:
        """The hash of the model, as in LocalModelCache.spec.hash."""
        return model_hash(
            ManifestFile(path=file.path, size=file.size, sha256=file.sha256) for file in self.files
        )


def verified(manifest: Manifest) -> VerifiedManifest | None:
    """The verified manifest of a copy; None if digests are missing, or its origin is not known.

    And None where the files are not the origin's own, as those of an archive, which have no
    version there.
    """
    access = manifest.access
    digests = [file.sha256 for file in manifest.files]
    if access is None or None in digests or any(file.version is None for file in manifest.files):
        return None
    return VerifiedManifest(
        uri=manifest.uri,
        origin=access.origin,
        files=tuple(
            VerifiedFile(file.path, file.size, file.version, file.sha256 or "")
            for file in sorted(manifest.files, key=lambda file: file.path)
        ),
    )


def decode(content: bytes, expected: str) -> VerifiedManifest | None:
    """The verified manifest that a peer has sent; None if it is not the one with this hash."""
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != expected:
        return None
    try:
        return VerifiedManifest.decode(content)
    except RecordError:
        return None
