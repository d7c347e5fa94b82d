"""http:// and https://: one file, named by the last segment of the URL's path.

Where that name has no known type, the query may name an archive, as in KServe:
`/download?file=model.zip`.
"""

from __future__ import annotations

import json
import mimetypes
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from agent.sources.answers import Get, answered, coding_of, compressed, failure
from agent.sources.pages import START_BYTES, instead_of_file, may_be_page
from agent.sources.pins import holds, version_of
from agent.sources.transport import IDENTITY, Transport, origin_of
from agent.structs.archive_kinds import archive_kind
from agent.structs.credentials import HEADERS_SUFFIX
from agent.structs.failures import DownloadError, FailureKind, public_uri
from agent.structs.remote import RemoteFile
from agent.structs.urls import server_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from agent.sources.transport import Transports
    from agent.structs.credentials import Credentials
    from agent.structs.remote import Body


@dataclass(frozen=True)
class _WebFile:
    """One file of a web server. `as_stored` is whether its content coding is a mere label."""

    files: tuple[RemoteFile, ...]
    origin: str
    transport: Transport
    headers: Mapping[str, str]
    as_stored: bool
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
                as_stored=self.as_stored,
                alone=not file.ranges,
            )
        )


class HttpSource:
    """Files of web servers. A URL may carry a user and a password, or a signature."""

    def __init__(self, transports: Transports) -> None:
        self._transport = transports.trusting()

    def resolve(self, uri: str, credentials: Credentials, _version: str | None) -> _WebFile:
        """The one file, as the answer to a request for its first byte describes it.

        The request is a GET: presigned URLs are signed for one method, and only the answer to a
        range shows whether the server sends ranges.
        """
        name = file_name(uri)
        where = public_uri(uri)
        own = _headers(uri, credentials)
        headers = {**own, **IDENTITY}
        answer, start = self._ask(uri, where, {**headers, "Range": "bytes=0-0"})
        untold = answer.headers.get("Content-Range", "").strip().endswith("/*")
        if untold or answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # An empty file has no first byte, and an answer to a range need not give the size.
            answer, start = self._ask(uri, where, headers)
            if answer.status_code >= 400:
                raise answered(answer, where)
        size, ranges = _size(answer)
        version, coding = version_of(answer.headers, size), coding_of(answer.headers)
        # A file with a time lies on a disk, and may be written while it is sent.
        written = version is not None and "Last-Modified" in answer.headers
        pinned = holds(version, answer.headers)
        on_the_way = bool(coding) and not _is_stored(name, coding, start, ranges=ranges)
        if ranges and may_be_page(name, answer.headers, start):
            some = f"bytes=0-{START_BYTES - 1}"
            answer, start = self._ask(uri, where, {**headers, "Range": some})
        _check_no_page(uri, name, answer, start)
        if on_the_way:
            raise compressed(coding, where)
        file = RemoteFile(name, uri, size, version, ranges=ranges and pinned, recheck=written)
        return _WebFile((file,), origin_of(uri), self._transport, own, as_stored=bool(coding))

    def _ask(
        self, uri: str, where: str, headers: dict[str, str]
    ) -> tuple[requests.Response, bytes]:
        return self._transport.begin(uri, where, headers, START_BYTES)


def _headers(uri: str, credentials: Credentials) -> dict[str, str]:
    """The headers that a tenant's credentials have for the server of a URI.

    In KServe they are for a host, at any port and by any scheme. Raises DownloadError (Denied)
    where the credentials have headers for another server of that host.
    """
    try:
        server, host = server_of(uri), urlsplit(uri).hostname or ""
    except ValueError as error:
        raise failure(error, public_uri(uri)) from None
    settings = {} if credentials.own else dict(credentials.items)
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
    """The file's name in the model. Raises DownloadError (Unsupported) for a URL without one."""
    where = public_uri(uri)
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    name = unquote(parts.path.rpartition("/")[2])
    if not name or "/" in name or name in {".", ".."}:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{where} names no file: a web server's directory cannot be listed, so give the URL of "
            "one file or archive, or put the model into an S3 bucket",
        )
    return name if _tells_type(name) else _archive_name(parts.query) or name


# Types of models. All others are looked up, in a list that takes a while to be made.
_MODELS = {".bin", ".ckpt", ".gguf", ".onnx", ".pt", ".pth", ".safetensors"}


@cache
def _types() -> mimetypes.MimeTypes:
    """The built-in types only: the types of a machine must not change a model's files."""
    return mimetypes.MimeTypes()


def _tells_type(name: str) -> bool:
    ending = PurePosixPath(name).suffix.lower()
    known = archive_kind(name) is not None or ending in _MODELS
    return known or _types().guess_type(name, strict=False)[0] is not None


def _archive_name(query: str) -> str:
    """The name of an archive in a query, as a value or as a key alone; empty: none."""
    for key, value in parse_qsl(query, keep_blank_values=True):
        name = (value or key).rpartition("/")[2]
        if archive_kind(name) is not None and name.isprintable():
            return name
    return ""


def _size(answer: requests.Response) -> tuple[int | None, bool]:
    """The file's size, None if it is unknown, and whether the server sends ranges."""
    headers = answer.headers
    total = headers.get("Content-Range", "").rpartition("/")[2]
    if answer.status_code == 206 and total.isdecimal():
        return int(total), True
    length = headers.get("Content-Length", "")
    return (int(length) if length.isdecimal() else None), False


# The codings that an ending of a name stands for.
_NAMED = {
    ".br": {"br"},
    ".gz": {"gzip", "x-gzip"},
    ".svgz": {"gzip", "x-gzip"},
    ".tgz": {"gzip", "x-gzip"},
    ".z": {"compress", "x-compress"},
    ".zst": {"zstd"},
}


def _is_stored(name: str, coding: str, start: bytes, *, ranges: bool) -> bool:
    """Whether an answer with a content coding has the stored bytes.

    A server that encodes while it sends has no ranges, or sends other bytes than the range's.
    """
    return (ranges and len(start) <= 1) or coding in _NAMED.get(
        PurePosixPath(name).suffix.lower(), ()
    )


def _check_no_page(uri: str, name: str, answer: requests.Response, start: bytes) -> None:
    """Raises DownloadError (Denied) if the answer is a page or an error in place of the file."""
    found = instead_of_file(name, answer.headers, start)
    if not found:
        return
    at = origin_of(answer.url)
    through = "" if at == origin_of(uri) else f" by way of {at}"
    raise DownloadError(
        FailureKind.DENIED,
        f"{public_uri(uri)} gives {found}{through} and not the file, as servers do to those who "
        "have not signed in: give the cache what it signs in with (https-host and headers of its "
        "secret), or a sourceModelUri that leads to the file itself",
    )
