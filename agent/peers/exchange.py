"""The exchange of one download: its lanes to peers, and what this agent tells them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from agent.peers.polling import Polling
from agent.structs.exchange import Neighbourhood
from agent.structs.failures import DownloadError
from agent.structs.log import log
from agent.structs.verified import MAX_BYTES, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from agent.peers.client import PeerBody, PeerClient
    from agent.structs.exchange import Lane, Peer, SharedFile
    from agent.structs.verified import VerifiedManifest

# How long peers are asked for a manifest, one after the other.
MANIFEST_SECONDS = 5.0


class Offers(Protocol):
    """Where a download tells what it has: see agent.peers.shelf.Shelf."""

    def begin(self, key: str, grant: str, files: Iterable[SharedFile], folder: Path) -> None:
        """Serve these files of a folder, as they are written."""
        ...

    def wrote(self, key: str, digest: str, pieces: int) -> None:
        """Serve these pieces of a file too."""
        ...

    def asks(self, key: str, digest: str, pieces: int) -> None:
        """Say which pieces are asked for at the origin now."""
        ...

    def lost(self, key: str, digest: str) -> None:
        """Serve no piece of a file any more."""
        ...

    def end(self, key: str) -> None:
        """The download is over."""
        ...


class Registry(Protocol):
    """What knows all exchanges: see agent.peers.directory.Directory."""

    def blame(self, peer: Peer, path: str) -> None:
        """Leave out a peer that sent wrong bytes of a file."""
        ...

    def leave(self, exchange: PeerExchange) -> None:
        """The exchange has ended."""
        ...


class PeerLane:
    """One peer during one download: see agent.structs.exchange.Lane."""

    def __init__(self, client: PeerClient, polling: Polling, key: str, grant: str) -> None:
        self.client = client
        self.polling = polling
        self.is_near = False
        self._key = key
        self._grant = grant

    @property
    def peer(self) -> Peer:
        """The peer."""
        return self.client.peer

    @property
    def takes_part(self) -> bool | None:
        """Whether it has the model or is downloading it; None: it has not answered yet."""
        return self.polling.takes_part

    @property
    def pieces(self) -> Mapping[str, int]:
        """The pieces that it has, by digest."""
        return self.polling.pieces

    @property
    def asked(self) -> Mapping[str, int]:
        """The pieces that it has asked the origin for, by digest."""
        return self.polling.asked

    def read(self, digest: str, start: int, end: int) -> PeerBody:
        """Bytes of a file. Raises DownloadError."""
        return self.client.range(self._key, self._grant, digest, start, end)


class PeerExchange:
    """The exchange of one download: see agent.structs.exchange.Exchange."""

    def __init__(
        self, key: str, grant: str, folder: Path, offers: Offers, registry: Registry
    ) -> None:
        self.neighbourhood = Neighbourhood("")
        self._key = key
        self._grant = grant
        self._folder = folder
        self._offers = offers
        self._registry = registry
        self._lock = threading.Lock()
        self._clients: tuple[PeerClient, ...] = ()
        # None before `begin`.
        self._files: dict[str, SharedFile] | None = None
        self._news: Callable[[], None] = lambda: None
        # Replaced, never changed.
        self._lanes: tuple[PeerLane, ...] = ()
        self._has_ended = False

    def lanes(self) -> Sequence[Lane]:
        """The peers now."""
        return self._lanes

    def begin(self, files: Iterable[SharedFile], news: Callable[[], None]) -> None:
        """Serve these files from staging, and ask the peers for them."""
        shared = tuple(files)
        self._offers.begin(self._key, self._grant, shared, self._folder)
        with self._lock:
            self._files, self._news = {file.digest: file for file in shared}, news
            self._follow_locked()

    def meet(self, neighbourhood: Neighbourhood, clients: tuple[PeerClient, ...]) -> None:
        """Replace the peers. A lane stays as long as its peer has the same client."""
        with self._lock:
            self.neighbourhood, self._clients = neighbourhood, clients
            self._follow_locked()

    def _follow_locked(self) -> None:
        if self._files is None or self._has_ended:
            return
        former = {lane.client: lane for lane in self._lanes}
        lanes = []
        for client in self._clients:
            lane = former.pop(client, None)
            if lane is None:
                polling = Polling(client, self._key, self._grant, self._files, self._news)
                lane = PeerLane(client, polling, self._key, self._grant)
                polling.start()
            zone = self.neighbourhood.zone
            lane.is_near = bool(zone) and client.peer.zone == zone
            lanes.append(lane)
        self._lanes = tuple(lanes)
        for lane in former.values():
            lane.polling.end()

    def wrote(self, digest: str, pieces: int) -> None:
        """Tell the peers which pieces are on the disk."""
        if pieces:
            self._offers.wrote(self._key, digest, pieces)

    def asks(self, digest: str, pieces: int) -> None:
        """Tell the peers which pieces are asked for at the origin now."""
        self._offers.asks(self._key, digest, pieces)

    def lost(self, digest: str) -> None:
        """Tell the peers that no piece of a file is valid any more."""
        self._offers.lost(self._key, digest)

    def blame(self, lane: Lane, path: str) -> None:
        """Leave out a peer that sent wrong bytes of a file, also in later downloads."""
        self._registry.blame(lane.peer, path)

    def manifest(self, digest: str) -> VerifiedManifest | None:
        """The manifest with this hash, from the first peer that has it; None: nobody has it."""
        until = time.monotonic() + MANIFEST_SECONDS
        path = f"/v2/{self._key}/manifests/{digest}"
        for client in self._clients:
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                content = client.content(path, self._grant, most=MAX_BYTES, seconds=left)
            except DownloadError as error:
                log.debug("Peer has no manifest", node=client.peer.node, reason=error.message)
                continue
            found = decode(content, digest)
            if found is not None:
                return found
        return None

    def end(self) -> None:
        """Ask nobody any more, and serve only what was published."""
        with self._lock:
            self._has_ended = True
            for lane in self._lanes:
                lane.polling.end()
            self._lanes = ()
            began = self._files is not None
        if began:
            self._offers.end(self._key)
        self._registry.leave(self)
