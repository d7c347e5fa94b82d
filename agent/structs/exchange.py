"""What the agents of a group exchange, as the engine and the jobs see it. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.structs.manifest import Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.structs.remote import Body
    from agent.structs.verified import VerifiedManifest


@dataclass(frozen=True)
class Peer:
    """An agent of another node. `address` is `host:port`.

    `fingerprint` is the SHA-256 of its certificate, in hexadecimal digits; None: plain HTTP. `seed`
    is whether it may fetch from the origin at once.
    """

    node: str
    address: str
    fingerprint: str | None = None
    zone: str = ""
    seed: bool = True


@dataclass(frozen=True)
class Neighbourhood:
    """The peers of this node in one group. `seed` is whether this node is one, see Peer."""

    node: str
    peers: tuple[Peer, ...] = ()
    zone: str = ""
    seed: bool = True


class Lane(Protocol):
    """One peer during one download. Any thread may call it."""

    @property
    def peer(self) -> Peer:
        """The peer."""
        ...

    @property
    def is_near(self) -> bool:
        """Whether it is in the zone of this node."""
        ...

    @property
    def takes_part(self) -> bool | None:
        """Whether it has the model or is downloading it; None: it has not answered yet.

        False also while it cannot be reached.
        """
        ...

    @property
    def pieces(self) -> Mapping[str, int]:
        """The pieces that it has, by digest of the file: see agent.structs.pieces."""
        ...

    @property
    def asked(self) -> Mapping[str, int]:
        """The pieces that it has asked the origin for and does not have yet, by digest."""
        ...

    def read(self, digest: str, start: int, end: int) -> Body:
        """Bytes of a file, from `start` up to and without `end`. Raises DownloadError.

        THROTTLED: it serves too many others now. NOT_FOUND: it no longer has the file.
        """
        ...


@dataclass(frozen=True)
class SharedFile:
    """A file that is exchanged. `digest` is its SHA-256 in hexadecimal digits."""

    path: str
    size: int
    digest: str


class Exchange(Protocol):
    """The peers of one download: what they have, and what this node tells them.

    Any thread may call it. No method waits but `manifest`.
    """

    @property
    def neighbourhood(self) -> Neighbourhood:
        """This node and its peers now."""
        ...

    def lanes(self) -> Sequence[Lane]:
        """The peers now. A lane stays the same object as long as its peer does."""
        ...

    def begin(self, files: Iterable[SharedFile], news: Callable[[], None]) -> None:
        """Serve these files from staging. `news` is called when a peer has new pieces."""
        ...

    def wrote(self, digest: str, pieces: int) -> None:
        """Tell the peers which pieces are on the disk, in addition to earlier ones."""
        ...

    def asks(self, digest: str, pieces: int) -> None:
        """Tell the peers which pieces are asked for at the origin now, instead of earlier ones."""
        ...

    def lost(self, digest: str) -> None:
        """Tell the peers that no piece of a file is valid any more: it starts over."""
        ...

    def blame(self, lane: Lane, path: str) -> None:
        """Leave out a peer that sent wrong bytes of a file, also in later downloads."""
        ...

    def manifest(self, digest: str) -> VerifiedManifest | None:
        """The manifest with this hash, from the first peer that has it; None: nobody has it.

        It waits for the answers of peers, a few seconds at most.
        """
        ...

    def end(self) -> None:
        """The download is over: what was published is served from then on."""
        ...


class PeerGroup(Protocol):
    """Where downloads find their peers. Any thread may call it."""

    def exchange(self, key: str, groups: Iterable[str], grant: Grant) -> Exchange | None:
        """The exchange of one download for a requester; None if no group of it has peers.

        The caller must `end` it.
        """
        ...


def grant_digest(grant: Grant) -> str:
    """The digest by which an agent names a grant to its peers: it tells them no credentials.

    All requesters of the administrator have the same: see agent.structs.grants.Granted.
    """
    if not grant.namespace:
        grant = Grant()
    told = [grant.namespace, grant.service_account, grant.storage_key, grant.parameters]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
