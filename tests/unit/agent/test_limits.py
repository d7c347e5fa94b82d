from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from agent.commands.limits_file import LimitsError, follow, read_limits
from agent.engine.connection_limit import (
    FEW_CONNECTIONS,
    HOLD_SECONDS,
    START_CONNECTIONS,
    STEP_SECONDS,
    ConnectionLimit,
)
from agent.engine.cpu_pressure import CpuPressure
from agent.engine.limits import Limits
from agent.structs.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20


class Origin:
    """An origin whose rate depends on the number of connections."""

    def __init__(self, rate: Callable[[int], float], limit: ConnectionLimit | None = None) -> None:
        self.rate = rate
        self.limit = limit or ConnectionLimit()
        self.now = 100.0
        self.received = 0
        self.seen: list[int] = []

    def run(self, seconds: float, *, busy: bool = True, cpu_bound: bool = False) -> int:
        for _ in range(round(seconds / 0.1)):
            self.limit.sample(self.received, self.now, busy=busy, cpu_bound=cpu_bound)
            self.seen.append(self.limit.now)
            self.received += int(self.rate(self.limit.now) * 0.1)
            self.now += 0.1
        return self.limit.now


def test_grows_while_each_stream_is_held_back() -> None:
    origin = Origin(lambda n: n * 50 * MIB)
    assert origin.run(8 * STEP_SECONDS) == 64
    assert sorted(set(origin.seen)) == [FEW_CONNECTIONS, 16, 32, 64]
    # The few are for the first look alone.
    assert origin.seen[2] == START_CONNECTIONS


def test_stays_where_more_streams_bring_nothing() -> None:
    origin = Origin(lambda _: 2000 * MIB)
    origin.run(10 * STEP_SECONDS)
    assert origin.limit.now == 16
    # It tried once, and tries again after a while.
    assert set(origin.seen[2:]) == {16, 32}
    origin.seen.clear()
    origin.run(HOLD_SECONDS + 8 * STEP_SECONDS)
    assert set(origin.seen) == {16, 32}


def test_goes_back_when_the_origin_collapses_under_more_streams() -> None:
    # A hub's network gives next to nothing to a client with 64 connections.
    origin = Origin(lambda n: n * 20 * MIB if n <= 32 else 1 * MIB)
    origin.run(9 * STEP_SECONDS)
    assert origin.limit.now == 32
    assert 64 in origin.seen


def test_begins_with_few_where_the_cpu_is_the_limit_and_stays_there() -> None:
    origin = Origin(lambda n: 8000 * MIB / n)
    origin.run(20 * STEP_SECONDS, cpu_bound=True)
    assert origin.limit.now == FEW_CONNECTIONS
    # It tried more, once, and they were no faster.
    assert set(origin.seen) == {FEW_CONNECTIONS, 2 * FEW_CONNECTIONS}


def test_grows_on_a_busy_cpu_too_where_each_stream_is_held_back() -> None:
    origin = Origin(lambda n: n * 50 * MIB)
    assert origin.run(20 * STEP_SECONDS, cpu_bound=True) >= 32


def test_takes_fewer_when_the_cpu_becomes_the_limit() -> None:
    origin = Origin(lambda n: 8000 * MIB / n)
    origin.run(5 * STEP_SECONDS)
    assert origin.limit.now == START_CONNECTIONS
    assert origin.run(HOLD_SECONDS + 10 * STEP_SECONDS, cpu_bound=True) == FEW_CONNECTIONS


def test_takes_fewer_back_when_they_are_slower() -> None:
    origin = Origin(lambda n: n * 50 * MIB)
    assert origin.run(12 * STEP_SECONDS) == 64
    origin.seen.clear()
    origin.run(10 * STEP_SECONDS, cpu_bound=True)
    assert set(origin.seen) == {32, 64}
    assert origin.limit.now == 64


def test_crowd_is_more_waiting_than_work(tmp_path: Path) -> None:
    def account(ran: float, waited: float) -> None:
        (tmp_path / "7").mkdir(exist_ok=True)
        text = f"{int(ran * 1e9)} {int(waited * 1e9)} 12\n"
        (tmp_path / "7" / "schedstat").write_text(text)

    crowd = CpuPressure(tmp_path)
    crowd.add(7)
    # One that has ended, or a kernel that keeps no account.
    crowd.add(8)
    account(1.0, 5.0)
    assert not crowd.sample(100.0)
    account(1.1, 5.3)
    assert crowd.sample(100.2)
    # Little work, and little waiting.
    account(1.1, 5.4)
    assert not crowd.sample(100.4)
    # Much work.
    account(1.9, 6.0)
    assert not crowd.sample(100.6)
    (tmp_path / "7" / "schedstat").write_text("not what it was")
    assert not crowd.sample(100.8)


