"""Origins of tenants: stores that serve their owner, and servers that harm their clients."""

from __future__ import annotations

import base64
import gzip
import re
import signal
import tarfile
import threading
import time
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from awscrt import checksums

from tests.faults.forks import fork
from tests.unit.agent.servers import Buckets, etag, serving, span_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.unit.agent.servers import Handler

Objects = dict[str, bytes]

REFUSE, SERVE = "/-/refuse", "/-/serve"
# How many harmful servers a tenant has, each of which is a separate origin.
SERVERS = 4
FALSE_SIZE = 10 << 30
# The size of an endless response: more than an agent may hold, but not too much for the machine.
ENDLESS_BYTES = 1 << 30
DRIP_SECONDS = 2.0
# How long a server waits for a slow client.
DRIPS = 300
PAGE_KEYS = 1000

_PIECE = bytes(64 << 10)
# The access key in an Authorization header, or in the query of a presigned URL.
_WHO = re.compile(r"Credential=([^/%]+)(?:/|%2F)")


@dataclass(frozen=True)
class Origins:
    """The URLs of each owner's store and of each tenant's harmful servers."""

    stores: Mapping[str, str]
    harmful: Mapping[str, list[str]]


def bucket_of(owner: str) -> str:
    """The bucket of an owner's store."""
    return f"{owner}-models"


@contextmanager
def serve(owned: Mapping[str, Objects], tenants: list[str]) -> Iterator[Origins]:
    """Run a store for each owner and harmful servers for each tenant, in a separate process."""
    child = fork(lambda send: _serve(owned, tenants, send))
    try:
        yield Origins(*child.receive()[0])  # type: ignore[index]
    finally:
        child.end()


def _serve(
    owned: Mapping[str, Objects], tenants: list[str], send: Callable[[object], None]
) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    everything = {bucket_of(owner): objects for owner, objects in owned.items()}
    harms = Harmful(everything)
    with ExitStack() as stack:
        stores = {
            owner: stack.enter_context(serving(Store(owner, objects))).url
            for owner, objects in owned.items()
        }
        harmful = {
            tenant: [stack.enter_context(serving(harms)).url for _ in range(SERVERS)]
            for tenant in tenants
        }
        send([stores, harmful])
        while True:
            signal.pause()


def _who(handler: Handler) -> str:
    """The owner of the key that signs a request; empty without a signature."""
    found = _WHO.search(handler.headers.get("Authorization", "")) or _WHO.search(handler.path)
    return found[1] if found else ""


class Store:
    """A bucket that its owner may read, and others only list. It can be set to refuse all."""

    def __init__(self, owner: str, objects: Objects) -> None:
        self._owner = owner
        crcs = {key: ("CRC32C", _crc32c(data)) for key, data in objects.items()}
        self._buckets = Buckets({bucket_of(owner): objects}, checksums=crcs)
        self._refuses = threading.Event()

    def __call__(self, handler: Handler, path: str) -> None:
        """Answer a request."""
        if path in {REFUSE, SERVE}:
            (self._refuses.set if path == REFUSE else self._refuses.clear)()
            return handler.reply(204)
        is_listing = not path.strip("/").partition("/")[2]
        if self._refuses.is_set() or (_who(handler) != self._owner and not is_listing):
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            return handler.reply(403, body, {"Content-Type": "application/xml"})
        return self._buckets(handler, path)


def _crc32c(data: bytes) -> str:
    return base64.b64encode(checksums.crc32c(data).to_bytes(4, "big")).decode()


class Harmful:
    """A server that misbehaves as the key of a request names, or the first part of its path."""

    def __init__(self, buckets: Mapping[str, Objects]) -> None:
        self._others = {
            "false-sizes": _FalseSizes(buckets),
            "other-files": Buckets({name: _renamed(files) for name, files in buckets.items()}),
            "other-bytes": Buckets({name: _changed(files) for name, files in buckets.items()}),
        }

    def __call__(self, handler: Handler, path: str) -> None:
        """Answer a request."""
        for what in (_who(handler), *path.removeprefix("/webhdfs/v1").split("/")[1:2]):
            if what in self._others:
                return self._others[what](handler, path)
            if what in HARMS:
                return HARMS[what](handler)
        return handler.reply(404)


def _renamed(files: Objects) -> Objects:
    return {f"{key}-of-another": data for key, data in files.items()}


def _changed(files: Objects) -> Objects:
    return {key: data.translate(_OTHER_BYTES) for key, data in files.items()}


_OTHER_BYTES = bytes(255 - byte for byte in range(256))


class _FalseSizes(Buckets):
    """A bucket that lists and sends each object as huge."""

    def __init__(self, buckets: Mapping[str, Objects]) -> None:
        super().__init__(dict(buckets))

    def _entry(self, key: str, data: bytes) -> str:
        return (
            f"<Contents><Key>{escape(key)}</Key><Size>{FALSE_SIZE}</Size>"
            f"<ETag>{etag(data)}</ETag></Contents>"
        )

    def _get(self, handler: Handler, data: bytes | None) -> None:
        span = span_of(handler, FALSE_SIZE)
        if data is None or span is None:
            return handler.reply(404)
        handler.begin(
            206,
            {
                "Content-Length": str(span.length),
                "Content-Range": span.content_range,
                "ETag": etag(data),
            },
        )
        return _pour(handler, span.length)


