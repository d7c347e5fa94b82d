"""An agent that serves its store to peers, and a client that asks it, over real connections."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.peers.admission import Admission
from agent.peers.sending import UploadLimits
from agent.peers.server import Server
from agent.peers.shelf import Shelf
from agent.structs.counts import Counts
from agent.structs.exchange import grant_digest
from agent.structs.manifest import Access, Grant, make_manifest
from tests.unit.agent.helpers import stage

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping, Sequence

    from agent.disk.store import Store
    from agent.peers.identity import Identity
    from agent.structs.manifest import Manifest

URI = "https://origin.test/model"
ADMINISTRATOR = grant_digest(Grant())
TENANT = Grant(namespace="team", service_account="sa")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def publish(
    store: Store,
    files: Mapping[str, bytes],
    grants: Sequence[Grant] = (Grant(),),
    uri: str = URI,
) -> Manifest:
    """Publish a copy with these grants, and with a version for each file."""
    staged = stage(store, uri, files)
    access = Access(origin="https://origin.test", listing="", grants=tuple(grants))
    versioned = [
        type(file)(file.path, file.size, file.sha256, version=f"v-{file.path}")
        for file in staged.files
    ]
    manifest = make_manifest(uri, versioned, access=access)
    store.publish(manifest)
    return manifest


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Sent(Counts):
    """Counts what was sent."""

    sizes: list[int] = field(default_factory=list)

    def sent_to_peers(self, size: int) -> None:
        self.sizes.append(size)


@dataclass
class Asked:
    """A running server with its parts. `admission` None: by plain HTTP."""

    server: Server
    shelf: Shelf
    counts: Sent
    identity: Identity | None = None
    admission: Admission | None = None
    connections: list[socket.socket] = field(default_factory=list)

    def connect(self, context: ssl.SSLContext | None = None) -> socket.socket:
        """A connection, until the end of the test; encrypted with a context."""
        made = socket.create_connection(("127.0.0.1", self.server.port), timeout=20)
        if context:
            made = context.wrap_socket(made)
        self.connections.append(made)
        return made

    def client(self, context: ssl.SSLContext | None = None) -> Client:
        return Client(self.connect(context))

    def introduce(self, peer: Identity) -> Reply:
        client = self.client(peer.introduction_context())
        return client.ask("/v2/introduction", "PUT", body=peer.certificate)


class Client:
    """One connection that stays open."""

    def __init__(self, connection: socket.socket) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1")
        self._http.sock = connection
        self._http.auto_open = 0

    def ask(
        self,
        target: str,
        method: str = "GET",
        *,
        grant: str | None = ADMINISTRATOR,
        bytes_: str | None = None,
        body: bytes | None = None,
    ) -> Reply:
        fields = {"Localmodel-Grant": grant} if grant is not None else {}
        if bytes_ is not None:
            fields["Range"] = f"bytes={bytes_}"
        self._http.request(method, target, body, fields)
        answer = self._http.getresponse()
        return Reply(answer.status, answer.read(), dict(answer.headers))


@contextmanager
def asked(
    store: Store, limits: UploadLimits | None = None, identity: Identity | None = None
) -> Iterator[Asked]:
    """Serve a store: with an identity to the peers that are allowed, else to everybody."""
    shelf, counts = Shelf(store), Sent()
    admission = Admission(identity) if identity else None
    server = Server(
        socket.create_server(("127.0.0.1", 0)), shelf, admission, limits or UploadLimits(), counts
    )
    server.start()
    found = Asked(server, shelf, counts, identity, admission)
    try:
        yield found
    finally:
        for connection in found.connections:
            connection.close()
        server.close()
