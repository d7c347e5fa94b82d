"""Where models come from: one module for each kind of source, and the registry of schemes.

A source is imported when a URI of its kind is first asked for: the SDKs and clients of all kinds
take seconds to import and most of an agent's memory, and a node uses one or two of them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agent.sources.addresses import DEFAULT_RULES
from agent.sources.azure_uris import is_blob_uri
from agent.sources.lazy import Lazy
from agent.sources.unfetched import is_repository, unfetched
from agent.structs.failures import scheme
from agent.structs.options import MAX_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from agent.sources.addresses import Rules
    from agent.sources.base import Source
    from agent.sources.transport import Transports

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
        by_scheme: Mapping[str, Source | Lazy[Source]],
        of_namespaces: Mapping[str, Source | Lazy[Source]] | None = None,
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        self._of_all = dict(by_scheme)
        self._of_namespaces = self._of_all if of_namespaces is None else dict(of_namespaces)
        self.tidy = tidy

    def of(self, uri: str, namespace: str) -> Source:
        """The source of a URI, for caches of a namespace; empty: for LocalModelCaches.

        Raises DownloadError (Unsupported). The first call for a kind of source may take a second:
        call it before a time limit begins.
        """
        by_scheme = self._of_namespaces if namespace else self._of_all
        name = BLOBS if BLOBS in by_scheme and is_blob_uri(uri) else scheme(uri)
        source = by_scheme.get(name)
        if source is None or (name != BLOBS and is_repository(uri)):
            raise unfetched(uri, by_scheme)
        return source.get() if isinstance(source, Lazy) else source


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
    transports = Lazy(partial(_transports, rules))
    theirs = Lazy(partial(_transports, namespace_rules))
    files = Lazy(partial(_files, file_directories, pvc_directories))
    hdfs = Lazy(partial(_hdfs, transports, sends_own_token=True))

    def tidy() -> None:
        for made in (transports, theirs):
            made.use(lambda kept: kept.tidy())

    return Sources(
        _of_network(transports, hdfs, hub) | {"file": files, "hdfs": hdfs, "pvc": files},
        _of_network(theirs, Lazy(partial(_hdfs, theirs, sends_own_token=False)), hub),
        tidy,
    )


def _of_network(
    transports: Lazy[Transports], hdfs: Lazy[Source], hub: str
) -> dict[str, Lazy[Source]]:
    web = Lazy(partial(_web, transports))
    return {
        BLOBS: Lazy(partial(_azure, transports)),
        "gs": Lazy(partial(_google, transports)),
        "hf": Lazy(partial(_hugging_face, transports, hub)),
        "http": web,
        "https": web,
        "s3": Lazy(partial(_s3, transports)),
        "swebhdfs": hdfs,
        "webhdfs": hdfs,
    }


# What makes each source imports it.


def _transports(rules: Rules) -> Transports:
    from agent.sources.transport import Transports  # noqa: PLC0415

    return Transports(max_connections=MAX_CONNECTIONS, rules=rules)


def _azure(transports: Lazy[Transports]) -> Source:
    from agent.sources.azure import AzureSource  # noqa: PLC0415

    return AzureSource(transports.get())


def _files(directories: Sequence[Path], claims: Mapping[str, Path] | None) -> Source:
    from agent.sources.file import FileSource  # noqa: PLC0415

    return FileSource(directories, claims)


def _google(transports: Lazy[Transports]) -> Source:
    from agent.sources.gs import GoogleStorageSource  # noqa: PLC0415

    return GoogleStorageSource(transports.get())


def _hdfs(transports: Lazy[Transports], *, sends_own_token: bool) -> Source:
    from agent.sources.hdfs import HdfsSource  # noqa: PLC0415

    return HdfsSource(transports.get(), sends_own_token=sends_own_token)


def _hugging_face(transports: Lazy[Transports], hub: str) -> Source:
    from agent.sources.hf import HuggingFaceSource  # noqa: PLC0415

    return HuggingFaceSource(transports.get(), hub)


def _s3(transports: Lazy[Transports]) -> Source:
    from agent.sources.s3 import S3Source  # noqa: PLC0415

    return S3Source(transports.get())


def _web(transports: Lazy[Transports]) -> Source:
    from agent.sources.http import HttpSource  # noqa: PLC0415

    return HttpSource(transports.get())
