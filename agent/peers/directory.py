"""The peers of this node, by node group, and the exchanges of its downloads with them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from agent.peers.client import PeerClient
from agent.peers.exchange import PeerExchange
from agent.structs.counts import NO_COUNTS, Counts
from agent.structs.exchange import Neighbourhood, grant_digest
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from agent.peers.client import Credentials
    from agent.peers.exchange import Offers
    from agent.structs.exchange import Peer
    from agent.structs.manifest import Grant

# How long a peer that sent wrong bytes is left out.
BANNED_SECONDS = 600.0


class Directory:
    """Finds the peers of downloads. Any thread may call it.

    `credentials` are None where peers are asked over plain HTTP. `folder` is where the files of the
    download of a key are written.
    """

    def __init__(
        self,
        offers: Offers,
        folder: Callable[[str], Path],
        credentials: Credentials | None = None,
        *,
        counts: Counts = NO_COUNTS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offers = offers
        self._folder = folder
        self._credentials = credentials
        self._counts = counts
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._neighbourhoods: Mapping[str, Neighbourhood] = {}
        self._exchanges: dict[PeerExchange, tuple[str, ...]] = {}
        self._clients: dict[Peer, PeerClient] = {}
        # When the peers that sent wrong bytes are asked again, by address and fingerprint.
        self._banned: dict[tuple[str, str | None], float] = {}

    def set_neighbourhoods(self, neighbourhoods: Mapping[str, Neighbourhood]) -> None:
        """Replace the peers, by group; running downloads go on with the new ones."""
        with self._lock:
            if neighbourhoods == self._neighbourhoods:
                return
            self._neighbourhoods = dict(neighbourhoods)
            self._meet_locked()

    def exchange(self, key: str, groups: Iterable[str], grant: Grant) -> PeerExchange | None:
        """The exchange of one download; None if no group of it has peers."""
        named = tuple(groups)
        with self._lock:
            if self._of_locked(named) is None:
                return None
            found = PeerExchange(key, grant_digest(grant), self._folder(key), self._offers, self)
            self._exchanges[found] = named
            self._meet_locked()
        return found

    def leave(self, exchange: PeerExchange) -> None:
        """Forget an exchange that has ended."""
        with self._lock:
            self._exchanges.pop(exchange, None)
            self._meet_locked()

    def _of_locked(self, groups: Iterable[str]) -> Neighbourhood | None:
        """The peers of all these groups together, without those that are left out."""
        mine = [found for name in groups if (found := self._neighbourhoods.get(name)) is not None]
        if not mine:
            return None
        now = self._monotonic()
        self._banned = {peer: until for peer, until in self._banned.items() if until > now}
        peers: dict[str, Peer] = {}
        own = {one.node for one in mine}
        for peer in (peer for one in mine for peer in one.peers):
            known = peers.get(peer.address)
            if peer.node in own or (peer.address, peer.fingerprint) in self._banned:
                continue
            if known is None or (peer.seed and not known.seed):
                peers[peer.address] = peer
        return Neighbourhood(
            node=mine[0].node,
            peers=tuple(peers.values()),
            zone=mine[0].zone,
            seed=any(one.seed for one in mine),
        )

    def _meet_locked(self) -> None:
        """Give all exchanges their present peers, and close the clients that none of them uses."""
        used: dict[Peer, PeerClient] = {}
        for exchange, groups in self._exchanges.items():
            neighbourhood = self._of_locked(groups)
            if neighbourhood is None:
                # The group's exchange was disabled: the download goes on with the origin.
                neighbourhood = Neighbourhood(exchange.neighbourhood.node)
            for peer in neighbourhood.peers:
                if peer not in used:
                    used[peer] = self._clients.get(peer) or PeerClient(peer, self._credentials)
            exchange.meet(neighbourhood, tuple(used[peer] for peer in neighbourhood.peers))
        for peer, client in self._clients.items():
            if peer not in used:
                client.close()
        self._clients = used

    def blame(self, peer: Peer, path: str) -> None:
        """Leave out a peer that sent wrong bytes of a file."""
        with self._lock:
            key = (peer.address, peer.fingerprint)
            if key in self._banned:
                return
            self._banned[key] = self._monotonic() + BANNED_SECONDS
            self._meet_locked()
        self._counts.peer_lied()
        log.warning(
            "Peer sent wrong bytes, and is left out for 10 minutes: check the disk and the memory "
            "of its node",
            node=peer.node,
            address=peer.address,
            path=path,
        )
