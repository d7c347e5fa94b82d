"""HTTP for all sources: listings by requests, ranges of files by smart_open.

The same rules apply to all sources: connections are kept and shared, addresses are checked, no
cookie and no credential reaches another host, and a body has the requested bytes or fails.
"""

from __future__ import annotations

import re
import ssl
import time
import weakref
from collections import deque
from dataclasses import dataclass, field, replace
from functools import lru_cache
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict
from requests.utils import select_proxy
from urllib3.util import parse_url
from urllib3.util.ssl_ import create_urllib3_context

from agent.sources.addresses import DEFAULT_RULES
from agent.sources.answers import (
    ERRORS,
    WITH_FILE,
    Get,
    changed,
    check_answer,
    failure,
    status_of,
    without_file,
)
from agent.sources.bodies import begin, drop, read_body
from agent.sources.bounded_cache import BoundedCache
from agent.sources.checked_body import CheckedBody
from agent.sources.guard import GuardedAdapter
from agent.sources.network_environment import usual_authorities
from agent.sources.pins import condition, is_unchanged, version_of
from agent.sources.plain_get import PlainAnswer, fetch
from agent.sources.streams import http as smart_open_http
from agent.sources.waits import CALL_SECONDS, HEAD_SECONDS, waiting
from agent.structs.causes import unreachable
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import RangeIgnoredError
from agent.structs.urls import server_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from urllib3 import HTTPConnectionPool, HTTPResponse

    from agent.sources.addresses import Rules
    from agent.structs.remote import Body

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
# How many requests search for the server that sent a file, of several behind one address.
LOOKS = 8
FIRST_PAUSE_SECONDS = 0.05
# Requests the bytes as they are stored.
IDENTITY = {"Accept-Encoding": "identity"}
# How many servers a session remembers, and how many checked server names are cached.
MAX_WAYS = 256
# How many entries each cache of clients, tokens or transports has. With the bound of certificates
# (agent.credentials.settings) all transports together stay far below the agent's memory.
MAX_KEPT = 32

# Headers that may follow a redirect to another host.
_TRAVELS = {"accept", "accept-encoding", "connection", "if-match", "range", "user-agent"}
_PASSING = {FailureKind.THROTTLED, FailureKind.UNREACHABLE}
_V = TypeVar("_V")
_TIMEOUT = (CONNECT_SECONDS, READ_SECONDS)
_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)
# A URL that needs no quoting before it is sent: its server, and what is asked of the server.
_ON_THE_WIRE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[!\"$-.0->@-~]*)(/[!\"$-~]*)")


@dataclass
class _Way:
    """How requests reach one server, by the environment and the URL.

    `headers` are those of each request, with their names, by their names in lower case. `request`
    is one for the server's root. `direct` is whether no proxy is between.
    """

    proxies: Any
    headers: Mapping[str, tuple[str, str]]
    request: requests.PreparedRequest
    direct: bool
    # The adapter owns its pools, and drops those of servers that were not asked for long.
    pool: Callable[[], HTTPConnectionPool | None] = lambda: None

    def merged(self, headers: Mapping[str, str]) -> dict[str, str]:
        """All headers of a request with these ones."""
        named = dict(self.headers)
        for name, value in headers.items():
            named[name.lower()] = (name, value)
        return dict(named.values())


class _Direct:
    """A plain answer with what smart_open and the checks use of a requests.Response."""

    ok = True

    def __init__(self, url: str, raw: PlainAnswer) -> None:
        self.url = url
        self.raw = raw
        self.status_code = raw.status
        self.headers = raw.headers

    def close(self) -> None:
        """End the connection, unless the whole body was read."""
        self.raw.close()


