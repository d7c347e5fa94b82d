"""A proxy that stands for the hosts of clouds, which agents reach by name and over TLS."""

from __future__ import annotations

import socket
import threading
from select import select
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.unit.agent.certificates import make_authority

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

CHUNK = 64 << 10
SECONDS = 30.0


class Clouds:
    """A proxy that connects each of these hosts to a server on loopback, once `lead` names it."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        self.authority = make_authority(folder, hosts=hosts)
        self.servers: dict[str, tuple[str, int]] = {}
        self._server = _Proxy(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def agent_env(self) -> dict[str, str]:
        """The environment with which agents use the proxy and trust its certificates."""
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{self._server.server_address[1]}",
            "REQUESTS_CA_BUNDLE": str(self.authority.bundle),
        }

    def lead(self, host: str, url: str) -> None:
        """Connect a host to a server that speaks plain HTTP."""
        parts = urlsplit(url)
        self.servers[host] = (str(parts.hostname), int(parts.port or 80))

    def close(self) -> None:
        """Stop the proxy."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Proxy(ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, clouds: Clouds) -> None:
        self.clouds = clouds
        super().__init__(("127.0.0.1", 0), _Tunnel)

    def handle_error(self, *_: object) -> None:
        """Ignore the error: a client may close its connection at any time."""


class _Tunnel(StreamRequestHandler):
    server: _Proxy
    # No buffer: the bytes after the request belong to the tunnel.
    rbufsize = 0

    def handle(self) -> None:
        method, target, *_ = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass
        address = self.server.clouds.servers.get(target.removesuffix(":443"))
        if method != "CONNECT" or address is None:
            self.wfile.write(b"HTTP/1.1 502 there is no such host\r\n\r\n")
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        context = self.server.clouds.authority.context
        with (
            context.wrap_socket(self.connection, server_side=True) as client,
            socket.create_connection(address, timeout=SECONDS) as upstream,
        ):
            _relay(client, upstream)


def _relay(client: ssl.SSLSocket, upstream: socket.socket) -> None:
    """Copy bytes in both directions, until a side closes or both are silent for SECONDS.

    One thread does both, as a TLS connection must not be read and written at the same time.
    """
    targets: dict[socket.socket, socket.socket] = {client: upstream, upstream: client}
    ready = True
    while ready:
        readable = [client] if client.pending() else select([*targets], [], [], SECONDS)[0]
        ready = bool(readable)
        for source in readable:
            data = source.recv(CHUNK)
            targets[source].sendall(data)
            ready = ready and bool(data)
