"""Where models come from: one module for each kind of source, and the registry of schemes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.engine.limits import MAX_CONNECTIONS
from agent.failures import DownloadError, FailureKind, public_uri, scheme
from agent.sources.azure import AzureSource, is_blob_uri
from agent.sources.file import FileSource
from agent.sources.gs import GoogleStorageSource
from agent.sources.guard import LINK_LOCAL
from agent.sources.hdfs import HdfsSource
from agent.sources.hf import HuggingFaceSource
from agent.sources.http import HttpSource
from agent.sources.s3 import S3Source
from agent.sources.transport import Transports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.sources.base import Source
    from agent.sources.guard import Network

# What the names of hosts say more of than the scheme https.
BLOBS = "azure"


class Sources:
    """The source of each scheme."""

    def __init__(self, by_scheme: Mapping[str, Source]) -> None:
        self._by_scheme = dict(by_scheme)

    def of(self, uri: str) -> Source:
        """The source of a URI. Raises DownloadError (Unsupported)."""
        name = BLOBS if BLOBS in self._by_scheme and is_blob_uri(uri) else scheme(uri)
        source = self._by_scheme.get(name)
        if source is None:
            works = ", ".join(f"{name}://" for name in sorted(self._by_scheme))
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"this agent cannot fetch {public_uri(uri)}: it fetches {works}; copy the model to "
                "one of these, and create a cache with that sourceModelUri",
            )
        return source


def all_sources(
    *,
    file_directories: Sequence[Path] = (),
    pvc_directories: Mapping[str, Path] | None = None,
    refused_networks: Sequence[Network] = (),
) -> Sources:
    """The sources that this agent has. Link-local addresses are always refused.

    `file_directories` are what file:// may read, `pvc_directories` where claims are mounted.
    """
    transports = Transports(
        max_connections=MAX_CONNECTIONS, refused=(*LINK_LOCAL, *refused_networks)
    )
    files = FileSource(file_directories, pvc_directories)
    hdfs = HdfsSource(transports)
    web = HttpSource(transports)
    return Sources(
        {
            BLOBS: AzureSource(transports),
            "file": files,
            "gs": GoogleStorageSource(transports),
            "hdfs": hdfs,
            "hf": HuggingFaceSource(transports),
            "http": web,
            "https": web,
            "pvc": files,
            "s3": S3Source(transports),
            "swebhdfs": hdfs,
            "webhdfs": hdfs,
        }
    )
