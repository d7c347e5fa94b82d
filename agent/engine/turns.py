"""In which order jobs are asked for their next segment. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from agent.engine.job import OPEN_FILES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.engine.job import Job


@dataclass(slots=True)
class Crowd:
    """The jobs of equal rank from one origin: their files with missing bytes, and these bytes."""

    files: int = 0
    left: int = 0


def in_turn(jobs: Iterable[Job]) -> list[tuple[Job, Crowd]]:
    """The jobs, given in their order, in the order of their turns.

    Those of higher rank come first. Among equals, the files in work take turns as if they were of
    one model: with as many of them as connections, each file is read in order and digested as it
    is written. The first jobs come into work until they have OPEN_FILES: a large model is complete
    before the next one, since a part of a model is of no use.
    """
    crowds: dict[tuple[tuple[bool, int], str], Crowd] = defaultdict(Crowd)
    turns: list[tuple[Job, Crowd]] = []
    for rank, equals in groupby(((job.rank, job) for job in jobs), key=lambda one: one[0]):
        in_work: list[tuple[Job, Crowd]] = []
        later: list[tuple[Job, Crowd]] = []
        files = 0
        for _, job in equals:
            crowd = crowds[rank, job.remote.origin]
            (in_work if files < OPEN_FILES else later).append((job, crowd))
            count = len(job.turn) + len(job.waiting)
            files += count
            crowd.files += count
            crowd.left += job.left
        turns += sorted(in_work, key=lambda one: one[0].last_turn)
        turns += later
    return turns