class _Session(requests.Session):
    """Follows redirects without the headers that are for the first host alone.

    Certificates are verified as `verify` of the session says, whatever the environment says.
    """

    def __init__(self) -> None:
        super().__init__()
        # By server; emptied when there are MAX_WAYS.
        self._ways: dict[str, _Way] = {}

    def get(self, url: str | bytes, **kwargs: Any) -> Any:
        """A streamed GET: a requests.Response, or what is the same to smart_open.

        The method of requests reads all of the environment for each request, and makes many objects
        for each answer: most of the time of a small file.
        """
        url = str(url)
        sent = _ON_THE_WIRE.fullmatch(url)
        if sent is None:
            url = str(self._prepared(url).url).partition("#")[0]
            sent = _ON_THE_WIRE.fullmatch(url)
        way = self._way(f"{sent[1]}/" if sent else _root(url))
        headers = way.merged(kwargs["headers"])
        if not way.direct or sent is None:
            return self._followed(url, headers, None, way, kwargs["timeout"])
        raw = fetch(
            self._pool(way),
            sent[2],
            headers,
            connect_seconds=CONNECT_SECONDS,
            read_seconds=READ_SECONDS,
        )
        if isinstance(raw, PlainAnswer):
            return _Direct(url, raw)
        return self._followed(url, headers, raw, way, kwargs["timeout"])

    def _followed(
        self, url: str, headers: dict[str, str], raw: HTTPResponse | None, way: _Way, timeout: Any
    ) -> requests.Response:
        """The answer after all redirects, `raw` being the first one; None: it is asked for here."""
        request: Any = requests.PreparedRequest()
        request.method, request.url = "GET", url
        request.headers = CaseInsensitiveDict(headers)
        request.hooks = {"response": []}
        # The session's cookie jar accepts no cookies.
        request._cookies = self.cookies  # noqa: SLF001
        settings: Any = {"timeout": timeout, "stream": True, "proxies": way.proxies}
        settings |= {"verify": self.verify, "cert": None}
        adapter: Any = self.get_adapter(url)
        response: requests.Response = (
            adapter.send(request, **settings)
            if raw is None
            else adapter.build_response(request, raw)
        )
        redirects = self.resolve_redirects(response, request, **settings)
        return deque(redirects, maxlen=1).pop() if response.is_redirect else response

    def _pool(self, way: _Way) -> HTTPConnectionPool:
        found = way.pool()
        if found is None:
            adapter: Any = self.get_adapter(str(way.request.url))
            found = adapter.direct_pool(way.request, self.verify)
            way.pool = weakref.ref(found)
        return found

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """The target of a redirect. Its body, which requests would read and unpack, is dropped."""
        target: str | None = super().get_redirect_target(resp)
        if target is not None:
            drop(resp)
        return target

    def _way(self, root: str) -> _Way:
        # Other threads may clear the ways meanwhile.
        way = self._ways.get(root)
        if way is None:
            if len(self._ways) >= MAX_WAYS:
                self._ways.clear()
            settings = self.merge_environment_settings(root, {}, True, None, None)
            request = self._prepared(root)
            way = self._ways[root] = _Way(
                settings["proxies"],
                {name.lower(): (name, value) for name, value in request.headers.items()},
                request,
                direct=not select_proxy(root, settings["proxies"]),
            )
        return way

    def _prepared(self, url: str) -> requests.PreparedRequest:
        return self.prepare_request(requests.Request("GET", url))

    def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
        """The settings of one request, with the session's own verification of certificates."""
        return super().merge_environment_settings(*args, **kwargs) | {"verify": self.verify}

    def rebuild_proxies(
        self, prepared_request: requests.PreparedRequest, _former: Any
    ) -> dict[str, str]:
        """The proxies of a redirect's target: requests keeps the former host's if it needs none."""
        proxies: dict[str, str] = self._way(_root(str(prepared_request.url))).proxies
        return proxies

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]
        former, now = str(response.request.url), str(prepared_request.url)
        # Stricter than requests, which keeps them from http to https of the same host.
        if server_of(former) != server_of(now):
            for name in list(prepared_request.headers):
                if name.lower() not in _TRAVELS:
                    del prepared_request.headers[name]


def _verify(trust: Trust) -> bool | str:
    """The `verify` of requests for a trust."""
    if isinstance(trust, Authorities):
        return True
    return usual_authorities() if trust is True else trust


@dataclass(frozen=True)
class Authorities:
    """Certificates of authorities, as PEM: the only ones that are trusted."""

    pem: str = field(repr=False)

    def context(self) -> ssl.SSLContext:
        """A context that verifies with these certificates, which are never written to a file.

        Raises DownloadError (TLS) for a text without certificates.
        """
        context = create_urllib3_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
        try:
            # The texts between certificates, which may be no ASCII, are left out.
            context.load_verify_locations(cadata="\n".join(_CERTIFICATE.findall(self.pem)))
        except (ssl.SSLError, ValueError):
            raise DownloadError(
                FailureKind.TLS,
                "the certificates of authorities that the credentials name are no certificates: "
                "copy them again, as PEM",
            ) from None
        return context