def _pour(handler: Handler, size: int = ENDLESS_BYTES, piece: bytes = _PIECE) -> None:
    for start in range(0, size, len(piece)):
        handler.wfile.write(piece[: size - start])


def _chunk(handler: Handler, piece: bytes) -> None:
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))


def _endless(handler: Handler, status: int, headers: dict[str, str], piece: bytes) -> None:
    handler.begin(status, {"Content-Length": str(ENDLESS_BYTES)} | headers)
    _pour(handler, piece=piece)


def _elsewhere(handler: Handler) -> dict[str, str]:
    return {"Location": f"{handler.path}x"}


def _redirect(handler: Handler) -> None:
    _endless(handler, 302, _elsewhere(handler), _PIECE)


# Decompresses to 2 GiB of blanks.
_BOMB = gzip.compress(b" " * (64 << 20), mtime=0) * 32


def _bomb(handler: Handler, status: int, headers: dict[str, str]) -> None:
    handler.reply(status, _BOMB, {"Content-Encoding": "gzip"} | headers)


def _redirect_bomb(handler: Handler) -> None:
    _bomb(handler, 302, _elsewhere(handler))


def _listing_bomb(handler: Handler) -> None:
    _bomb(handler, 200, {"Content-Type": "application/json"})


def _refusal(handler: Handler) -> None:
    _endless(handler, 403, {"Content-Type": "application/xml"}, b"<Error>" * 10_000)


def _listing(handler: Handler) -> None:
    """Send a listing of one endless page."""
    entry = b"<Contents><Key>a</Key><Size>1</Size></Contents>" * 1000
    handler.begin(200, {"Content-Type": "application/xml", "Transfer-Encoding": "chunked"})
    _chunk(handler, b"<ListBucketResult>")
    for _ in range(0, ENDLESS_BYTES, len(entry)):
        _chunk(handler, entry)


_PAGES = count()


def _pages(handler: Handler) -> None:
    """Send a listing with an endless number of pages."""
    page = next(_PAGES)
    entries = "".join(
        f"<Contents><Key>many/{page}-{n}</Key><Size>1</Size><ETag>x</ETag></Contents>"
        for n in range(PAGE_KEYS)
    )
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    handler.reply(
        200,
        f"<ListBucketResult>{more}{entries}</ListBucketResult>".encode(),
        {"Content-Type": "application/xml"},
    )


def _drip(handler: Handler, piece: bytes, times: int = DRIPS) -> None:
    for _ in range(min(times, DRIPS)):
        handler.wfile.write(piece)
        handler.wfile.flush()
        time.sleep(DRIP_SECONDS)


def _header_drip(handler: Handler) -> None:
    handler.send_response(200)
    handler.flush_headers()
    _drip(handler, b"X")


def _body_drip(handler: Handler) -> None:
    size = 1 << 20
    span = span_of(handler, size)
    length = span.length if span else size
    headers = {"Content-Length": str(length), "ETag": '"slow"'}
    handler.begin(
        206 if span else 200, headers | ({"Content-Range": span.content_range} if span else {})
    )
    _drip(handler, b"x", length)


def _silence(handler: Handler) -> None:
    handler.wfile.flush()
    time.sleep(DRIPS * DRIP_SECONDS)


def _stream(handler: Handler) -> None:
    """Send an endless file without Content-Length."""
    handler.begin(200, {"Transfer-Encoding": "chunked", "ETag": '"endless"'})
    for _ in range(0, ENDLESS_BYTES, len(_PIECE)):
        _chunk(handler, _PIECE)


def _archive(handler: Handler) -> None:
    """Send a tar.gz with one endless member, which is a thousand times smaller on the wire."""
    pack = zlib.compressobj(wbits=31)
    member = tarfile.TarInfo("weights")
    member.size = 1 << 40
    handler.begin(200, {"Transfer-Encoding": "chunked", "ETag": '"archive"'})
    _chunk(handler, pack.compress(member.tobuf()) + pack.flush(zlib.Z_FULL_FLUSH))
    for _ in range(0, ENDLESS_BYTES >> 10, 1 << 10):
        piece = pack.compress(bytes(1 << 20)) + pack.flush(zlib.Z_FULL_FLUSH)
        _chunk(handler, piece)


# The misbehaviours of a server, by the name in a URI or a key.
HARMS: dict[str, Callable[[Handler], None]] = {
    "redirect": _redirect,
    "redirect-bomb": _redirect_bomb,
    "listing-bomb": _listing_bomb,
    "refusal": _refusal,
    "listing": _listing,
    "pages": _pages,
    "header-drip": _header_drip,
    "body-drip": _body_drip,
    "silence": _silence,
    "stream": _stream,
    "archive": _archive,
}
# The misbehaviours that each scheme can meet: no source would request the others.
OVER_HTTP = (
    "redirect",
    "redirect-bomb",
    "refusal",
    "header-drip",
    "body-drip",
    "silence",
    "stream",
)
OVER_S3 = ("listing-bomb", "listing", "pages", "refusal", "redirect", "header-drip", "silence")
OVER_WEBHDFS = ("listing-bomb", "listing", "redirect-bomb", "header-drip", "silence")
FALSE = ("false-sizes", "other-files", "other-bytes")
