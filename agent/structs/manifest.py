"""The manifest of a copy: its files with their digests, its owners and its grants."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from agent.structs.json_record import JsonRecord
from crds.keys import model_key

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_SEGMENT_BYTES = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# Bounds of what is read; the agent's own code keeps them.
Bytes = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


def check_path(path: str) -> str:
    """The path itself if it stays inside its model's folder. Raises ValueError otherwise.

    A path is relative, with `/` between its segments. Control characters are refused because they
    would make the lines that `model_hash` is made of ambiguous.
    """
    if path.startswith("/"):
        raise ValueError(f"the path {path!r} is absolute")
    segments = path.split("/")
    for segment in ("", ".", ".."):
        if segment in segments:
            raise ValueError(f"the path {path!r} has the segment {segment!r}")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the path {path!r} is not valid Unicode") from None
    if max(map(len, encoded.split(b"/"))) > _MAX_SEGMENT_BYTES:
        raise ValueError(f"the path {path!r} has a segment of more than 255 bytes")
    if _CONTROL.search(path):
        raise ValueError(f"the path {path!r} has a control character")
    return path


def folders(paths: Iterable[str]) -> set[str]:
    """All folders above these paths, without the model's own folder."""
    found: set[str] = set()
    for path in paths:
        segments = path.split("/")
        found.update("/".join(segments[:n]) for n in range(1, len(segments)))
    return found


class CacheName(JsonRecord, frozen=True, kw_only=True, omit_defaults=True):
    """A cache that owns a copy, and the group through which it requested the model."""

    name: str
    namespace: str = ""
    node_group: str = ""


class Grant(JsonRecord, frozen=True, kw_only=True, omit_defaults=True):
    """A grant of a copy to the caches of a namespace that name these credentials.

    A grant holds no secret: `parameters` is the digest of a cache's storage.parameters.
    """

    namespace: str = ""
    service_account: str = ""
    storage_key: str | None = None
    parameters: str | None = None


class Access(JsonRecord, frozen=True, kw_only=True):
    """The access record of a copy: its origin and its grants.

    `listing` is the digest of the source's listing, which the manifest's files do not show where
    they were unpacked from an archive.
    """

    origin: str
    listing: str
    grants: tuple[Grant, ...] = ()


class ManifestFile(Struct, frozen=True, omit_defaults=True, gc=False):
    """One file of a model. It takes little memory, as a model may have many files.

    `version` pins the file at its source, such as an ETag. `sha256` is None while the digest is
    left for later: because the store's checksum proved the file, or because only the size could be
    compared when the file was adopted. `checksum` is the store's, as `<algorithm>:<hexadecimal>`.
    """

    path: str
    size: Bytes
    sha256: Sha256 | None = None
    version: str | None = None
    checksum: str | None = None

    def __post_init__(self) -> None:
        check_path(self.path)


def model_hash(files: Iterable[ManifestFile]) -> str | None:
    """The hash of a model, as in LocalModelCache.spec.hash; None while a digest is missing.

    The hash is `sha256:` and the SHA-256 over a line `<sha256 of the file>  <path>` for each file,
    sorted by path, each line with a newline. It is the same on every node and from every source.
    """
    files = tuple(files)
    if any(file.sha256 is None for file in files):
        return None
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.path):
        digest.update(f"{file.sha256}  {file.path}\n".encode())
    return f"sha256:{digest.hexdigest()}"


class Manifest(JsonRecord, frozen=True, kw_only=True):
    """The record of a copy. A manifest is invalid unless key, size and hash agree with its files.

    `access` is None where an older agent wrote the manifest. `origin_bytes` and `peer_bytes` are
    what the attempt that completed the copy received from the origin and from peers; None: not
    known. `origin_asked` is False if peers alone gave the model while its origin was gone;
    `by_manifest` is whether digests were those of a verified manifest, and not all the store's.
    """

    schema_version: Literal[1] = 1
    uri: str
    key: str
    caches: tuple[CacheName, ...] = ()
    files: tuple[ManifestFile, ...]
    size: int
    hash: str | None = None
    access: Access | None = None
    origin_bytes: int | None = None
    peer_bytes: int | None = None
    origin_asked: bool = True
    by_manifest: bool = False

    def check(self) -> None:
        """Raise ValueError unless key, size and hash agree with the files."""
        if self.key != model_key(self.uri):
            raise ValueError("key is not that of uri")
        if self.size != sum(file.size for file in self.files):
            raise ValueError("size is not the sum of the files")
        if self.hash != model_hash(self.files):
            raise ValueError("hash is not that of the files")


def make_manifest(
    uri: str,
    files: Iterable[ManifestFile],
    caches: Iterable[CacheName] = (),
    access: Access | None = None,
) -> Manifest:
    """The manifest of these files."""
    ordered = tuple(sorted(files, key=lambda f: f.path))
    return Manifest(
        uri=uri,
        key=model_key(uri),
        caches=tuple(caches),
        files=ordered,
        size=sum(file.size for file in ordered),
        hash=model_hash(ordered),
        access=access,
    )
