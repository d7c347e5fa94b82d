"""Whole downloads against servers that misbehave."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agent.commands.assemble import own_credentials
from agent.engine.engine import Engine
from agent.jobs.download import Download
from agent.sources import Sources
from agent.sources.http import HttpSource
from agent.sources.s3 import S3Source
from agent.sources.transport import Transports
from agent.structs.manifest import CacheName
from agent.structs.requests import Request
from crds.keys import model_key
from tests.unit.agent.helpers import tree
from tests.unit.agent.servers import Span, etag, serving, span_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.disk.store import Store
    from agent.sources.base import Source
    from agent.structs.credentials import Credentials
    from agent.structs.failures import DownloadError, FailureKind
    from agent.structs.manifest import Manifest
    from tests.unit.agent.servers import Handler, Server

RANGE = 256 << 10
# Not a multiple of ranges, blocks or pages.
SIZE = (3 << 20) + 12_345
SECRETS = ("s3cret", "Signature", "Traceback", "0x", "urllib3", "HTTPConnection")


def content(seed: int, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


DATA = content(1)


class Attempt:
    """One download of one model, and checks of its result."""

    def __init__(
        self,
        store: Store,
        uri: str,
        *,
        source: Source | None = None,
        engine: Engine | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        transports = Transports(max_connections=16)
        web = HttpSource(transports)
        sources: dict[str, Source] = {"http": web, "https": web, "s3": S3Source(transports)}
        if source is not None:
            sources["stub"] = source
        self._store = store
        self.key = model_key(uri)
        self.download = Download(
            Request(self.key, uri, (CacheName(name="m"),), frozenset()),
            sources=Sources(sources),
            store=store,
            engine=engine or Engine(jitter=lambda: 0.0),
            credentials=lambda: credentials or own_credentials(),
            cancelled=threading.Event(),
            report=lambda _: None,
        )

    @property
    def tree(self) -> dict[str, bytes] | None:
        return tree(self._store, self.key)

    def succeeds(self, files: dict[str, bytes]) -> Manifest:
        """Run the download, and check that exactly these files are published."""
        manifest = self.download.run()
        found = self.tree
        assert found is not None
        assert found.keys() == files.keys()
        # No == of the whole, whose difference pytest would print.
        assert all(found[path] == data for path, data in files.items())
        return manifest

    def fails(self, kind: FailureKind, *words: str) -> DownloadError:
        """Run the download, and check its failure: kind, words, no secret, nothing published."""
        error: Any = None
        try:
            self.download.run()
        except Exception as caught:  # noqa: BLE001
            error = caught
        assert error is not None
        assert getattr(error, "kind", None) is kind, error
        for word in words:
            assert word in error.message
        for secret in SECRETS:
            assert secret not in error.message
        # The message ends with what to do.
        assert error.message.rpartition(": ")[2] or ";" in error.message
        assert self.tree is None
        return error  # type: ignore[no-any-return]


@dataclass
class Site:
    """A server with one file, which behaves well unless `act` answers a request.

    `act` gets each request, except those for the first byte, with a number from 1. It returns False
    for a request that the site shall answer.
    """

    data: bytes = field(default=DATA, repr=False)
    act: Callable[[Site, Handler, Span, int], bool] = lambda *_: False
    tagged: bool = True
    # Seconds before each piece of 64 KiB.
    pause: float = 0.0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.sent = 0
        self.spans: list[Span] = []
        self.times: list[float] = []
        self.open_now = 0
        self.most_open = 0

    def __call__(self, handler: Handler, _: str) -> None:
        span = span_of(handler, len(self.data))
        if span is not None and (span.start, span.end) == (0, 1):
            self.serve(handler, span)
            return
        with self.lock:
            self.spans.append(span or Span(0, len(self.data), len(self.data)))
            self.times.append(time.monotonic())
            number = len(self.spans)
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        try:
            if not self.act(self, handler, self.spans[number - 1], number):
                self.serve(handler, span)
        finally:
            with self.lock:
                self.open_now -= 1

    def serve(self, handler: Handler, span: Span | None) -> None:
        """Answer a request as the HTTP standard says."""
        data = self.data
        if self.tagged and handler.headers.get("If-Match", etag(data)) != etag(data):
            handler.reply(412)
            return
        if span is not None and span.start >= len(data):
            handler.reply(416, headers={"Content-Range": f"bytes */{len(data)}"})
            return
        self.begin(handler, span)
        start, end = (span.start, span.end) if span else (0, len(data))
        self.pour(handler, data[start:end])

    def begin(self, handler: Handler, span: Span | None, **changes: str) -> None:
        """Send status and headers. `changes` are headers, with _ for -; empty ones are left out."""
        headers = {"Content-Length": str(span.length if span else len(self.data))}
        if self.tagged:
            headers["ETag"] = etag(self.data)
        if span is not None:
            headers["Content-Range"] = span.content_range
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        handler.begin(206 if span else 200, {n: v for n, v in headers.items() if v})

    def pour(self, handler: Handler, data: bytes) -> None:
        """Send a body at the site's speed, and count its bytes."""
        step = 64 << 10
        for start in range(0, len(data), step):
            if self.pause:
                time.sleep(self.pause)
            piece = data[start : start + step]
            handler.wfile.write(piece)
            with self.lock:
                self.sent += len(piece)


@contextmanager
def site(made: Site) -> Iterator[str]:
    """Serve the site. Yields its file's URI, with a user, a password and a signature."""
    with serving(made) as server:
        yield secret_uri(server)


def secret_uri(server: Server) -> str:
    host = f"{server.server_address[0]!s}:{server.server_port}"
    return f"{server.scheme}://user:s3cret@{host}/m.bin?X-Amz-Signature=s3cret"


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ranges and reads, and short waits between requests."""
    monkeypatch.setattr("agent.engine.ranges.MIN_RANGE_BYTES", RANGE)
    monkeypatch.setattr("agent.engine.workers.FIRST_READ_BYTES", RANGE // 4)
    monkeypatch.setattr("agent.engine.range_retries._BASE_SECONDS", {})
    monkeypatch.setattr("agent.engine.range_retries._DEFAULT_BASE_SECONDS", 0.01)
    monkeypatch.setattr("agent.engine.engine.TICK_SECONDS", 0.02)
