"""One download: who asks for it, how far it is, and how its last attempt failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from localmodel.agent.structs.credentials import CredentialRef
    from localmodel.agent.structs.failures import DownloadError
    from localmodel.agent.structs.manifest import CacheName


# Of storage.parameters: what says nothing of where the bytes come from.
_HARMLESS = {"type", "bucket", "region"}


@dataclass(frozen=True)
class Requester:
    """Who asks for a model: a namespace, and the credentials that its caches name.

    The namespace of LocalModelCaches, which are the administrator's, is empty. Credentials that are
    None are the agent's own.
    """

    namespace: str = ""
    credentials: CredentialRef | None = None

    @property
    def chooses_server(self) -> bool:
        """Whether a cache of a namespace says itself what is asked, over what keepers wrote."""
        named = self.credentials.parameters if self.credentials else ()
        return bool(self.namespace) and any(name not in _HARMLESS for name, _ in named)


@dataclass(frozen=True)
class Request:
    """One download: all wanted entries with this URI that can be served.

    `expected` holds the hashes that the model must have, so more than one can never be met. Only
    the word of the first owner counts, LocalModelCaches or the oldest namespace: others can neither
    switch its hash off nor keep its model from being published.

    `requesters` are whose entries they are, in the order in which their credentials are tried:
    those of LocalModelCaches first, and last those that choose a server of their own. `deciding`
    are those who fill the folder. The `priority` is the highest of theirs, `size` the largest that
    they declare, in bytes. `suspended` are the requesters of whose entries none may begin yet.
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

    def accepts(self, model_hash: str | None) -> bool:
        """Whether a model with this hash may be published."""
        return self.expected <= {model_hash}

    @property
    def requester(self) -> Requester:
        """The first, or the one whose credentials an attempt uses."""
        return self.requesters[0]

    @property
    def is_suspended(self) -> bool:
        """Whether none of its entries may begin yet: one that may begins for all."""
        return self.suspended.issuperset(self.requesters)

    @property
    def deciding(self) -> tuple[Requester, ...]:
        """Those who fill the folder: all, unless it is said who."""
        if self.deciders is None:
            return self.requesters
        return tuple(one for one in self.requesters if one in self.deciders)

    @property
    def administrators(self) -> tuple[Requester, ...]:
        """Those of LocalModelCaches."""
        return tuple(one for one in self.requesters if not one.namespace)

    def by(self, requester: Requester) -> Request:
        """The same download as an attempt with the credentials of one of its requesters."""
        return replace(self, requesters=(requester,), deciders=None)

    def caches_of(self, requester: Requester) -> tuple[CacheName, ...]:
        """The caches of a requester's namespace."""
        return tuple(one for one in self.caches if one.namespace == requester.namespace)

    def asks_as(self, attempt: Request) -> bool:
        """Whether a failure of an attempt says something of this request."""
        return self.expected == attempt.expected and attempt.requester in self._asking

    @cached_property
    def _asking(self) -> frozenset[Requester]:
        return frozenset(self.requesters)


@dataclass(frozen=True)
class Transfer:
    """A download that is under way, with the credentials of `requester`.

    `total` is None until the source has told it.
    """

    done: int = 0
    total: int | None = None
    bytes_per_second: int | None = None
    # Whether the source has answered, and bytes come.
    listed: bool = False
    # Whether a folder of somebody else is compared with the source.
    adopting: bool = False
    requester: Requester = field(default_factory=Requester)


@dataclass(frozen=True)
class Failure:
    """The last failed attempt, of `attempts` since the last success."""

    error: DownloadError
    attempts: int
    retry_time: datetime
