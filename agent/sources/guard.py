"""Connections that refuse addresses which tenants must not reach through the agent.

A URI is a tenant's input. Link-local addresses are a cloud's metadata service, which hands out the
node's own credentials. The address is checked once the connection stands and before a byte is
sent: so it holds for every redirect too, and no name server can say one thing to a check and
another to the connection.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from agent.failures import DownloadError, FailureKind
from agent.sources.watched import Watched, watched_pools

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from urllib3 import ProxyManager

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LINK_LOCAL: tuple[Network, ...] = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    # The metadata service of AWS over IPv6.
    ipaddress.ip_network("fd00:ec2::254/128"),
)


def check_address(address: str, refused: Sequence[Network]) -> None:
    """Raises DownloadError (Denied) for an address in a refused network."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    for network in refused:
        if found in network or (mapped is not None and mapped in network):
            raise DownloadError(
                FailureKind.DENIED,
                f"the source is at {address}, in {network}, which the agent does not fetch from: "
                "give another sourceModelUri",
            )


class _Guarded:
    """Mixed into a connection: checks the peer before anything is sent to it."""

    def __init__(self, *args: Any, refused: Sequence[Network], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refused = refused

    def _new_conn(self) -> socket.socket:
        with suppress(ValueError):
            # An address that is written out is not even tried: whether something answers there is
            # nobody's business.
            check_address(self.host.strip("[]"), self._refused)  # type: ignore[attr-defined]
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            check_address(connected.getpeername()[0], self._refused)
        except DownloadError:
            connected.close()
            raise
        return connected


class _HTTPConnection(_Guarded, Watched, HTTPConnection):  # type: ignore[misc]
    pass


class _HTTPSConnection(_Guarded, Watched, HTTPSConnection):  # type: ignore[misc]
    pass


class _HTTPPool(HTTPConnectionPool):
    def __init__(self, *args: Any, refused: Sequence[Network], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ConnectionCls = partial(_HTTPConnection, refused=refused)  # type: ignore[assignment]


class _HTTPSPool(HTTPSConnectionPool):
    def __init__(self, *args: Any, refused: Sequence[Network], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ConnectionCls = partial(_HTTPSConnection, refused=refused)  # type: ignore[assignment]


class GuardedAdapter(HTTPAdapter):
    """Transport of requests whose direct connections are checked; a proxy's are the proxy's."""

    def __init__(self, *, pool_maxsize: int, refused: Sequence[Network]) -> None:
        self._refused = tuple(refused)
        super().__init__(pool_maxsize=pool_maxsize)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make connection pools of the checked kind."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": partial(_HTTPPool, refused=self._refused),
            "https": partial(_HTTPSPool, refused=self._refused),
        }

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> ProxyManager:
        """The connections to a proxy, which origins behind it must not hold for ever either."""
        manager: ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = watched_pools()
        return manager
