"""Which failed requests end a model, and which are those of an origin with few connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from agent.disk.blocks import Blocks, Gap
from agent.engine.failed_ranges import set_back
from agent.engine.job import Segment
from agent.engine.origins import Origin
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import RemoteFile

if TYPE_CHECKING:
    from agent.engine.job import FileJob

MIB = 1 << 20
CLOSED = DownloadError(FailureKind.UNREACHABLE, "the connection broke")
# More than the attempts of any kind of failure.
MANY = 20


class _Staged:
    blocks = Blocks(100 * MIB)


class _Job:
    swarm = None

    def __init__(self) -> None:
        self.received = 0
        self.from_origin: set[Segment] = set()
        self.given_back = [Gap(MIB, 2 * MIB)]

    def give_back(self, _: object, gap: Gap) -> None:
        self.given_back.append(gap)


class _File:
    remote = RemoteFile("m.bin", "m.bin", 100 * MIB, '"1"')
    staged, done = _Staged(), 0

    def __init__(self) -> None:
        self.job = _Job()
        self.active: set[Segment] = set()

    def adapt_to(self, _: object) -> None:
        """It still has ranges."""

    def request(self, gap: Gap) -> Segment:
        file = cast("FileJob", self)
        return Segment(file, gap.start, gap.end, gap.attempts, 0.0, gap.received)


def failures(comes: int) -> list[BaseException | None]:
    """What follows from requests for a range that are refused one after the other.

    Each fails before the first byte of another one that began with it, and which brings `comes`
    bytes afterwards.
    """
    file, origin, found = _File(), Origin(), []
    for n in range(MANY):
        other = file.request(Gap(2 * MIB, 3 * MIB))
        file.active = file.job.from_origin = {other}
        segment = file.request(file.job.given_back.pop())
        found.append(set_back(segment, CLOSED, origin, float(n), 0.0))
        if found[-1] is not None:
            break
        file.job.received += comes
    return found


def test_closed_connections_of_a_model_that_comes_are_a_limit() -> None:
    assert failures(MIB) == [None] * MANY


def test_closed_connections_of_a_model_that_does_not_come_end_it() -> None:
    assert failures(0) == [None] * 4 + [CLOSED]
