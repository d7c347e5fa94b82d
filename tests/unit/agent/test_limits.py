from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from agent.commands.limits_file import LimitsError, follow, read_limits
from agent.engine.cpu_pressure import CpuPressure
from agent.engine.limits import Limits
from agent.structs.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20


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
        ("bytesPerSecond: 2026-02-30", "cannot be read"),
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
