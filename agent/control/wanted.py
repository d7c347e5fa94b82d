"""What a LocalModelNode asks for: its entries, grouped by key, and one request for each key. Pure.

`spec.localModels` is walked here, once for each version of the object, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from agent.capacity.holdings import Group
from agent.structs.credentials import CredentialRef
from agent.structs.failures import DownloadError, FailureKind, public_uri, scheme
from agent.structs.manifest import CacheName
from agent.structs.requests import Request, Requester
from crds.eviction import EvictionPolicy
from crds.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from crds.base import Identity
    from crds.node import LocalModel, LocalModelNode

# KServe's choice for a cache that has `storage` and names nothing in it.
DEFAULT_SERVICE_ACCOUNT = "default"

# These sources are read with the rights of the node's administrator: directories, a Hadoop login.
_OF_THE_NODE = {"file", "pvc", "hdfs"}
_FILE_OF_NAMESPACE = (
    "{uri} is read with the rights of the node, and a cache of a namespace has none of those: use "
    "a LocalModelCache, or another source"
)


@dataclass(frozen=True)
class Entry:
    """An entry of spec.localModels, with what follows from it.

    `refusal` says why the entry is not served at all. `size` is the declared one, in bytes.
    """

    model: LocalModel
    key: str
    cache: CacheName
    requester: Requester
    refusal: DownloadError | None
    size: int

    @cached_property
    def identity(self) -> Identity:
        """Key, namespace and name."""
        return self.model.identity


@dataclass(frozen=True)
class Wish:
    """All entries of one key, and the download that they request; None if all are refused."""

    entries: tuple[Entry, ...] = ()
    request: Request | None = None

    @cached_property
    def caches(self) -> tuple[CacheName, ...]:
        """The caches that want the model, refused ones included."""
        return tuple(entry.cache for entry in self.entries)

    @cached_property
    def groups(self) -> frozenset[str]:
        """The node groups that list the model."""
        return frozenset(entry.model.node_group for entry in self.entries)

    @cached_property
    def is_referenced(self) -> bool:
        """Whether a service refers to the model."""
        return any(entry.model.referenced for entry in self.entries)


NO_WISH = Wish()


@dataclass(frozen=True)
class Wanted:
    """What one version of a LocalModelNode asks for.

    `wishes` are by key, the most important first. `entries` has one entry for each cache and key,
    in the order of the list. `left_out` counts the models for which the object has no room.
    `exchanging` are the groups whose nodes exchange models.
    """

    generation: int = 0
    left_out: int = 0
    groups: Mapping[str, Group] = field(default_factory=dict)
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    exchanging: frozenset[str] = frozenset()

    @cached_property
    def requests(self) -> Mapping[str, Request]:
        """The downloads by key, in the order of the wishes, without keys that are refused."""
        return {key: wish.request for key, wish in self.wishes.items() if wish.request is not None}


NOTHING_WANTED = Wanted()


def wanted_of(node: LocalModelNode, before: Wanted = NOTHING_WANTED) -> Wanted:
    """What a LocalModelNode asks for. The wishes of `before` are taken over where none changed."""
    by_key: dict[str, list[LocalModel]] = {}
    # A node in two groups may have an entry twice: the status has the last one, in the first place.
    places: dict[Identity, int] = {}
    for model in node.spec.local_models:
        same = by_key.setdefault(model.key, [])
        places[model.identity] = len(same)
        same.append(model)
    wishes = {key: _wish(key, same, before.wishes.get(key)) for key, same in by_key.items()}
    return Wanted(
        generation=node.metadata.generation,
        left_out=node.spec.left_out or 0,
        groups={
            group.name: Group(
                limit=parse_quantity(group.storage_limit),
                high_percent=group.eviction.high_percent,
                low_percent=group.eviction.low_percent,
                evicts=group.eviction.policy is EvictionPolicy.LRU,
            )
            for group in node.spec.groups
        },
        wishes=wishes,
        entries=tuple(wishes[key].entries[place] for (key, _, _), place in places.items()),
        exchanging=frozenset(one.name for one in node.spec.groups if one.exchange is not None),
    )


def _wish(key: str, models: list[LocalModel], before: Wish | None) -> Wish:
    if before is not None and [entry.model for entry in before.entries] == models:
        return before
    entries = tuple(_entry(key, model) for model in models)
    served = [entry for entry in entries if entry.refusal is None]
    return Wish(entries, _request(key, served) if served else None)


def _entry(key: str, model: LocalModel) -> Entry:
    return Entry(
        model,
        key,
        CacheName(name=model.model_name, namespace=model.namespace, node_group=model.node_group),
        Requester(model.namespace, _credentials_of(model)),
        _refusal(model),
        parse_quantity(model.model_size),
    )


def _refusal(model: LocalModel) -> DownloadError | None:
    if model.namespace and scheme(model.source_model_uri) in _OF_THE_NODE:
        uri = public_uri(model.source_model_uri)
        return DownloadError(FailureKind.DENIED, _FILE_OF_NAMESPACE.format(uri=uri))
    return None


def _credentials_of(model: LocalModel) -> CredentialRef | None:
    """The credentials that an entry names, by KServe's rules: a key beats a ServiceAccount.

    Parameters belong to a key and count only with it.
    """
    storage = model.storage
    if storage is not None and storage.key:
        parameters = tuple(sorted((storage.parameters or {}).items()))
        return CredentialRef(storage_key=storage.key, parameters=parameters)
    if model.service_account_name:
        return CredentialRef(service_account=model.service_account_name)
    if storage is not None:
        return CredentialRef(service_account=DEFAULT_SERVICE_ACCOUNT)
    return None


def fillers(entries: Iterable[Entry]) -> frozenset[Requester]:
    """Of entries with one URI, the requesters whose sources may fill the folder that they share.

    Claims of the first owner may lead to the folder already. So files from another server than the
    first owner's cannot be put there: where neither the first owner nor another requester chooses a
    server, both lead to the same one.
    """
    entries = tuple(entries)
    first = frozenset(entry.requester for entry in _first_owners(entries))
    if any(not one.namespace or one.chooses_server for one in first):
        return first
    return first.union(e.requester for e in entries if not e.requester.chooses_server)


def _first_owners(entries: Collection[Entry]) -> list[Entry]:
    """The entries with one URI whose word counts before all others': see spec.precedence."""
    first = min((_place(entry) for entry in entries), default=None)
    return [entry for entry in entries if _place(entry) == first]