def test_a_refusal_halves_once_for_a_burst_and_holds() -> None:
    origin = Origin(lambda n: n * 50 * MIB)
    origin.run(8 * STEP_SECONDS)
    for _ in range(10):
        origin.limit.refused(origin.now)
    assert origin.limit.now == 32
    assert origin.run(HOLD_SECONDS - 1) == 32
    assert origin.run(8 * STEP_SECONDS) == 64
    for _ in range(20):
        origin.now += 10
        origin.limit.refused(origin.now)
    assert origin.limit.now == 1


def test_idle_connections_prove_nothing() -> None:
    origin = Origin(lambda n: n * 50 * MIB)
    assert origin.run(10 * STEP_SECONDS, busy=False) == 16


def test_cap_holds_at_once_and_growth_follows_when_it_is_raised() -> None:
    origin = Origin(lambda n: n * 50 * MIB)
    origin.limit.cap(4)
    assert origin.run(10 * STEP_SECONDS) == 4
    origin.limit.cap(64)
    assert origin.run(10 * STEP_SECONDS) == 64


def test_after_a_pause_it_goes_on_with_what_it_had_learned() -> None:
    origin = Origin(lambda n: n * 50 * MIB if n <= 32 else 1 * MIB)
    # The pause comes in the middle of a step that will not have paid.
    while origin.limit.now < 64:
        origin.run(0.1)
    origin.now += 3600
    origin.limit.resume()
    assert origin.limit.now == 32
    # Neither the pause nor its bytes count as a collapse.
    origin.rate = lambda _: 1 * MIB
    assert origin.run(3 * STEP_SECONDS) >= 32


def test_a_pause_ends_within_a_limit_that_was_lowered_meanwhile() -> None:
    origin = Origin(lambda n: n * 50 * MIB)
    while origin.limit.now < 64:
        origin.run(0.1)
    origin.limit.cap(4)
    origin.limit.resume()
    assert origin.limit.now == 4


def test_bucket_keeps_to_its_rate_whatever_the_pieces() -> None:
    bucket = TokenBucket(rate=10 * MIB)
    now, sent = 50.0, 0
    for n in range(200):
        piece = (n % 7 + 1) * 100_000
        now += bucket.take(piece, now)
        sent += piece
    assert sent / (now - 50.0) == pytest.approx(10 * MIB, rel=0.05)
    # An idle second is not saved up.
    now += 10
    assert bucket.take(10 * MIB, now) == pytest.approx(0.9, abs=0.01)


def test_bucket_without_a_rate_never_waits() -> None:
    assert TokenBucket().take(1 << 40, 0.0) == 0.0


def test_file_of_limits(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    assert read_limits(path) == Limits()
    path.write_text("bytesPerSecond: 1e3\n")
    assert read_limits(path) == Limits(bytes_per_second=1000)
    path.write_text("bytesPerSecond: 500Mi\nconnectionsPerOrigin: 8\n")
    assert read_limits(path) == Limits(connections_per_origin=8, bytes_per_second=500 * MIB)
    path.write_text("")
    assert read_limits(path) == Limits()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bytesPerSecond: fast", "bytesPerSecond"),
        ("bytesPerSecond: 0", "above zero"),
        ("bytesPerSecond: 0e5", "above zero"),
        ("bytesPerSecond: -1Mi", "less than zero"),
        ("bytesPerSecond: true", "not a quantity"),
        ("bytesPerSecond: 1e1000000", "not a quantity"),
        ("bytesPerSecond: .inf", "bytesPerSecond"),
        ("connectionsPerOrigin: 0", "connectionsPerOrigin"),
        ("connectionsPerOrigin: 65", "64"),
        ("connections: 4", "connections"),
        ("[", "cannot be read"),
    ],
)
def test_file_of_limits_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(LimitsError) as caught:
        read_limits(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_limits_are_followed_and_a_wrong_file_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.commands.limits_file.POLL_SECONDS", 0.01)
    path = tmp_path / "limits.yaml"
    path.write_text("connectionsPerOrigin: 8")
    seen: list[Limits] = []
    follow(path, seen.append)
    wait_for(lambda: seen == [Limits(connections_per_origin=8)])
    path.write_text("[")
    time.sleep(0.1)
    assert len(seen) == 1
    path.write_text("connectionsPerOrigin: 9")
    wait_for(lambda: Limits(connections_per_origin=9) in seen)
    path.unlink()
    wait_for(lambda: seen[-1] == Limits())


def wait_for(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)
