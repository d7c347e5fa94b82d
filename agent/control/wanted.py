"""What a LocalModelNode asks for, as downloads: one for each key. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.structs.credentials import CredentialRef
from agent.structs.failures import DownloadError, FailureKind, public_uri, scheme
from agent.structs.manifest import CacheName
from agent.structs.requests import Request, Requester
from crds.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from crds.node import LocalModel

# KServe's choice for a cache that has `storage` and names nothing in it.
DEFAULT_SERVICE_ACCOUNT = "default"

# What these read, they read as the node's administrator: its directories, its Hadoop login.
_OF_THE_NODE = {"file", "pvc", "hdfs"}
_FILE_OF_NAMESPACE = (
    "{uri} is read with the rights of the node, and a cache of a namespace has none of those: use "
    "a LocalModelCache, or another source"
)


def refusal(entry: LocalModel) -> DownloadError | None:
    """Why this entry is not served at all, or None."""
    uri = public_uri(entry.source_model_uri)
    if entry.namespace and scheme(entry.source_model_uri) in _OF_THE_NODE:
        return DownloadError(FailureKind.DENIED, _FILE_OF_NAMESPACE.format(uri=uri))
    return None


def cache_name(entry: LocalModel) -> CacheName:
    """The cache that an entry is for."""
    return CacheName(name=entry.model_name, namespace=entry.namespace, node_group=entry.node_group)


def credentials_of(entry: LocalModel) -> CredentialRef | None:
    """The credentials that an entry names, by KServe's rules: a key beats a ServiceAccount.

    Parameters belong to a key and count only with it.
    """
    storage = entry.storage
    if storage is not None and storage.key:
        parameters = tuple(sorted((storage.parameters or {}).items()))
        return CredentialRef(storage_key=storage.key, parameters=parameters)
    if entry.service_account_name:
        return CredentialRef(service_account=entry.service_account_name)
    if storage is not None:
        return CredentialRef(service_account=DEFAULT_SERVICE_ACCOUNT)
    return None


def requester_of(entry: LocalModel) -> Requester:
    """Who asks for an entry."""
    return Requester(entry.namespace, credentials_of(entry))


def requests(entries: Iterable[LocalModel]) -> dict[str, Request]:
    """Downloads by key, in the order of the entries, without the refused entries."""
    served: dict[str, list[LocalModel]] = {}
    for entry in entries:
        if refusal(entry) is None:
            served.setdefault(entry.key, []).append(entry)
    return {key: _request(key, same) for key, same in served.items()}


def first_owners(entries: Iterable[LocalModel]) -> list[LocalModel]:
    """The entries with one URI whose word counts before all others': see spec.precedence."""
    entries = tuple(entries)
    first = min((_place(entry) for entry in entries), default=None)
    return [entry for entry in entries if _place(entry) == first]


def _place(entry: LocalModel) -> tuple[bool, int]:
    return bool(entry.namespace), entry.precedence


def fillers(entries: Iterable[LocalModel]) -> frozenset[Requester]:
    """Of entries with one URI, those whose sources may fill the folder that they share.

    Claims of the first owner may lead there already. So what comes from another server than its
    own cannot be there: where neither it nor another chooses one, both lead to the same.
    """
    entries = tuple(entries)
    first = frozenset(map(requester_of, first_owners(entries)))
    if any(not one.namespace or one.chooses_server for one in first):
        return first
    others = frozenset(map(requester_of, entries))
    return first.union(one for one in others if not one.chooses_server)


def _request(key: str, entries: list[LocalModel]) -> Request:
    deciders = fillers(entries)
    deciding = [entry for entry in entries if requester_of(entry) in deciders]
    begins = frozenset(requester_of(entry) for entry in entries if not entry.suspend)
    asking = dict.fromkeys(map(requester_of, (*deciding, *entries)))
    requesters = tuple(sorted(asking, key=lambda one: one.chooses_server))
    return Request(
        key=key,
        uri=entries[0].source_model_uri,
        caches=tuple(cache_name(entry) for entry in entries),
        expected=frozenset(entry.hash for entry in first_owners(entries) if entry.hash),
        requesters=requesters,
        priority=max(entry.priority for entry in deciding),
        size=max(parse_quantity(entry.model_size) for entry in deciding),
        suspended=frozenset(requesters) - begins,
        deciders=deciders,
    )


def caches_in_use(entries: Iterable[LocalModel]) -> dict[str, tuple[CacheName, ...]]:
    """The caches that want each key, refused ones included."""
    names: dict[str, list[CacheName]] = {}
    for entry in entries:
        names.setdefault(entry.key, []).append(cache_name(entry))
    return {key: tuple(found) for key, found in names.items()}


def is_doubted(caches: Iterable[CacheName], groups: Collection[str]) -> bool:
    """Whether an object that knows these groups says nothing of a model of these caches.

    A LocalModelNode that was made anew while one group's plan was missing lists the models of the
    other groups only.
    """
    asked = {cache.node_group for cache in caches if cache.node_group}
    return bool(asked) and asked.isdisjoint(groups)