def _place(entry: Entry) -> tuple[bool, int]:
    return bool(entry.model.namespace), entry.model.precedence


def _request(key: str, entries: list[Entry]) -> Request:
    deciders = fillers(entries)
    deciding = [entry for entry in entries if entry.requester in deciders]
    begins = frozenset(entry.requester for entry in entries if not entry.model.suspend)
    asking = dict.fromkeys(entry.requester for entry in (*deciding, *entries))
    requesters = tuple(sorted(asking, key=lambda one: one.chooses_server))
    hashes = (entry.model.hash for entry in _first_owners(entries))
    manifests = (entry.model.verified_manifest for entry in deciding)
    return Request(
        key=key,
        uri=entries[0].model.source_model_uri,
        caches=tuple(entry.cache for entry in entries),
        expected=frozenset(found for found in hashes if found),
        requesters=requesters,
        priority=max(entry.model.priority for entry in deciding),
        size=max(entry.size for entry in deciding),
        suspended=frozenset(requesters) - begins,
        deciders=deciders,
        verified=next(filter(None, manifests), ""),
    )


def is_doubted(caches: Iterable[CacheName], groups: Collection[str]) -> bool:
    """Whether an object that knows these groups says nothing of a model of these caches.

    A LocalModelNode that was made anew while one group's plan was missing lists the models of the
    other groups only.
    """
    asked = {cache.node_group for cache in caches if cache.node_group}
    return bool(asked) and asked.isdisjoint(groups)
