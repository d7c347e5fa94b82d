from __future__ import annotations

import threading

import pytest

from deploy.local.standin.workqueue import RETRIES_BURST, RateLimiter, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(clock)


def drain(queue: WorkQueue[str]) -> list[str]:
    """The keys that are ready now. The sentinels keep `get` from waiting for a delayed key."""
    found = []
    for _ in range(2):
        queue.add("end")
        while (key := queue.get()) not in {None, "end"}:
            assert key is not None
            found.append(key)
            queue.done(key)
        queue.done("end")
    return found


def test_a_key_waits_once(queue: WorkQueue[str]) -> None:
    for key in ("a", "b", "a"):
        queue.add(key)
    assert drain(queue) == ["a", "b"]


def test_a_key_in_a_worker_is_given_to_no_other(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert drain(queue) == []
    queue.done("a")
    assert drain(queue) == ["a"]


def test_a_delayed_key_comes_when_it_is_due(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5)
    assert drain(queue) == []
    clock.now += 5
    assert drain(queue) == ["a"]


def test_the_earliest_delay_counts(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5)
    queue.add_after("a", 1)
    queue.add_after("a", 9)
    clock.now += 1
    assert drain(queue) == ["a"]
    clock.now += 20
    assert drain(queue) == []


def test_no_delay_is_now(queue: WorkQueue[str]) -> None:
    queue.add_after("a", 0)
    assert drain(queue) == ["a"]


def test_a_sync_leaves_an_earlier_delay_alone(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5)
    queue.add("a")
    assert drain(queue) == ["a"]
    clock.now += 5
    assert drain(queue) == ["a"]


def test_failures_back_off_until_forgotten(queue: WorkQueue[str], clock: Clock) -> None:
    for _ in range(3):
        queue.add_rate_limited("a")
        clock.now += 1
        assert drain(queue) == ["a"]
    queue.add_rate_limited("a")
    clock.now += 0.039
    assert drain(queue) == []
    clock.now += 0.002
    assert drain(queue) == ["a"]
    queue.forget("a")
    queue.add_rate_limited("a")
    clock.now += 0.006
    assert drain(queue) == ["a"]


def test_backoff_doubles_up_to_a_cap() -> None:
    clock = Clock()
    limiter: RateLimiter[str] = RateLimiter(clock)
    delays = []
    for _ in range(2000):
        clock.now += 1
        delays.append(limiter.delay("a"))
    assert delays[:4] == [0.005, 0.01, 0.02, 0.04]
    assert delays[-1] == 1000


def test_many_failing_keys_share_a_bucket() -> None:
    limiter: RateLimiter[int] = RateLimiter(Clock())
    delays = [limiter.delay(key) for key in range(int(RETRIES_BURST) + 10)]
    assert delays[int(RETRIES_BURST) - 1] == 0.005
    assert delays[-1] == pytest.approx(1.0)


def test_shut_down_wakes_waiting_workers(queue: WorkQueue[str]) -> None:
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.shut_down()
    worker.join(30)
    assert got == [None]
    queue.add("a")
    assert queue.get() is None


def test_a_waiting_worker_gets_a_delayed_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.add_after("a", 0.02)
    worker.join(30)
    assert got == ["a"]
