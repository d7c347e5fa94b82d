"""The exchange of models with other agents, by the flags `--peer-bind-address` and `--peer`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from agent.commands.flag_types import is_any
from agent.commands.listening import listen
from agent.peers.admission import Admission
from agent.peers.client import Credentials
from agent.peers.directory import Directory
from agent.peers.identity import Identity
from agent.peers.sending import UploadLimits
from agent.peers.server import Server
from agent.peers.shelf import Shelf
from agent.structs.counts import NO_COUNTS
from agent.structs.exchange import Neighbourhood, Peer
from agent.structs.log import log
from crds.peers import AgentPeer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from agent.disk.store import Store
    from agent.structs.counts import Counts

# The group of models that no LocalModelNode lists: see agent.structs.requests.Request.groups.
NO_GROUP = ""

# Connections that wait until they are accepted.
BACKLOG = 128


class ClusterPeers:
    """The exchange with the peers that the LocalModelNode names, by TLS. Raises BindError.

    `group` is where downloads find them. See agent.control.neighbours.Peers.
    """

    def __init__(self, options: argparse.Namespace, store: Store, counts: Counts) -> None:
        identity = Identity()
        shelf = Shelf(store)
        self._admission = Admission(identity)
        self._server = _server(options, shelf, counts, self._admission)
        self.group = Directory(
            shelf,
            store.staging_files,
            Credentials(
                identity.certificate, identity.client_context(), identity.introduction_context()
            ),
            counts=counts,
        )
        self.endpoint = AgentPeer(
            address=own_address(options, self._server.port), fingerprint=identity.fingerprint
        )

    def start(self) -> None:
        """Serve, once the store is open."""
        _start(self._server, self.endpoint.address)

    def close(self) -> None:
        """Exchange nothing any more, and free the port."""
        self.follow({})
        self._server.close()

    def follow(self, neighbourhoods: Mapping[str, Neighbourhood]) -> None:
        """Exchange with these peers from now on, by group, and with nobody else."""
        peers = [peer for one in neighbourhoods.values() for peer in one.peers]
        self._admission.allow({peer.fingerprint or "": peer.node for peer in peers})
        self.group.set_neighbourhoods(neighbourhoods)


class NamedPeers:
    """The exchange with the peers that flags name, by plain HTTP. Raises BindError.

    `group` is where downloads find them.
    """

    def __init__(self, options: argparse.Namespace, store: Store, counts: Counts) -> None:
        shelf = Shelf(store)
        self._name, self._server = socket.gethostname(), None
        if options.peer_bind_address is not None:
            self._server = _server(options, shelf, counts, None)
            self._name = own_address(options, self._server.port)
        self.group = _directory(options.peer, self._name, shelf, store, counts)

    def start(self) -> None:
        """Serve, once the store is open."""
        if self._server is not None:
            _start(self._server, self._name)

    def close(self) -> None:
        """Free the port."""
        if self._server is not None:
            self._server.close()


def asked_directory(addresses: Iterable[str], store: Store) -> Directory:
    """The peers at these addresses, which are asked alone."""
    return _directory(addresses, socket.gethostname(), Shelf(store), store, NO_COUNTS)


def own_address(options: argparse.Namespace, port: int) -> str:
    """Where other agents reach this one, and what they know it by: `host:port`."""
    host, _ = options.peer_bind_address
    if options.peer_address or is_any(host):
        host = options.peer_address or socket.gethostname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _directory(
    addresses: Iterable[str], name: str, shelf: Shelf, store: Store, counts: Counts
) -> Directory:
    directory = Directory(shelf, store.staging_files, counts=counts)
    # All agents may have the same flags: none of them is its own peer.
    peers = tuple(Peer(address, address) for address in dict.fromkeys(addresses) if address != name)
    directory.set_neighbourhoods({NO_GROUP: Neighbourhood(name, peers)})
    return directory


def _server(
    options: argparse.Namespace, shelf: Shelf, counts: Counts, admission: Admission | None
) -> Server:
    limits = UploadLimits(
        transfers=options.peer_upload_connections,
        bytes_per_second=options.peer_upload_bytes_per_second or None,
    )
    listener = listen(options.peer_bind_address, "--peer-bind-address", backlog=BACKLOG)
    return Server(listener, shelf, admission, limits, counts)


def _start(server: Server, address: str) -> None:
    server.start()
    log.info("Peers are served", address=address)
