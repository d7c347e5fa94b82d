"""The verified manifest of a model: the digests of its files, bound to versions at an origin. Pure.

Nodes report its hash. When two nodes report the same hash after direct downloads, the digests count
as known, also where the store has none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic.dataclasses import dataclass

from agent.structs.manifest import ManifestFile, check_path, model_hash
from crds.base import JsonObject

if TYPE_CHECKING:
    from agent.structs.manifest import Manifest

# About 100 000 files.
MAX_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A file as its origin lists it, with its digest in hexadecimal digits."""

    path: Annotated[str, AfterValidator(check_path)]
    size: Annotated[int, Field(ge=0)]
    version: str | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class VerifiedManifest(JsonObject):
    """The files of a model at its origin, sorted by path. `uri` is as in Manifest."""

    schema_version: Literal[1] = 1
    uri: str
    origin: str
    files: tuple[VerifiedFile, ...] = Field(min_length=1)

    def encode(self) -> bytes:
        """The canonical JSON, of which `hash` is the hash."""
        return self.model_dump_json(by_alias=True).encode()

    @property
    def hash(self) -> str:
        """`sha256:` and the SHA-256 of the canonical JSON in hexadecimal digits."""
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
        return VerifiedManifest.model_validate_json(content, by_alias=True)
    except ValidationError:
        return None
