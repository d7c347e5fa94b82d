"""How the number of connections grows, with origins, nodes and links that are simulated."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from agent.engine.connection_limit import (
    FEW_CONNECTIONS,
    HOLD_SECONDS,
    START_CONNECTIONS,
    ConnectionLimit,
    Sample,
)

MIB = 1 << 20
TICK = 0.1


@dataclass
class Path:
    """What bytes pass on their way, in MiB per second: origin, link, CPU and disk."""

    each: float = 50.0
    link: float = 1e6
    cpu: float = 1e6
    disk: float = 1e6
    # When the first bytes come, and from when on the disk takes some.
    first_bytes: float = 0.0
    disk_from: float = 0.0
    # What an origin that throttles a client with more connections than `allowed` sends.
    allowed: int = 64
    throttled: float = 1.0
    # Whether others keep the node's CPUs busy: threads wait for one, and yet nearly all the time
    # for bytes.
    others: bool = False

    def rate(self, connections: int, now: float) -> float:
        if now < max(self.first_bytes, self.disk_from):
            return 0.0
        sent = self.throttled if connections > self.allowed else connections * self.each
        return min(sent, self.link, self.cpu, self.disk)

    def sample(self, received: float, connections: int, now: float) -> Sample:
        sent = min(connections * self.each, self.link)
        on_disk = now < self.disk_from or self.disk < min(sent, self.cpu)
        on_cpu = not on_disk and self.cpu < sent
        awaiting = 0.1 if on_disk else 0.4 if on_cpu else 0.95
        return Sample(int(received * MIB), now, True, awaiting, on_cpu or self.others)


@dataclass
class Run:
    """A limit that is sampled ten times a second. `steps` has each number and since when."""

    limit: ConnectionLimit = field(default_factory=ConnectionLimit)
    received: float = 0.0
    ticks: int = 0
    steps: list[tuple[float, int]] = field(default_factory=list)

    def go_on(self, path: Path, seconds: float) -> Run:
        for _ in range(round(seconds / TICK)):
            now = self.now
            self.limit.sample(path.sample(self.received, self.limit.now, now))
            if not self.steps or self.steps[-1][1] != self.limit.now:
                self.steps.append((round(now, 1), self.limit.now))
            self.received += TICK * path.rate(self.limit.now, now)
            self.ticks += 1
        return self

    @property
    def now(self) -> float:
        return self.ticks * TICK

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.steps]


def test_connections_that_the_origin_holds_grow_before_their_gain_is_judged() -> None:
    run = Run().go_on(Path(each=50), 20)
    assert run.steps == [(0.0, 4), (0.1, 16), (0.3, 32), (0.5, 64)]


def test_a_far_origin_gets_the_first_connections_before_its_first_byte() -> None:
    run = Run().go_on(Path(each=50, first_bytes=0.5), 3)
    assert run.steps[:2] == [(0.0, 4), (0.1, 16)]
    assert run.limit.now == 64


def test_slow_connections_are_judged_before_their_number_grows() -> None:
    # A tick's rate is not exact: a piece is received after several of them.
    run = Run().go_on(Path(each=2), 3)
    assert [(round(at), number) for at, number in run.steps[1:3]] == [(0, 16), (1, 32)]
    assert run.steps[2][0] >= 0.5


@pytest.mark.parametrize("link", [20, 100, 400, 1000, 1500])
def test_a_full_link_gets_no_more_connections_than_fill_it(link: float) -> None:
    run = Run().go_on(Path(each=50, link=link), HOLD_SECONDS)
    # One step more than fills it, which is undone.
    assert run.limit.now == max(START_CONNECTIONS, 32 if link > 800 else 0)
    assert max(run.numbers) == 2 * run.limit.now
    # It is tried again after a while.
    run.steps.clear()
    run.go_on(Path(each=50, link=link), HOLD_SECONDS)
    assert sorted(set(run.numbers)) == [run.limit.now, 2 * run.limit.now]


def test_a_busy_cpu_gets_no_more_connections() -> None:
    run = Run().go_on(Path(each=300, cpu=600), 60)
    assert run.numbers == [FEW_CONNECTIONS]


def test_a_cpu_that_sixteen_connections_keep_busy_gets_no_more_and_no_fewer() -> None:
    run = Run().go_on(Path(each=50, cpu=700), 60)
    assert run.numbers == [4, 16]


def test_fewer_connections_are_tried_where_they_could_bring_as_much() -> None:
    # As after a model of which the origin held each connection.
    run = Run().go_on(Path(each=50), 5)
    assert run.limit.now == 64
    run.limit.resume()
    run.go_on(Path(each=300, cpu=600), 60)
    assert run.numbers[-4:] == [32, 16, 8, FEW_CONNECTIONS]


def test_fewer_connections_that_bring_less_are_undone() -> None:
    run = Run().go_on(Path(each=50), 5)
    run.limit.resume()
    run.go_on(Path(each=50, cpu=3000), HOLD_SECONDS)
    assert run.numbers[-3:] == [64, 32, 64]
    # They are known to bring less, and not tried again.
    run.go_on(Path(each=50, cpu=3000), 2 * HOLD_SECONDS)
    assert run.numbers[-3:] == [64, 32, 64]


def test_a_cpu_that_others_keep_busy_does_not_hold_up_connections_that_wait_for_bytes() -> None:
    run = Run().go_on(Path(each=50, others=True), 3)
    assert run.limit.now == 64
    assert run.steps[:2] == [(0.0, 4), (0.3, 16)]
    # Each step is judged.
    judged = itertools.pairwise(at for at, _ in run.steps[1:])
    assert all(after - before >= 0.3 for before, after in judged)


def test_a_disk_that_is_full_of_work_gets_no_more_connections() -> None:
    run = Run().go_on(Path(each=100, disk=500), 60)
    assert run.numbers == [4, 16]


def test_while_the_disk_makes_room_nothing_is_learned_of_the_origin() -> None:
    run = Run().go_on(Path(each=300, cpu=600, disk_from=0.5), 10)
    assert run.numbers == [FEW_CONNECTIONS]
    run = Run().go_on(Path(each=50, disk_from=0.5), 10)
    assert run.steps[:2] == [(0.0, 4), (0.6, 16)]
    assert run.limit.now == 64


@pytest.mark.parametrize("allowed", [16, 32, 63])
def test_an_origin_that_throttles_too_many_connections_gets_fewer(allowed: int) -> None:
    run = Run().go_on(Path(each=50, allowed=allowed), 5)
    tried, last = run.steps[-2], run.steps[-1]
    assert tried[1] > allowed >= last[1] == tried[1] // 2
    assert last[0] - tried[0] <= 0.8


def test_an_origin_that_begins_to_throttle_gets_fewer_connections() -> None:
    run = Run().go_on(Path(each=50), 5)
    assert run.limit.now == 64
    run.go_on(Path(each=50, allowed=32), 1)
    assert run.limit.now == 32


def test_a_refusal_lowers_the_number_and_holds_it() -> None:
    run = Run().go_on(Path(each=50), 0.4)
    assert run.limit.now == 32
    run.limit.refused(0.4, receiving=10)
    run.go_on(Path(each=50), HOLD_SECONDS - 1)
    assert run.limit.now == 10
    run.go_on(Path(each=50), 3)
    assert run.limit.now > 10


@pytest.mark.parametrize("most", [1, 3, 8, 20, 64])
def test_no_more_connections_than_the_limit(most: int) -> None:
    run = Run(ConnectionLimit(most=most)).go_on(Path(each=50), 5)
    assert run.limit.now == max(run.numbers) == most


def test_idle_connections_say_nothing() -> None:
    limit = ConnectionLimit()
    for tick in range(100):
        limit.sample(Sample(tick * 500 * MIB, tick * TICK, busy=False))
    assert limit.now == START_CONNECTIONS


def test_a_burst_of_refusals_counts_once() -> None:
    run = Run().go_on(Path(each=50), 5)
    for _ in range(10):
        run.limit.refused(run.now)
    assert run.limit.now == 32
    assert run.go_on(Path(each=50), HOLD_SECONDS - 1).limit.now == 32
    assert run.go_on(Path(each=50), 3).limit.now == 64
    for n in range(1, 20):
        run.limit.refused(run.now + 10 * n)
    assert run.limit.now == 1


def test_a_limit_holds_at_once_and_growth_follows_when_it_is_raised() -> None:
    run = Run()
    run.limit.cap(4)
    assert run.go_on(Path(each=50), 3).limit.now == 4
    run.limit.cap(64)
    assert run.go_on(Path(each=50), 3).limit.now == 64


def test_a_pause_ends_within_a_limit_that_was_lowered_meanwhile() -> None:
    run = Run().go_on(Path(each=50), 0.6)
    assert run.limit.now == 64
    run.limit.cap(4)
    run.limit.resume()
    assert run.limit.now == 4


def test_neither_a_pause_nor_a_slower_origin_after_it_is_a_collapse() -> None:
    run = Run().go_on(Path(each=50, allowed=32), 0.6)
    assert run.limit.now == 64
    run.ticks += 36_000
    run.limit.resume()
    assert run.limit.now == 32
    assert run.go_on(Path(each=0.05), 1).limit.now >= 32


def test_a_pause_undoes_a_step_that_was_not_judged() -> None:
    run = Run().go_on(Path(each=2), 0.8)
    assert run.limit.now == 32
    run.limit.resume()
    assert run.limit.now == 16
    # What the pause interrupted is no measure for the next model.
    assert run.go_on(Path(each=50), 0.4).limit.now == 16
