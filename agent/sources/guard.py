"""Connections that refuse addresses which must not be reached through the agent.

A URI is a tenant's input. Each address of a host name is checked before it is tried, and the peer's
address of a connection once more before a byte is sent. So the rules hold for every redirect, and a
name server cannot give one address to the check and another to the connection.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from agent.sources.answers import ERRORS, retry_after
from agent.sources.proxies import ByProxyError, check_proxy, refused_by
from agent.sources.timed_connections import Watched, watched_pools
from agent.structs.failures import DownloadError

if TYPE_CHECKING:
    import ssl

    import requests
    from urllib3 import ProxyManager

    from agent.sources.addresses import Rules

# How many addresses of a name are tried: its owner could give it thousands that do not answer.
MAX_ADDRESSES = 4


class _Guarded:
    """A mixin for connections: checks the peer's address before anything is sent."""

    _dns_host: str
    port: int

    def __init__(self, *args: Any, rules: Rules, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rules = rules

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        addresses = _addresses(name.strip("[]"), self.port)
        # All are checked before any is tried: a failure must not show whether a refused address
        # answers.
        for address in addresses:
            self._rules.check(address, self.port, own=_is_own(address))
        tried = addresses[:MAX_ADDRESSES]
        try:
            for number, address in enumerate(tried, 1):
                self._dns_host = address
                try:
                    return self._checked()
                except (ConnectTimeoutError, NewConnectionError):
                    if number == len(tried):
                        raise
            # Raises that the name has no address.
            return self._checked()
        finally:
            # Certificates are verified for the name.
            self._dns_host = name

    def _checked(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        peer, here = connected.getpeername()[0], connected.getsockname()[0]
        try:
            self._rules.check(peer, self.port, own=peer == here)
        except DownloadError:
            connected.close()
            raise
        return connected


def _addresses(name: str, port: int) -> list[str]:
    """The addresses of a name, each once, in the order in which to try them."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def _is_own(address: str) -> bool:
    """Whether an address is one of this host: the source address of packets to it. Sends none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
    except OSError:
        return False


class _HTTPConnection(_Guarded, Watched, HTTPConnection):  # type: ignore[misc]
    pass


class _HTTPSConnection(_Guarded, Watched, HTTPSConnection):  # type: ignore[misc]
    pass


class _HTTPPool(HTTPConnectionPool):
    def __init__(self, *args: Any, rules: Rules, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ConnectionCls = partial(_HTTPConnection, rules=rules)  # type: ignore[assignment]


class _HTTPSPool(HTTPSConnectionPool):
    def __init__(self, *args: Any, rules: Rules, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ConnectionCls = partial(_HTTPSConnection, rules=rules)  # type: ignore[assignment]


class GuardedAdapter(HTTPAdapter):
    """An adapter of requests whose connections are checked by the rules.

    Through a proxy, only an address that is written in the URL is checked: the proxy resolves the
    names. `trust` verifies certificates in place of requests' `verify`.
    """

    def __init__(
        self, *, pool_maxsize: int, rules: Rules, trust: ssl.SSLContext | None = None
    ) -> None:
        self._rules = rules
        self._trust = trust
        super().__init__(pool_maxsize=pool_maxsize)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make connection pools of the checked kind."""
        kwargs |= self._trusting()
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": partial(_HTTPPool, rules=self._rules),
            "https": partial(_HTTPSPool, rules=self._rules),
        }

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:
        """The connections to a proxy, which have time limits too.

        The proxy is the administrator's, but the origins behind it are not.
        """
        manager: ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs, **self._trusting())
        manager.pool_classes_by_scheme = watched_pools()
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Set how a connection verifies the certificate of its peer."""
        if self._trust is None:
            # A proxy's certificate is verified for plain HTTP too: the proxy gets a password.
            secure = conn.proxy is not None and conn.proxy.scheme == "https"
            super().cert_verify(conn, "https://" if secure else url, verify, cert)  # type: ignore[no-untyped-call]

    def direct_pool(self, request: requests.PreparedRequest, verify: Any) -> HTTPConnectionPool:
        """The connections to the server of a request, without a proxy. Raises what `send` does."""
        pool: Any = self.get_connection_with_tls_context(request, verify, proxies={})
        self.cert_verify(pool, str(request.url), verify, None)
        found: HTTPConnectionPool = pool
        return found

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """Send a request. Raises DownloadError for a refused address, ByProxyError by a proxy."""
        url = str(request.url)
        proxy = select_proxy(url, kwargs.get("proxies"))
        if not proxy:
            return super().send(request, *args, **kwargs)
        parts = urlsplit(url)
        for address in _written(parts.hostname or ""):
            self._rules.check(address, parts.port)
        check_proxy(proxy, url)
        try:
            answer = super().send(request, *args, **kwargs)
        except ERRORS as error:
            raise ByProxyError(proxy, url, error) from error
        refused = refused_by(proxy, url, answer, retry_after(answer.headers))
        if refused is not None:
            answer.close()
            raise refused
        return answer

    def _trusting(self) -> dict[str, Any]:
        return {} if self._trust is None else {"ssl_context": self._trust}


def _written(host: str) -> list[str]:
    """The address of a host that is written as one, in any notation; empty for a name."""
    with suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
        return [str(one[4][0]) for one in found[:1]]
    return []
