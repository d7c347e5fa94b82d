"""Which requests are too slow beside the others of their origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from agent.engine.job import Segment
from agent.engine.pace import ENOUGH, LOOK_SECONDS, Pace
from agent.structs.remote import RemoteFile

if TYPE_CHECKING:
    from agent.engine.job import FileJob

MIB = 1 << 20


class _Job:
    received = 0


class _File:
    job, done = _Job(), 0
    remote = RemoteFile("m.bin", "m.bin", 100 * MIB, '"1"')


def request(begun: int = 0, end: int | None = 10 * MIB) -> Segment:
    """A request that has brought nothing yet, since the beginning."""
    file = cast("FileJob", _File())
    return Segment(file, begun, end, 0, 0.0)


def looks(pace: Pace, requests: list[Segment], received: int, at: int) -> list[Segment]:
    """What is to be hedged at the look number `at`, a second after the last one."""
    return pace.look(requests, received, 100.0 + at * LOOK_SECONDS)[0]


def test_the_slow_one_of_a_burst_that_was_over_before_the_first_look() -> None:
    pace, slow = Pace(), request()
    assert looks(pace, [slow], 50 * MIB, 0) == []
    assert looks(pace, [slow], 50 * MIB, 1) == []
    assert looks(pace, [slow], 50 * MIB, 2) == [slow]


def test_one_connection_is_compared_with_nobody() -> None:
    pace, alone = Pace(), request(end=100 * MIB)
    for at in range(20):
        alone.position += MIB if at % 2 else 2 * MIB
        assert looks(pace, [alone], alone.position, at) == []


def test_the_slow_one_among_others_is_hedged_and_they_are_not() -> None:
    pace, others = Pace(), [request() for _ in range(ENOUGH)]
    slow, received, hedged = request(), 0, []
    for at in range(4):
        for other in others:
            other.position += MIB
        received += ENOUGH * MIB
        hedged += looks(pace, [*others, slow], received, at)
    assert set(hedged) == {slow}
