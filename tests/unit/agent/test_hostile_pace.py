"""Origins that are slow, that break connections, and that have had enough."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from agent.engine.connection_limit import START_CONNECTIONS
from agent.engine.engine import Engine
from agent.engine.limits import Limits
from agent.sources.answers import MAX_RETRY_AFTER_SECONDS
from agent.structs.failures import FailureKind
from tests.unit.agent import hostile
from tests.unit.agent.helpers import remembered
from tests.unit.agent.hostile import DATA, SIZE, Attempt, Site, content, secret_uri, site
from tests.unit.agent.memory import Memory
from tests.unit.agent.servers import Handler, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.disk.store import Store
    from agent.structs.remote import RemoteFile
    from tests.unit.agent.servers import Span

pytestmark = pytest.mark.usefixtures("small_steps")
small_steps = hostile.small_steps

MIB = 1 << 20


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is short for origins and long for tests."""
    monkeypatch.setattr("agent.engine.pace.LOOK_SECONDS", 0.2)
    monkeypatch.setattr("agent.engine.pace.WORTH_SECONDS", 0.5)


def trickle(made: Site, handler: Handler, span: Span) -> None:
    """A byte now and then, without an end."""
    made.begin(handler, span)
    for at in range(span.start, span.end):
        handler.wfile.write(made.data[at : at + 1])
        time.sleep(0.1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("tagged", [True, False])
def test_a_stream_that_hardly_moves_is_unreachable(
    store: Store, monkeypatch: pytest.MonkeyPatch, tagged: bool
) -> None:
    def act(made: Site, handler: Handler, span: Span, _number: int) -> bool:
        trickle(made, handler, span)
        return True

    monkeypatch.setattr("agent.engine.range_retries._ATTEMPTS", {FailureKind.UNREACHABLE: 2})
    engine = Engine(stall_seconds=0.5, jitter=lambda: 0.0)
    made = Site(content(7, 2 * hostile.RANGE), act=act, tagged=tagged)
    with serving(made) as server:
        begun = time.monotonic()
        Attempt(store, secret_uri(server), engine=engine).fails(
            FailureKind.UNREACHABLE,
            f"m.bin comes too slowly from {server.url}",
            "check the origin and the network of the node",
        )
    assert time.monotonic() - begun < 15
    assert len(made.spans) >= 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_one_slow_connection_among_fast_ones_is_hedged(store: Store, pause: float) -> None:
    def act(made: Site, handler: Handler, span: Span, number: int) -> bool:
        if number != 3:
            return False
        slow.append(span)
        trickle(made, handler, span)
        return True

    slow: list[Span] = []
    made = Site(content(8, 6 * MIB), act=act, pause=pause)
    with site(made) as uri:
        begun = time.monotonic()
        Attempt(store, uri).succeeds({"m.bin": made.data})
        assert time.monotonic() - begun < 15
    (span,) = slow
    again = [one for one in made.spans if span.start <= one.start < span.end and one is not span]
    assert [one.end for one in again] == [span.end]


@pytest.mark.usefixtures("quick")
def test_a_slow_connection_that_breaks_at_last_loses_nothing(store: Store) -> None:
    def act(made: Site, handler: Handler, span: Span, number: int) -> bool:
        if number % 4:
            return False
        made.begin(handler, span)
        handler.wfile.write(made.data[span.start : span.start + 1])
        time.sleep(0.5 + number / 50)
        handler.reset()
        return True

    made = Site(content(9, 6 * MIB), act=act, pause=0.02)
    with site(made) as uri:
        Attempt(store, uri).succeeds({"m.bin": made.data})


@pytest.mark.parametrize("orderly", [True, False])
def test_connections_that_end_every_megabyte_bring_it_all(store: Store, orderly: bool) -> None:
    def act(made: Site, handler: Handler, span: Span, _number: int) -> bool:
        made.begin(handler, span)
        made.pour(handler, made.data[span.start : min(span.start + MIB, span.end)])
        if orderly:
            handler.hang_up()
        else:
            # What a reset overtakes is lost on the way, the more the busier the machine is.
            time.sleep(0.4)
            handler.reset()
        return True

    made = Site(content(10, 12 * MIB), act=act)
    with site(made) as uri:
        engine = Engine(Limits(connections_per_origin=2), jitter=lambda: 0.0)
        Attempt(store, uri, engine=engine).succeeds({"m.bin": made.data})
    assert made.sent < (1.02 if orderly else 1.3) * len(made.data)


def seconds() -> str:
    return "1"


def date() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


@pytest.mark.parametrize("form", [seconds, date])
def test_an_origin_that_asks_to_wait_is_left_alone_so_long(
    store: Store, form: Callable[[], str]
) -> None:
    def act(made: Site, handler: Handler, _span: Span, number: int) -> bool:
        if number != 4:
            return False
        refused.append(made.times[number - 1])
        handler.reply(429, headers={"Retry-After": form()})
        return True

    refused: list[float] = []
    made = Site(act=act, pause=0.05)
    with site(made) as uri:
        engine = Engine(Limits(connections_per_origin=4), jitter=lambda: 0.0)
        Attempt(store, uri, engine=engine).succeeds({"m.bin": DATA})
    (at,) = refused
    # Some may be on their way.
    assert [t - at for t in made.times if 0.5 < t - at < 0.95] == []
    assert [t for t in made.times if t - at >= 0.95]


def test_an_origin_that_has_had_enough_gets_fewer_connections(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(made: Site, handler: Handler, _span: Span, _number: int) -> bool:
        with made.lock:
            opened.append(made.open_now)
            refuse = made.open_now > 4
        if refuse:
            handler.reply(503)
        return refuse

    monkeypatch.setattr("agent.engine.range_retries._BASE_SECONDS", {FailureKind.THROTTLED: 0.2})
    opened: list[int] = []
    made = Site(content(11, 12 * MIB), act=act, pause=0.03)
    engine = Engine(jitter=lambda: 0.0)
    with serving(made) as server:
        Attempt(store, secret_uri(server), engine=engine).succeeds({"m.bin": made.data})
        limit = remembered(engine, server.url).limit
    assert max(opened) > 4
    assert limit.now <= START_CONNECTIONS // 2
    assert max(opened[len(opened) // 2 :]) <= START_CONNECTIONS // 2
    assert made.sent < 1.1 * len(made.data)


def test_an_origin_that_refuses_for_ever_is_throttled(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(_made: Site, handler: Handler, _span: Span, _number: int) -> bool:
        handler.reply(503)
        return True

    monkeypatch.setattr("agent.engine.range_retries.MAX_DELAY_SECONDS", 0.05)
    with site(Site(act=act)) as uri:
        error = Attempt(store, uri).fails(
            FailureKind.THROTTLED, "/m.bin?… answered 503 Service Unavailable", "tried again"
        )
    assert error.retry_after is None


@pytest.mark.parametrize("first", [True, False])
def test_a_long_wait_is_left_to_the_whole_download(store: Store, first: bool) -> None:
    def refuse(handler: Handler, _: str) -> None:
        handler.reply(429, headers={"Retry-After": "3600"})

    def act(_made: Site, handler: Handler, _span: Span, _number: int) -> bool:
        refuse(handler, "")
        return True

    begun = time.monotonic()
    with serving(refuse if first else Site(act=act)) as server:
        error = Attempt(store, secret_uri(server)).fails(
            FailureKind.THROTTLED, "/m.bin?… answered 429 Too Many Requests"
        )
    assert error.retry_after == MAX_RETRY_AFTER_SECONDS
    assert time.monotonic() - begun < 5


def test_a_download_goes_on_where_a_failure_has_left_it(store: Store) -> None:
    def act(_made: Site, handler: Handler, span: Span, _number: int) -> bool:
        if bad and span.end == SIZE:
            handler.reply(403)
            return True
        return False

    bad = [True]
    made = Site(act=act)
    with site(made) as uri:
        engine = Engine(Limits(connections_per_origin=2))
        Attempt(store, uri, engine=engine).fails(FailureKind.DENIED, "/m.bin?… answered 403")
        assert made.sent > SIZE // 2
        bad.clear()
        Attempt(store, uri, engine=engine).succeeds({"m.bin": DATA})
    assert made.sent < 1.2 * SIZE


class Late(Memory):
    """One of its bodies waits until it is aborted, and gives a piece then."""

    def read(self, file: RemoteFile, start: int, end: int | None) -> Any:
        body = super().read(file, start, end)
        return _LateBody(body) if len(self.opened) == 3 else body


class _LateBody:
    def __init__(self, body: Any) -> None:
        self._body = body
        self._aborted = threading.Event()
        self.abort, self.close = self._aborted.set, body.close

    def read(self, size: int) -> bytes:
        assert self._aborted.wait(10)
        piece: bytes = self._body.read(size)
        return piece


@pytest.mark.usefixtures("quick")
def test_what_the_slower_of_two_requests_still_brings_is_left(store: Store) -> None:
    data = content(13, 4 * MIB)
    source = Late({"w.bin": data}, on_read=lambda *_: time.sleep(0.05), piece=1 << 16)
    Attempt(store, "stub://m", source=source).succeeds({"w.bin": data})
    # Twice asked for, and the late piece has come too.
    assert source.sent["w.bin"] > len(data)
