"""One download: its requesters, its progress, and the failure of its last attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from agent.structs.credentials import CredentialRef
    from agent.structs.failures import DownloadError
    from agent.structs.manifest import CacheName


# The names in storage.parameters that do not change the server.
_HARMLESS = {"type", "bucket", "region"}


@dataclass(frozen=True)
class Requester:
    """The requester of a model: a namespace, and the credentials that its caches name.

    The namespace is empty for LocalModelCaches, which are the administrator's. The credentials are
    None for the agent's own.
    """

    namespace: str = ""
    credentials: CredentialRef | None = None

    @property
    def chooses_server(self) -> bool:
        """Whether a namespace cache overrides the server that the keeper of credentials chose."""
        named = self.credentials.parameters if self.credentials else ()
        return bool(self.namespace) and any(name not in _HARMLESS for name, _ in named)


@dataclass(frozen=True)
class Request:
    """One download: all entries with this URI that can be served.

    `expected` holds the hashes that the model must have, so more than one can never be met. Only
    hashes of the first in precedence count, LocalModelCaches or the oldest namespace: others can
    neither disable its hash nor prevent the publication of its model.

    `requesters` are the requesters of the entries, in the order in which their credentials are
    tried: LocalModelCaches first, and last those that choose their own server. `deciders` are the
    requesters that fill the folder; None: all. `verified` is the hash of the verified manifest, see
    agent.structs.verified; empty: not known. `priority` is the highest and `size`, in bytes, the
    largest of the deciders' entries. `suspended` are the requesters whose entries may not begin.
    """

    key: str
    uri: str
    caches: tuple[CacheName, ...]
    expected: frozenset[str] = frozenset()
    requesters: tuple[Requester, ...] = (Requester(),)
    priority: int = 0
    size: int = 0
    suspended: frozenset[Requester] = frozenset()
    deciders: frozenset[Requester] | None = None
    verified: str = ""

    def accepts(self, model_hash: str | None) -> bool:
        """Whether a model with this hash may be published."""
        return self.expected <= {model_hash}

    def may_accept(self, model_hash: str | None) -> bool:
        """Whether a copy may be the requested one: a hash that is not computed is known soon."""
        return model_hash is None or self.accepts(model_hash)

    @property
    def requester(self) -> Requester:
        """The first requester; in an attempt, the one whose credentials are used."""
        return self.requesters[0]

    @property
    def is_suspended(self) -> bool:
        """Whether no entry may begin yet. An entry that may begin does so for all."""
        return self.suspended.issuperset(self.requesters)

    @property
    def deciding(self) -> tuple[Requester, ...]:
        """The requesters that fill the folder."""
        return tuple(filter(self.decides, self.requesters))

    def decides(self, requester: Requester) -> bool:
        """Whether one of the requesters fills the folder."""
        return self.deciders is None or requester in self.deciders

    @property
    def administrators(self) -> tuple[Requester, ...]:
        """The requesters of LocalModelCaches."""
        return tuple(requester for requester in self.requesters if not requester.namespace)

    def by(self, requester: Requester) -> Request:
        """The same download as an attempt with the credentials of one of its requesters."""
        return replace(self, requesters=(requester,), deciders=None)

    @property
    def groups(self) -> frozenset[str]:
        """The node groups of its caches; without Kubernetes the one without a name."""
        return frozenset(cache.node_group for cache in self.caches) or frozenset([""])

    def caches_of(self, requester: Requester) -> tuple[CacheName, ...]:
        """The caches of a requester's namespace."""
        return tuple(cache for cache in self.caches if cache.namespace == requester.namespace)

    def asks_as(self, attempt: Request) -> bool:
        """Whether a failure of an attempt counts for this request."""
        return self.expected == attempt.expected and attempt.requester in self._asking

    @cached_property
    def _asking(self) -> frozenset[Requester]:
        return frozenset(self.requesters)


@dataclass(frozen=True)
class Transfer:
    """The progress of a running download with the credentials of `requester`. Sizes in bytes.

    `total` is None until the source has reported it.
    """

    done: int = 0
    total: int | None = None
    bytes_per_second: int | None = None
    # When it will be complete, by a rate that is smoothed; None: not known, or nothing comes.
    completion_time: datetime | None = None
    # Whether the source has sent the listing, so that bytes are being fetched.
    listed: bool = False
    # Whether a foreign directory is being compared with the source.
    adopting: bool = False
    requester: Requester = field(default_factory=Requester)


@dataclass(frozen=True)
class Failure:
    """The last failed attempt. `attempts` counts the attempts since the last success."""

    error: DownloadError
    attempts: int
    retry_time: datetime
