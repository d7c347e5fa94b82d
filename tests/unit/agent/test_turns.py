"""In which order the jobs of one engine get their segments."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import pytest

from agent.disk.blocks import Gap
from agent.disk.staging import Staging
from agent.engine.job import OPEN_FILES, Job
from agent.engine.ranges import MAX_LONE_RANGE_BYTES
from agent.engine.turns import Crowd, in_turn
from tests.unit.agent.memory import Memory

if TYPE_CHECKING:
    from pathlib import Path

    from agent.engine.job import Segment

MIB = 1 << 20


class Jobs:
    """Jobs, in the order in which they began, of which segments are taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.all: list[Job] = []
        self.now = 0.0

    def add(
        self, files: int, *, size: int = 64 * MIB, priority: int = 0, origin: str = "mem://a"
    ) -> Job:
        number = len(self.all)
        sizes: dict[str, int | None] = {f"{number}/{n}": size for n in range(files)}
        remote = Memory(dict.fromkeys(sizes, b""), sizes, origin=origin)
        staging = Staging(self.folder / str(number))
        staging.begin("mem://model", None, remote.files)
        job = Job(remote, staging, priority, number, threading.Event())
        job.arrange()
        self.all.append(job)
        self.all.sort(key=lambda one: one.order)
        return job

    def take(self, count: int, connections: int = 4) -> list[Segment]:
        """The next segments, with connections of which each fetches one."""
        taken: list[Segment] = []
        while len(taken) < count:
            self.now += 1.0
            turns = in_turn(self.all)
            found = (job.take(self.now, connections, *_of(crowd)) for job, crowd in turns)
            segment = next(filter(None, found), None)
            if segment is None:
                break
            taken.append(segment)
        return taken


def _of(crowd: Crowd) -> tuple[int, int]:
    return crowd.files, crowd.left


def paths(segments: list[Segment]) -> list[str]:
    return [segment.file.remote.path for segment in segments]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def test_files_of_several_models_take_turns_like_those_of_one(jobs: Jobs, tmp_path: Path) -> None:
    for _ in range(8):
        jobs.add(1, size=128 * MIB)
    one = Jobs(tmp_path / "one")
    one.add(8, size=128 * MIB)
    several, alone = jobs.take(100), one.take(100)
    assert paths(several)[:9] == [*(f"{n}/0" for n in range(8)), "0/0"]
    # The same ranges, which are as large as for files that are read in order.
    assert [(at.position, at.end) for at in several] == [(at.position, at.end) for at in alone]
    assert several[0].end == MAX_LONE_RANGE_BYTES


def test_a_model_with_one_file_has_one_turn_beside_one_with_several(jobs: Jobs) -> None:
    jobs.add(3, size=128 * MIB)
    jobs.add(1, size=128 * MIB)
    assert paths(jobs.take(8)) == 2 * ["0/0", "0/1", "0/2", "1/0"]


def test_a_model_that_begins_later_is_next(jobs: Jobs) -> None:
    jobs.add(2, size=1 << 30)
    jobs.take(5)
    jobs.add(1, size=1 << 30)
    assert paths(jobs.take(3)) == ["1/0", "0/1", "0/0"]


def test_a_model_with_many_files_is_complete_before_the_next_one(jobs: Jobs) -> None:
    jobs.add(OPEN_FILES + 4)
    jobs.add(1)
    taken = paths(jobs.take(100))
    # The last of its files are in work when the next model begins.
    begun = taken.index("1/0")
    assert {path for path in taken[:begun] if path.startswith("0/")} == set(taken[:begun])
    assert len(set(taken[:begun])) > OPEN_FILES


def test_a_later_model_gets_what_the_first_leaves(jobs: Jobs) -> None:
    first = jobs.add(OPEN_FILES)
    jobs.add(1)
    # As after failures: nothing may be asked for yet.
    jobs.take(1)
    for file in first.turn:
        file.gaps = deque([Gap(0, 64 * MIB, not_before=1e9)])
    assert paths(jobs.take(1)) == ["1/0"]


def test_higher_ranks_come_first_and_their_size_counts_alone(jobs: Jobs) -> None:
    low = jobs.add(8)
    high = jobs.add(2, priority=1)
    found = {id(job): crowd for job, crowd in in_turn(jobs.all)}
    assert found[id(high)] == Crowd(2, 128 * MIB)
    assert found[id(low)] == Crowd(8, 512 * MIB)
    taken = paths(jobs.take(100))
    assert set(taken[: taken.index("0/0")]) == {"1/0", "1/1"}
    assert not {"1/0", "1/1"} & set(taken[taken.index("0/0") :])


def test_files_of_other_origins_do_not_make_ranges_larger(jobs: Jobs) -> None:
    jobs.add(1)
    jobs.add(5, origin="mem://b")
    assert [crowd.files for _, crowd in in_turn(jobs.all)] == [1, 5]