# How a server's certificate is verified: True: by the usual authorities, False: not at all, a text:
# by the bundle at this path of the agent, or by certificates.
Trust = bool | str | Authorities


class Transport:
    """Connections that share one trust."""

    def __init__(
        self,
        *,
        max_connections: int,
        rules: Rules = DEFAULT_RULES,
        trust: Trust = True,
    ) -> None:
        self.session = _Session()
        context = trust.context() if isinstance(trust, Authorities) else None
        self.session.verify = _verify(trust)
        if trust is False:
            # The setting is known, and each connection would log a warning.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        # Many tenants share the session: a cookie of one origin must not reach another download.
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = GuardedAdapter(pool_maxsize=max(10, max_connections), rules=rules, trust=context)
        for prefix in ("http://", "https://"):
            self.session.mount(prefix, adapter)

    def call(self, method: str, url: str, where: str, **kwargs: Any) -> requests.Response:
        """One request of a listing, with requests' arguments. The answer has its whole body.

        Raises DownloadError, also for an answer that is too large or takes too long, and not for
        one of 400 and above. `where` names the request in messages.
        """
        kwargs.setdefault("timeout", _TIMEOUT)
        with waiting(CALL_SECONDS) as wait:
            try:
                _check_url(url)
                answer = self.session.request(method, url, stream=True, **kwargs)
                read_body(answer, where, wait)
            except ERRORS as error:
                wait.check(where)
                raise failure(error, where) from None
        return answer

    def begin(
        self, url: str, where: str, headers: Mapping[str, str], size: int
    ) -> tuple[requests.Response, bytes]:
        """The answer to a GET, and the first `size` bytes of its body; the rest is not read.

        Raises DownloadError, also for an answer that has no file, except 416.
        """
        with waiting(CALL_SECONDS) as wait:
            try:
                _check_url(url)
                answer = self.session.request(
                    "GET", url, headers=headers, stream=True, timeout=_TIMEOUT
                )
                if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    answer.close()
                    return answer, b""
                if answer.status_code not in WITH_FILE:
                    answer.close()
                    raise without_file(answer, where)
                return answer, begin(answer, where, wait, size)
            except ERRORS as error:
                wait.check(where)
                raise failure(error, where) from None

    def close(self) -> None:
        """Close the idle connections; requests that are under way go on."""
        self.session.close()

    def read(self, get: Get) -> Body:
        """The body of a range. Raises DownloadError, RangeIgnoredError among them."""
        opened = self._open(get)
        body, headers = _HttpBody(opened, get), opened.response.headers
        if not get.alone or version_of(headers) is None:
            return body
        return CheckedBody(body, get.length, lambda: self._look_again(get, headers))

    def _open(self, get: Get) -> Any:
        """The checked answer to a request. Raises DownloadError."""
        headers = {**IDENTITY, **get.headers}
        if get.ranges and get.length != 0:
            headers["Range"] = f"bytes={get.start}-{'' if get.end is None else get.end - 1}"
        wanted = condition(get.version) if get.version else {}
        try:
            _check_url(get.url)
            try:
                opened = self._get(get.url, headers | wanted)
            except requests.HTTPError as error:
                if not wanted or status_of(error) != HTTPStatus.PRECONDITION_FAILED:
                    raise
                # Some servers compare how ETags are written: here the answer's own is compared.
                opened = self._get(get.url, headers)
        except ERRORS as error:
            if get.ranges and status_of(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                # The file has become shorter.
                raise changed(get.where) from None
            raise failure(error, get.where) from None
        try:
            check_answer(opened.response, get)
        except DownloadError:
            opened.close()
            raise
        return opened

    def _get(self, url: str, headers: dict[str, str]) -> Any:
        # Not smart_open.open: handling its arguments takes longer than a small file. Nor its class
        # that seeks: each range is a request of its own.
        read: Any = smart_open_http.BufferedInputBase
        with waiting(HEAD_SECONDS):
            return read(url, "rb", session=self.session, timeout=_TIMEOUT, headers=headers)

    def _look_again(self, get: Get, before: CaseInsensitiveDict[str]) -> None:
        """Raises DownloadError (Changed) if a new answer has another ETag or time than the former.

        With several servers behind one address, it may take some requests to meet the same one.
        """
        again = replace(get, version=None, alone=False)
        if get.size:
            again = replace(again, start=0, end=1, ranges=True)
        failure: DownloadError = changed(get.where)
        for attempt in range(LOOKS):
            try:
                opened = self._open(again)
            except RangeIgnoredError:
                again = replace(again, end=get.end, ranges=False)
                continue
            except DownloadError as error:
                if error.kind is FailureKind.DENIED:
                    # A signature has expired. The whole file came in one answer: nothing is mixed.
                    return
                if error.kind not in _PASSING:
                    raise
                failure = error
                time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
                continue
            after = opened.response.headers
            opened.close()
            if is_unchanged(before, after):
                return
        raise failure


class _HttpBody:
    """A body that must have exactly the announced length."""

    def __init__(self, opened: Any, get: Get) -> None:
        self._opened = opened
        self._raw: urllib3.HTTPResponse | PlainAnswer = opened.response.raw
        self._get = get
        self._left = get.length
        self._aborted = False

    def read(self, size: int) -> bytes:
        if self._left is None:
            return self._take(size)
        if not self._left:
            return b""
        piece = self._take(min(size, self._left))
        if not piece and self._left:
            raise unreachable(ConnectionError(), self._get.where)
        self._left -= len(piece)
        if not self._left and self._take(1):
            # Before the last piece is returned, so that no reader takes the file for complete.
            raise self._wrong_length("more")
        return piece

    def _take(self, size: int) -> bytes:
        try:
            # The raw response checks the announced length, and saves a copy.
            piece = self._raw.read(size, decode_content=False)
        except ERRORS as error:
            raise failure(error, self._get.where) from None
        if self._aborted:
            # Bytes of a TLS connection after its shutdown are not decrypted.
            raise unreachable(ConnectionAbortedError(), self._get.where)
        return piece

    def abort(self) -> None:
        self._aborted = True
        try:
            self._raw.shutdown()
        except (OSError, ValueError, AttributeError, RuntimeError):
            # The connection has ended already.
            return

    def close(self) -> None:
        self._opened.close()

    def _wrong_length(self, found: str) -> DownloadError:
        return DownloadError(
            FailureKind.CORRUPT,
            f"{self._get.where} was announced with {self._get.length} bytes and has {found}: check "
            "the file at its source, it is tried again by itself",
        )


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL: the origin, which has limits of its own."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _check_url(url: str) -> None:
    r"""Raises ValueError for a URL that two parsers read as two servers, such as `https://a\@b/`.

    One parser decides which headers are for the server, and the other one connects.
    """
    _check_server(_root(url))


def _root(url: str) -> str:
    """The URL of a server's root."""
    sent = _ON_THE_WIRE.fullmatch(url)
    if sent is not None:
        return f"{sent[1]}/"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/"


@lru_cache(maxsize=MAX_WAYS)
def _check_server(root: str) -> None:
    parts = urlsplit(root)
    host = parts.hostname or ""
    try:
        other = parse_url(root)
    except urllib3.exceptions.HTTPError:
        raise ValueError(root) from None
    same = (other.host or "").strip("[]") == host or not host.isascii()
    if not same or other.port != parts.port or "\\" in root:
        raise ValueError(root)


class Transports:
    """The transports of an agent, one for each trust, and the caches of the sources' clients.

    The transports and clients for a tenant's settings are dropped when they are idle.
    """

    def __init__(self, *, max_connections: int, rules: Rules = DEFAULT_RULES) -> None:
        self._max_connections = max_connections
        self._rules = rules
        # A few for each source, made with the sources.
        self._kept: list[BoundedCache[Any, Any]] = []
        self._usual = self._make(True)
        self._by_trust = self.new_cache(Transport.close)

    def trusting(self, trust: Trust = True) -> Transport:
        """The transport with this trust. Raises DownloadError (TLS)."""
        if trust is True:
            return self._usual
        return self._by_trust.get(trust, lambda: self._make(trust))

    def new_cache(self, close: Callable[[_V], None] = lambda _: None) -> BoundedCache[Any, _V]:
        """A bounded cache for a source, such as for the clients of tenants' credentials."""
        kept: BoundedCache[Any, _V] = BoundedCache(MAX_KEPT, close)
        self._kept.append(kept)
        return kept

    def tidy(self) -> None:
        """Drop the idle entries of all caches."""
        for kept in self._kept:
            kept.tidy()

    def _make(self, trust: Trust) -> Transport:
        return Transport(max_connections=self._max_connections, rules=self._rules, trust=trust)
