"""Servers that let each client have few connections at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from agent.sources.readable import check_readable
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.hostile import DATA, RANGE, SIZE, Attempt, content, small_steps
from tests.unit.agent.memory import Memory
from tests.unit.agent.servers import Buckets, Handler, WebFiles, etag, serving, span_of

if TYPE_CHECKING:
    from agent.disk.store import Store

__all__ = ["small_steps"]

pytestmark = pytest.mark.usefixtures("small_steps")


@dataclass
class Narrow:
    """A web server with one file, that refuses with `status` what comes beside `most` others.

    Status 0: by closing the connection. From byte `until` on, it refuses all.
    """

    most: int
    status: int
    until: int = SIZE
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.running: set[Handler] = set()
        self.seen: Counter[int] = Counter()
        self.sent = 0

    def __call__(self, handler: Handler, _: str) -> None:
        with self.lock:
            full = len(self.running) >= self.most or self.sent >= self.until
            self.seen[self.status if full else 206] += 1
            if not full:
                self.running.add(handler)
        if full:
            return (
                handler.reply(self.status, headers=self.headers) if self.status else hang(handler)
            )
        try:
            self._send(handler)
        finally:
            with self.lock:
                self.running.discard(handler)
        return None

    def _send(self, handler: Handler) -> None:
        span = span_of(handler, SIZE)
        assert span is not None
        headers = {"ETag": etag(DATA), "Content-Range": span.content_range}
        handler.begin(206, headers | {"Content-Length": str(span.length)})
        for start in range(span.start, span.end, 64 << 10):
            # So slow that others are asked for meanwhile.
            time.sleep(0.01)
            piece = DATA[start : min(start + (64 << 10), span.end)]
            with self.lock:
                self.sent += len(piece)
                # Before its last bytes: it must not count beside a request that comes after them.
                if start + len(piece) == span.end:
                    self.running.discard(handler)
            handler.wfile.write(piece)
            handler.wfile.flush()


def hang(handler: Handler) -> None:
    handler.hang_up()


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("status", [403, 429, 503, 509, 529, 0])
def test_a_refusal_of_one_more_connection_is_no_denial(
    store: Store, monkeypatch: pytest.MonkeyPatch, status: int, most: int
) -> None:
    # As long as in the product: a busy machine needs a second for the first bytes.
    monkeypatch.setattr("agent.engine.range_retries._DEFAULT_BASE_SECONDS", 0.2)
    narrow = Narrow(most, status)
    with serving(narrow) as server:
        Attempt(store, f"{server.url}/m.bin").succeeds({"m.bin": DATA})
    assert narrow.seen[status]


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_not_kept_while_the_file_comes(store: Store, status: int) -> None:
    narrow = Narrow(2, status, headers={"Retry-After": "120"})
    with serving(narrow) as server:
        Attempt(store, f"{server.url}/m.bin").succeeds({"m.bin": DATA})


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_comes_after_the_end_of_the_other_requests_is_no_denial(
    store: Store, status: int
) -> None:
    """Two ranges: the second is refused while the first is sent, and the answer takes its time."""
    data = DATA[: 2 * RANGE]
    files, first_came = WebFiles({"/m.bin": data}), threading.Event()
    refused: list[str] = []

    def answer(handler: Handler, path: str) -> None:
        span = span_of(handler, len(data))
        assert span is not None
        if span.start == RANGE and not refused:
            refused.append(path)
            assert first_came.wait(20)
            # As long as the engine needs to note the end of the first request.
            time.sleep(0.3)
            handler.reply(status, headers={"Retry-After": "120"})
            return
        files(handler, path)
        if span.start == 0 and span.length == RANGE:
            first_came.set()

    with serving(answer) as server:
        Attempt(store, f"{server.url}/m.bin").succeeds({"m.bin": data})
    assert refused


def test_a_long_wait_is_obeyed_where_nothing_comes(store: Store) -> None:
    files = WebFiles({"/m.bin": DATA})

    def answer(handler: Handler, path: str) -> None:
        asked.append(path)
        if len(asked) > 1:
            return handler.reply(503, headers={"Retry-After": "120"})
        return files(handler, path)

    asked: list[str] = []
    with serving(answer) as server:
        error = Attempt(store, f"{server.url}/m.bin").fails(FailureKind.THROTTLED, "503")
    assert error.retry_after == 120
    assert len(asked) <= 1 + 16


def test_a_file_that_is_refused_from_its_first_byte_is_denied(store: Store) -> None:
    files = WebFiles({"/m.bin": DATA})

    def answer(handler: Handler, path: str) -> None:
        asked.append(path)
        if len(asked) > 1:
            return handler.reply(403)
        return files(handler, path)

    asked: list[str] = []
    with serving(answer) as server:
        error = Attempt(store, f"{server.url}/m.bin").fails(FailureKind.DENIED, "403")
    assert len(asked) <= 1 + 16
    assert "signed" not in error.message


def test_a_signature_that_ends_on_the_way_is_told(store: Store) -> None:
    narrow = Narrow(64, 403, until=SIZE // 2)
    with serving(narrow) as server:
        uri = f"{server.url}/m.bin"
        Attempt(store, uri).fails(FailureKind.DENIED, "403", "its time may be over")
        # What came is kept.
        narrow.until, before = 10 * SIZE, narrow.sent
        Attempt(store, uri).succeeds({"m.bin": DATA})
    assert narrow.sent - before < SIZE


def test_one_object_that_is_denied_is_told_although_others_come(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before(handler: Handler, key: str) -> bool:
        if key == "m/denied":
            buckets._error(handler, 403, "AccessDenied")
            return False
        return True

    objects = {f"m/{n}": content(n, 300_000) for n in range(20)} | {"m/denied": b"x" * 400_000}
    buckets = Buckets({"bucket": objects}, before_get=before)
    set_aws(monkeypatch, "AWS_CA_BUNDLE")
    with serving(buckets) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        Attempt(store, "s3://bucket/m").fails(FailureKind.DENIED, "s3://bucket/m/denied")


def test_a_probe_that_is_refused_beside_others_is_asked_for_alone() -> None:
    lock = threading.Lock()

    def on_open(*_: object) -> None:
        with lock:
            crowded = memory.open_now > 2
        if crowded:
            raise DownloadError(FailureKind.DENIED, "one too many")
        time.sleep(0.02)

    memory = Memory({str(n): b"x" for n in range(20)}, on_open=on_open)
    check_readable(memory)
    assert {path for path, _, _ in memory.opened} == set(memory.contents)


def test_a_file_that_may_not_be_read_is_denied_to_a_probe() -> None:
    def on_open(path: str, *_: object) -> None:
        if path == "7":
            raise DownloadError(FailureKind.DENIED, "no")

    memory = Memory({str(n): b"x" for n in range(20)}, on_open=on_open)
    with pytest.raises(DownloadError) as caught:
        check_readable(memory)
    assert caught.value.kind is FailureKind.DENIED
