"""HTTP for all sources that speak it: listings by requests, ranges of files by smart_open.

One set of rules for all: connections are kept and shared, addresses are checked, no cookie and no
credential reaches another host, and a body is what was asked for or an error.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from smart_open import http as smart_open_http

from agent.causes import status_failure, unreachable
from agent.failures import DownloadError, FailureKind
from agent.sources.base import RangeIgnoredError
from agent.sources.guard import LINK_LOCAL, GuardedAdapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from requests.structures import CaseInsensitiveDict

    from agent.sources.base import Body
    from agent.sources.guard import Network

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
# The bytes must arrive as they are stored.
IDENTITY = {"Accept-Encoding": "identity"}
# What an origin asks to wait is followed up to here.
MAX_RETRY_AFTER_SECONDS = 300.0

# How many hosts are known at a time.
MAX_WAYS = 256

# Headers that may follow a redirect to another host.
_TRAVELS = {"accept", "accept-encoding", "connection", "if-match", "range", "user-agent"}
_TIMEOUT = (CONNECT_SECONDS, READ_SECONDS)
# A URL that is sent as it is written.
_ON_THE_WIRE = re.compile(r"[!\"$-~]+")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)


@dataclass(frozen=True)
class Get:
    """A request for the bytes from `start` up to and without `end`.

    `where` names it in messages. `size` is that of the whole file; where it or `end` is None the
    file is read to its end. Without `ranges` no Range is sent, and the answer is the whole body.
    `version` must be what the answer has as ETag or Last-Modified. With `as_stored`, an encoding is
    a label of the file, and `size` that of the encoded bytes; otherwise it is refused.
    """

    url: str
    where: str
    start: int
    end: int | None
    size: int | None = None
    version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True
    as_stored: bool = False

    @property
    def length(self) -> int | None:
        """How many bytes must come."""
        return None if self.end is None else self.end - self.start


@dataclass(frozen=True)
class _Way:
    """What the environment and a URL's user say of one host."""

    proxies: Any
    headers: CaseInsensitiveDict[str]


