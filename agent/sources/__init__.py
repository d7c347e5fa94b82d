"""Where models come from: one module for each kind of source, and the registry of schemes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.sources.addresses import DEFAULT_RULES
from agent.sources.azure import AzureSource, is_blob_uri
from agent.sources.file import FileSource
from agent.sources.gs import GoogleStorageSource
from agent.sources.hdfs import HdfsSource
from agent.sources.hf import HuggingFaceSource
from agent.sources.http import HttpSource
from agent.sources.s3 import S3Source
from agent.sources.transport import Transports
from agent.sources.unfetched import is_repository, unfetched
from agent.structs.failures import scheme
from agent.structs.options import MAX_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from agent.sources.addresses import Rules
    from agent.sources.base import Source

# The key of Azure's source, whose URIs are https:// too: its hosts tell them apart.
BLOBS = "azure"
# The schemes of URIs that a source fetches.
SCHEMES = frozenset(
    {"file", "gs", "hdfs", "hf", "http", "https", "pvc", "s3", "swebhdfs", "webhdfs"}
)


class Sources:
    """The source of each scheme: one for LocalModelCaches, one for caches of namespaces.

    Without `of_namespaces` both are the same. `tidy` drops the clients that no source uses.
    """

    def __init__(
        self,
        by_scheme: Mapping[str, Source],
        of_namespaces: Mapping[str, Source] | None = None,
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        self._of_all = dict(by_scheme)
        self._of_namespaces = self._of_all if of_namespaces is None else dict(of_namespaces)
        self.tidy = tidy

    def of(self, uri: str, namespace: str) -> Source:
        """The source of a URI, for caches of a namespace; empty: for LocalModelCaches.

        Raises DownloadError (Unsupported).
        """
        by_scheme = self._of_namespaces if namespace else self._of_all
        if BLOBS in by_scheme and is_blob_uri(uri):
            return by_scheme[BLOBS]
        source = by_scheme.get(scheme(uri))
        if source is None or is_repository(uri):
            raise unfetched(uri, by_scheme)
        return source


def all_sources(
    *,
    file_directories: Sequence[Path] = (),
    pvc_directories: Mapping[str, Path] | None = None,
    rules: Rules = DEFAULT_RULES,
    namespace_rules: Rules = DEFAULT_RULES,
    hub: str = "",
) -> Sources:
    """The sources that this agent has.

    `file_directories` are the directories that file:// may read, `pvc_directories` those where
    claims are mounted. `namespace_rules` apply to caches of namespaces, `rules` to
    LocalModelCaches. The two share no connection: a connection is checked only when it is made.
    `hub` is the address of the hub that hf:// means where the credentials name none.
    """
    transports = Transports(max_connections=MAX_CONNECTIONS, rules=rules)
    theirs = Transports(max_connections=MAX_CONNECTIONS, rules=namespace_rules)
    files = FileSource(file_directories, pvc_directories)

    def tidy() -> None:
        transports.tidy()
        theirs.tidy()

    hdfs = HdfsSource(transports)
    return Sources(
        _of_network(transports, hdfs, hub) | {"file": files, "hdfs": hdfs, "pvc": files},
        _of_network(theirs, HdfsSource(theirs, sends_own_token=False), hub),
        tidy,
    )


def _of_network(transports: Transports, hdfs: HdfsSource, hub: str) -> dict[str, Source]:
    web = HttpSource(transports)
    return {
        BLOBS: AzureSource(transports),
        "gs": GoogleStorageSource(transports),
        "hf": HuggingFaceSource(transports, hub),
        "http": web,
        "https": web,
        "s3": S3Source(transports),
        "swebhdfs": hdfs,
        "webhdfs": hdfs,
    }
