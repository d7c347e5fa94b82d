"""http:// and https://: one file, named by the last segment of the URL's path."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from agent.credentials import HEADERS_SUFFIX
from agent.failures import DownloadError, FailureKind, public_uri
from agent.sources.answers import Get, answered, compressed, failure
from agent.sources.base import RemoteFile
from agent.sources.pins import holds, version_of
from agent.sources.transport import IDENTITY, Transport, origin_of
from agent.urls import server_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from agent.credentials import Credentials
    from agent.sources.base import Body
    from agent.sources.transport import Transports


@dataclass(frozen=True)
class _WebFile:
    """One file of a web server."""

    files: tuple[RemoteFile, ...]
    origin: str
    transport: Transport
    headers: Mapping[str, str]
    version: str | None = None

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """A range of the file."""
        return self.transport.read(
            Get(
                url=file.location,
                where=public_uri(file.location),
                start=start,
                end=end,
                size=file.size,
                version=file.version,
                headers=self.headers,
                ranges=file.ranges,
                alone=not file.ranges,
            )
        )


class HttpSource:
    """Files of web servers. A URL may carry a user and a password, or a signature."""

    def __init__(self, transports: Transports) -> None:
        self._transport = transports.trusting()

    def resolve(self, uri: str, credentials: Credentials | None, _version: str | None) -> _WebFile:
        """The one file, with what the server says of it to a request for its first byte.

        A GET and no HEAD: presigned URLs are signed for one method, and only an answer to a range
        shows whether the server sends ranges.
        """
        name = file_name(uri)
        where = public_uri(uri)
        own = _headers(uri, credentials)
        answer = self._ask(uri, where, {**own, **IDENTITY, "Range": "bytes=0-0"})
        untold = answer.headers.get("Content-Range", "").strip().endswith("/*")
        if untold or answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # An empty file has no first byte, and an answer to a range need not tell the size.
            answer.close()
            answer = self._ask(uri, where, {**own, **IDENTITY})
        with answer:
            size, ranges = _size(answer, where)
            version = version_of(answer.headers, size)
            ranges = ranges and holds(version, answer.headers)
        # What has a time is a file on a disk, which may be written while it is sent.
        written = version is not None and "Last-Modified" in answer.headers
        file = RemoteFile(name, uri, size, version, ranges=ranges, recheck=written)
        return _WebFile((file,), origin_of(uri), self._transport, own)

    def _ask(self, uri: str, where: str, headers: dict[str, str]) -> requests.Response:
        return self._transport.call("GET", uri, where, headers=headers, stream=True, check=False)


def _headers(uri: str, credentials: Credentials | None) -> dict[str, str]:
    """The headers that the credentials have for this very server.

    KServe's are for a host, at any port and by any scheme. Raises DownloadError (Denied) where
    another server of that host has some.
    """
    try:
        server, host = server_of(uri), urlsplit(uri).hostname or ""
    except ValueError as error:
        raise failure(error, public_uri(uri)) from None
    settings = {} if credentials is None else dict(credentials.items)
    written = settings.get(server + HEADERS_SUFFIX)
    if written:
        found: dict[str, str] = json.loads(written)
        return found
    for name in settings:
        other = name.removesuffix(HEADERS_SUFFIX)
        if other != name and urlsplit(other).hostname == host:
            raise DownloadError(
                FailureKind.DENIED,
                f"{public_uri(uri)} is at {server}, and the cache's secret has headers for {other} "
                "alone: correct https-host there, or sourceModelUri",
            )
    return {}


def file_name(uri: str) -> str:
    """The name that the file gets. Raises DownloadError (Unsupported) if the URL gives none."""
    where = public_uri(uri)
    try:
        path = urlsplit(uri).path
    except ValueError:
        path = ""
    name = unquote(path.rpartition("/")[2])
    if not name or "/" in name or name in {".", ".."}:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{where} names no file: a web server's directory cannot be listed, so give the URL of "
            "one file or archive, or put the model into an S3 bucket",
        )
    return name


def _size(answer: requests.Response, where: str) -> tuple[int | None, bool]:
    """The file's size, and whether ranges of it can be had."""
    headers = answer.headers
    if answer.status_code >= 400:
        raise answered(answer, where)
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding not in {"", "identity"}:
        raise compressed(encoding, where)
    total = headers.get("Content-Range", "").rpartition("/")[2]
    if answer.status_code == 206 and total.isdecimal():
        return int(total), True
    length = headers.get("Content-Length", "")
    return (int(length) if length.isdecimal() else None), False