class _Session(requests.Session):
    """Follows redirects, and takes nothing to another host that was meant for the first.

    Its own idea of certificates counts, whatever the environment says.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ways: dict[str, _Way] = {}

    def get(self, url: str | bytes, **kwargs: Any) -> requests.Response:
        """A streamed GET.

        That of requests looks at all of the environment for each request, and takes three times as
        long: most of what a small file costs.
        """
        url = str(url)
        way = self._way(url)
        request: Any = requests.PreparedRequest()
        request.method = "GET"
        request.url = url if _ON_THE_WIRE.fullmatch(url) else self._prepared(url).url
        request.headers = way.headers.copy()
        request.headers.update(kwargs["headers"])
        request.hooks = {"response": []}
        # They take none, from nobody.
        request._cookies = self.cookies  # noqa: SLF001
        settings: Any = {"timeout": kwargs["timeout"], "stream": True, "proxies": way.proxies}
        settings |= {"verify": self.verify, "cert": None}
        response = self.get_adapter(str(request.url)).send(request, **settings)
        redirects = self.resolve_redirects(response, request, **settings)
        return deque(redirects, maxlen=1).pop() if response.is_redirect else response

    def _way(self, url: str) -> _Way:
        parts = urlsplit(url)
        root = f"{parts.scheme}://{parts.netloc}/"
        if root not in self._ways:
            if len(self._ways) >= MAX_WAYS:
                self._ways.clear()
            settings = self.merge_environment_settings(root, {}, True, None, None)
            self._ways[root] = _Way(settings["proxies"], self._prepared(root).headers)
        return self._ways[root]

    def _prepared(self, url: str) -> requests.PreparedRequest:
        return self.prepare_request(requests.Request("GET", url))

    def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
        """The settings of one request."""
        return super().merge_environment_settings(*args, **kwargs) | {"verify": self.verify}

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]
        former, now = response.request.url, prepared_request.url
        if self.should_strip_auth(former, now):  # type: ignore[no-untyped-call]
            for name in list(prepared_request.headers):
                if name.lower() not in _TRAVELS:
                    del prepared_request.headers[name]


def _authorities() -> bool | str:
    """Those that the administrator names, else the usual ones."""
    named = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))
    return next((path for path in named if path), True)


class Transport:
    """Connections with one idea of which certificates are trusted.

    `verify` is as in requests: True, False, or the path of a bundle of certificates.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        refused: Sequence[Network] = LINK_LOCAL,
        verify: bool | str = True,
    ) -> None:
        self.session = _Session()
        self.session.verify = _authorities() if verify is True else verify
        if not verify:
            # Who has switched it off knows, and each connection would say so again.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        # Many tenants share it: nothing that one origin sets may reach another download.
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = GuardedAdapter(pool_maxsize=max(10, max_connections), refused=refused)
        for prefix in ("http://", "https://"):
            self.session.mount(prefix, adapter)

    def call(
        self, method: str, url: str, where: str, *, check: bool = True, **kwargs: Any
    ) -> requests.Response:
        """One request of a listing, with requests' arguments.

        Raises DownloadError, also for an answer of 400 and above unless `check` is off. `where`
        names it in messages.
        """
        kwargs.setdefault("timeout", _TIMEOUT)
        try:
            answer = self.session.request(method, url, **kwargs)
        except _ERRORS as error:
            raise failure(error, where) from None
        if check and answer.status_code >= 400:
            answer.close()
            raise answered(answer, where)
        return answer

    def read(self, get: Get) -> Body:
        """The body of a range. Raises DownloadError, RangeIgnoredError among them."""
        headers = {**IDENTITY, **get.headers}
        if get.ranges and get.length != 0:
            headers["Range"] = f"bytes={get.start}-{'' if get.end is None else get.end - 1}"
        if get.version:
            headers |= _condition(get.version)
        try:
            # Past smart_open.open, which looks at its arguments longer than a small file takes.
            read: Any = smart_open_http.open
            opened: Any = read(
                get.url, "rb", session=self.session, timeout=_TIMEOUT, headers=headers
            )
        except _ERRORS as error:
            if get.ranges and _status(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                # It has become shorter.
                raise changed(get.where) from None
            raise failure(error, get.where) from None
        try:
            _check_answer(opened.response, get)
        except DownloadError:
            opened.close()
            raise
        return _HttpBody(opened, get)


class _HttpBody:
    """A body that must have exactly the announced length."""

    def __init__(self, opened: Any, get: Get) -> None:
        self._opened = opened
        self._raw: urllib3.HTTPResponse = opened.response.raw
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
            # Before the last piece is given: nobody should believe it.
            raise self._wrong_length("more")
        return piece

    def _take(self, size: int) -> bytes:
        try:
            # The raw response: it checks the announced length, and saves a copy.
            piece = self._raw.read(size, decode_content=False)
        except _ERRORS as error:
            raise failure(error, self._get.where) from None
        if self._aborted:
            # What a TLS connection gives after its shutdown was not decrypted.
            raise unreachable(ConnectionAbortedError(), self._get.where)
        return piece

    def abort(self) -> None:
        self._aborted = True
        try:
            self._raw.shutdown()
        except (OSError, ValueError, AttributeError, RuntimeError):
            # It has ended by itself.
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
    """Scheme, host and port of a URL: what limits per origin are for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def version_of(headers: Mapping[str, str]) -> str | None:
    """What pins a file: its ETag, else the time of its last change."""
    return headers.get("ETag") or headers.get("Last-Modified")


def _condition(version: str) -> dict[str, str]:
    if version.startswith('"'):
        return {"If-Match": version}
    # A weak ETag never matches, and a time is compared with what the answer says.
    return {}


def _check_answer(response: requests.Response, get: Get) -> None:
    """Raises DownloadError if this is not the answer to what was asked for."""
    headers = response.headers
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding not in {"", "identity"} and not get.as_stored:
        raise compressed(encoding, get.where)
    found = headers.get("ETag") if _is_etag(get.version) else headers.get("Last-Modified")
    if get.version and found and found != get.version:
        raise changed(get.where)
    if response.status_code == 206 and get.ranges:
        _check_range(headers.get("Content-Range", ""), get)
    elif get.ranges and (get.start or (get.end is not None and get.end != get.size)):
        raise RangeIgnoredError(get.where)
    announced = headers.get("Content-Length", "")
    if get.length is not None and announced.isdecimal() and int(announced) != get.length:
        if get.length == get.size:
            # The whole file has another size than the listing said.
            raise changed(get.where)
        raise DownloadError(
            FailureKind.CORRUPT,
            f"{get.where} answered {announced} bytes to a request for {get.length}: the server, or "
            "a proxy before it, does not keep to HTTP; it is tried again by itself",
        )


def _check_range(content_range: str, get: Get) -> None:
    found = _CONTENT_RANGE.fullmatch(content_range.strip())
    if found is None:
        raise RangeIgnoredError(get.where)
    first, last, total = found.groups()
    if get.size is not None and total != "*" and int(total) != get.size:
        raise changed(get.where)
    if int(first) != get.start or (get.end is not None and int(last) != get.end - 1):
        raise RangeIgnoredError(get.where)


def _is_etag(version: str | None) -> bool:
    return bool(version) and str(version).startswith(('"', "W/"))


def changed(where: str) -> DownloadError:
    """The failure for a file that is no longer the one that was listed."""
    return DownloadError(
        FailureKind.CHANGED,
        f"{where} changed while it was downloaded; the file starts over by itself",
    )


def compressed(encoding: str, where: str) -> DownloadError:
    """The failure for a server that compresses what it was asked for as it is."""
    return DownloadError(
        FailureKind.UNSUPPORTED,
        f"{where} is sent {encoding}-compressed although it was asked for as it is: switch the "
        "server's compression off for it",
    )


def answered(answer: requests.Response, where: str, detail: str = "") -> DownloadError:
    """The failure for an answer of 400 or above."""
    return status_failure(
        answer.status_code, where, detail, retry_after=retry_after(answer.headers)
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an origin asks to wait, from Retry-After: a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    wait = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(wait, 0.0), MAX_RETRY_AFTER_SECONDS)


def _status(error: Exception) -> int | None:
    """The status of the answer that this error is about."""
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def failure(error: Exception, where: str) -> DownloadError:
    """The one place where errors of requests and urllib3 become failures."""
    if isinstance(error, DownloadError):
        return error
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return answered(error.response, where)
    if isinstance(error, requests.TooManyRedirects):
        return DownloadError(
            FailureKind.INTERNAL, f"{where} redirects in circles: check sourceModelUri"
        )
    if isinstance(error, ValueError) and not isinstance(
        error, UnicodeError | requests.JSONDecodeError
    ):
        return DownloadError(
            FailureKind.UNSUPPORTED, f"{where} is not a valid URL: check sourceModelUri"
        )
    return unreachable(error, where)


class Transports:
    """The transports of an agent: one for each idea of which certificates are trusted."""

    def __init__(self, *, max_connections: int, refused: Sequence[Network] = LINK_LOCAL) -> None:
        self._max_connections = max_connections
        self._refused = refused
        self._lock = threading.Lock()
        self._by_trust: dict[bool | str, Transport] = {}

    def trusting(self, verify: bool | str = True) -> Transport:
        """The transport for True (the usual authorities), False (anybody), or a bundle's path."""
        with self._lock:
            if verify not in self._by_trust:
                self._by_trust[verify] = Transport(
                    max_connections=self._max_connections, refused=self._refused, verify=verify
                )
            return self._by_trust[verify]
