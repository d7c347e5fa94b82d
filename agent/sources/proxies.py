"""Failures of proxies between the agent and origins: a proxy's refusal is not the origin's.

The administrator names a proxy in the agent's environment. Messages have its host, and never its
user and password.
"""

from __future__ import annotations

import ssl
from http.client import BadStatusLine, RemoteDisconnected
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from agent.sources.network_environment import proxy_variable
from agent.structs.causes import TUNNEL, chain, root_cause, status_failure, unreachable
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMES = {"http", "https"}
# Headers that only a proxy's own answers have, and statuses of answers with a page of a proxy.
_OWN = ("X-Squid-Error", "Proxy-Status")
_PAGES = {403, 502, 503, 504}
_NEEDS_CREDENTIALS = 407
# Statuses of a CONNECT at a server that is no proxy, and at a proxy that may accept it later.
_NO_PROXY = {400, 404, 405, 501}
_PASSING = {408, 429}


class ProxyRefusalError(DownloadError):
    """A proxy refuses a request. That does not show whether the origin's files may be read."""

    @property
    def refuses(self) -> bool:
        """Never: the credentials for the origin may be good."""
        return False


class ByProxyError(requests.ConnectionError):
    """An error between the agent and an origin behind a proxy.

    `status` is that of the proxy's answer. `own` is false for an answer that may be the origin's.
    """

    def __init__(
        self,
        proxy: str,
        url: str,
        error: Exception | None = None,
        *,
        status: int | None = None,
        own: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__("by a proxy")
        self._error = error
        self._status = status if error is None else _status_of(error)
        self._own = own
        self._retry_after = retry_after
        parts, target = urlsplit(_named(proxy)), urlsplit(url)
        self._proxy = parts.netloc.rpartition("@")[2]
        self._has_user = parts.username is not None
        self._host = target.netloc.rpartition("@")[2]
        self._variable = proxy_variable(target.scheme)

    def failure(self, where: str) -> DownloadError:
        """The failure for a person. `where` names the requested file in messages."""
        if self._status is not None:
            return self._refusal(where, self._status)
        assert self._error is not None  # noqa: S101
        found = list(chain(self._error))
        if not any(isinstance(one, requests.exceptions.ProxyError) for one in found):
            behind = unreachable(self._error, where)
            if behind.kind is FailureKind.TLS:
                return DownloadError(
                    behind.kind,
                    f"{behind.message}. It is asked by way of the proxy {self._proxy}, whose own "
                    "certificate this may be",
                )
            no_http = [one for one in found if isinstance(one, BadStatusLine)]
            mute = any(isinstance(one, RemoteDisconnected) for one in no_http)
            said = "what answers is no HTTP" if no_http and not mute else root_cause(self._error)
            return self._away(f"{where} cannot be reached through the proxy {self._proxy}: {said}")
        tls = next((one for one in found if isinstance(one, ssl.SSLError)), None)
        if isinstance(tls, ssl.SSLCertVerificationError):
            return DownloadError(
                FailureKind.TLS,
                f"{where} cannot be reached: the proxy {self._proxy} has no certificate that is "
                f"trusted ({tls.verify_message}); give the agent that of its authority "
                "(SSL_CERT_FILE)",
            )
        if tls is not None and not isinstance(tls, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return DownloadError(
                FailureKind.TLS,
                f"{where} cannot be reached: {self._variable} begins with https://, and the proxy "
                f"{self._proxy} speaks no TLS; write http:// there",
            )
        said = root_cause(self._error)
        return self._away(f"{where} cannot be reached: nor can the proxy {self._proxy}: {said}")

    def _away(self, what: str) -> DownloadError:
        return DownloadError(
            FailureKind.UNREACHABLE,
            f"{what}; check {self._variable} and the network of the node, it is tried again by "
            "itself",
        )

    def _refusal(self, where: str, status: int) -> DownloadError:
        if status == _NEEDS_CREDENTIALS:
            has = (
                f"refuses the user and password of {self._variable} ({status}): correct"
                if self._has_user
                else f"wants credentials ({status}), and {self._variable} has none: put"
            )
            return ProxyRefusalError(
                FailureKind.DENIED,
                f"{where} cannot be reached: the proxy {self._proxy} {has} them there, as in "
                f"http://user:password@{self._proxy} and percent-encoded; it must take Basic ones",
            )
        if not self._own:
            found = status_failure(status, where, "with a page")
            return DownloadError(
                found.kind,
                f"{found.message}. It was asked for by way of the proxy {self._proxy}, which may "
                f"be what answers: have {self._host} allowed there, or name it in NO_PROXY",
                retry_after=self._retry_after,
            )
        if self._error is not None and status in _NO_PROXY:
            return DownloadError(
                FailureKind.UNSUPPORTED,
                f"{where} cannot be reached: {self._proxy} is no proxy, since it answers {status} "
                f"to CONNECT; correct {self._variable}",
            )
        if status >= 500 or status in _PASSING:
            return self._away(
                f"{where} cannot be reached: the proxy {self._proxy} has no way to {self._host} "
                f"({status})"
            )
        return ProxyRefusalError(
            FailureKind.DENIED,
            f"{where} cannot be reached: the proxy {self._proxy} does not let the agent through to "
            f"{self._host} ({status}): have that host allowed there, or name it in NO_PROXY if the "
            "node reaches it by itself",
        )


def check_proxy(proxy: str, url: str) -> None:
    """Raises DownloadError (Unsupported) for a URL that cannot be used as a proxy's."""
    try:
        parts = urlsplit(_named(proxy))
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        # A password that is not percent-encoded ends the host where it should not.
        usable = usable and "@" not in parts.path + parts.query + parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{proxy_variable(urlsplit(url).scheme)} names no proxy that the agent can use: give "
            "one such as http://proxy.example:3128, or https://; a user and a password are "
            "percent-encoded",
        )


def refused_by(
    proxy: str, url: str, answer: requests.Response, again: float | None
) -> ByProxyError | None:
    """The error for an answer of the proxy itself, which only plain HTTP can have.

    `again` is the answer's Retry-After in seconds.
    """
    status, headers = answer.status_code, answer.headers
    if status < 400 or urlsplit(url).scheme != "http":
        return None
    if status == _NEEDS_CREDENTIALS or _is_own(headers):
        return ByProxyError(proxy, url, status=status)
    if status in _PAGES and headers.get("Content-Type", "").lower().startswith("text/html"):
        return ByProxyError(proxy, url, status=status, own=False, retry_after=again)
    return None


def _named(proxy: str) -> str:
    """The URL of a proxy, which requests takes for http:// where it has no scheme."""
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_own(headers: Mapping[str, str]) -> bool:
    squid, status = (headers.get(name, "") for name in _OWN)
    # An answer that a proxy only passed on has no error there.
    return bool(squid) or "error=" in status


def _status_of(error: Exception) -> int | None:
    for one in chain(error):
        found = TUNNEL.search(str(one)) if isinstance(one, OSError) else None
        if found is not None:
            return int(found[1])
    return None
