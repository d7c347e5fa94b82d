"""A node group in one process: agents with stores of their own that serve each other."""

from __future__ import annotations

import hashlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from agent.commands.assemble import own_credentials
from agent.disk.store import Store
from agent.engine.engine import Engine
from agent.jobs.download import Download
from agent.peers.admission import Admission
from agent.peers.client import Credentials as PeerCredentials
from agent.peers.directory import Directory
from agent.peers.identity import Identity
from agent.peers.sending import UploadLimits
from agent.peers.server import Server
from agent.peers.shelf import Shelf
from agent.sources import Sources
from agent.structs.counts import Counts
from agent.structs.exchange import Neighbourhood, Peer
from agent.structs.manifest import CacheName
from agent.structs.remote import Checksum, ChecksumAlgorithm
from agent.structs.requests import Request
from crds.keys import model_key
from tests.unit.agent.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.structs.manifest import Manifest

URI = "mem://model"
KEY = model_key(URI)
GROUP = "gpus"


def origin(files: Mapping[str, bytes], **options: Any) -> Memory:
    """A source that reports the SHA-256 of its files."""
    checksums = {
        path: Checksum(ChecksumAlgorithm.SHA256, hashlib.sha256(content).hexdigest())
        for path, content in files.items()
    }
    return Memory(dict(files), checksums=checksums, **options)


class Lied(Counts):
    """Counts peers that sent wrong bytes."""

    def __init__(self) -> None:
        self.lies = 0

    def peer_lied(self) -> None:
        self.lies += 1


class Node:
    """An agent that serves its store, and downloads from `source` and its peers."""

    def __init__(self, name: str, root: Path, source: Memory, *, tls: bool) -> None:
        self.name, self.source = name, source
        self.store = Store(root)
        self.store.open()
        self.shelf = Shelf(self.store)
        self.counts = Lied()
        identity = Identity() if tls else None
        self.fingerprint = identity.fingerprint if identity else None
        self.admission = Admission(identity) if identity else None
        listener = socket.create_server(("127.0.0.1", 0))
        self.server = Server(listener, self.shelf, self.admission, UploadLimits())
        credentials = (
            None
            if identity is None
            else PeerCredentials(
                identity.certificate, identity.client_context(), identity.introduction_context()
            )
        )
        self.directory = Directory(
            self.shelf, self.store.staging_files, credentials, counts=self.counts
        )
        self.engine = Engine(jitter=lambda: 0.0)
        self.cancelled = threading.Event()

    @property
    def peer(self) -> Peer:
        return Peer(self.name, f"127.0.0.1:{self.server.port}", self.fingerprint)

    def download(self, verified: str = "", uri: str = URI) -> Manifest:
        cache = CacheName(name="m", node_group=GROUP)
        return Download(
            Request(model_key(uri), uri, (cache,), verified=verified),
            sources=Sources({"mem": self.source}),
            store=self.store,
            engine=self.engine,
            credentials=own_credentials,
            cancelled=self.cancelled,
            report=lambda _progress: None,
            peers=self.directory,
        ).run()


class Group:
    """Nodes that know each other."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.meet(nodes)

    def meet(self, members: list[Node]) -> None:
        """Tell all nodes which members there are."""
        for node in self.nodes:
            peers = tuple(other.peer for other in members if other is not node)
            node.directory.set_neighbourhoods({GROUP: Neighbourhood(node.name, peers)})
            if node.admission is not None:
                node.admission.allow({peer.fingerprint or "": peer.node for peer in peers})

    def download(self, *, verified: str = "") -> list[Manifest]:
        """Let all nodes download at the same time."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            return list(pool.map(lambda node: node.download(verified), self.nodes))


@contextmanager
def group(root: Path, source: Memory, count: int, *, tls: bool = False) -> Iterator[Group]:
    """A group of agents whose servers listen."""
    with ExitStack() as stack:
        nodes = [Node(f"node-{n}", root / f"node-{n}", source, tls=tls) for n in range(count)]
        for node in nodes:
            node.server.start()
            stack.callback(node.store.close)
            stack.callback(node.server.close)
        yield Group(nodes)
