"""When a download will be complete, how long the last one took, and what that costs in writes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from agent.disk.on_disk import Disk
from agent.disk.store import Store
from agent.jobs.download import Progress
from agent.jobs.workers import Task
from agent.structs.requests import Request
from tests.unit.agent.crowded import entry, models, prepare

if TYPE_CHECKING:
    from tests.unit.agent.world import World

BEGIN = datetime(2026, 8, 1, tzinfo=UTC)
MIB = 1 << 20
TOTAL = 700_000 * MIB


class Running:
    """A running download, whose seconds and bytes the test sets."""

    def __init__(self) -> None:
        self.task = Task(Request("k", "s3://b/m", ()), sampled_at=0.0)
        self.seconds, self.done = 0.0, 0

    def pass_by(self, seconds: float, mib: int) -> float | None:
        """Some seconds pass, in which so much comes. Returns the seconds that are left."""
        self.seconds += seconds
        self.done += mib * MIB
        self.task.progress = Progress(self.done, TOTAL)
        now = BEGIN + timedelta(seconds=self.seconds)
        at = self.task.transfer(self.seconds, now).completion_time
        return (at - now).total_seconds() if at else None


def test_at_a_steady_rate_the_estimate_is_exact() -> None:
    download = Running()
    ends = {download.seconds + (download.pass_by(15, 1500) or 0) + 15 for _ in range(100)}
    assert max(ends) - min(ends) <= 1
    assert 6999 <= max(ends) <= 7001


def test_a_short_change_of_the_rate_moves_the_estimate_little() -> None:
    download = Running()
    for _ in range(40):
        before = download.pass_by(15, 1500)
    # The rate of the sample is a tenth.
    slow = download.pass_by(15, 150)
    assert before
    assert slow
    assert slow < 1.5 * before
    # And a lasting change is followed within minutes.
    for _ in range(20):
        lasting = download.pass_by(15, 150)
    rest = (TOTAL - download.done) / (10 * MIB)
    assert lasting == pytest.approx(rest, rel=0.1)


def test_while_nothing_comes_there_is_no_estimate() -> None:
    """It would move with the clock, and each step would be a write of the status."""
    download = Running()
    assert download.pass_by(15, 1500)
    assert download.pass_by(15, 0) is None
    assert download.pass_by(15, 1500)
    # Between two samples, too, it stays as it is.
    at = download.task.transfer(download.seconds + 0.5, BEGIN).completion_time
    assert at == download.task.transfer(download.seconds, BEGIN).completion_time


def test_there_is_no_estimate_without_a_size_or_beyond_a_year() -> None:
    task = Task(Request("k", "s3://b/m", ()), sampled_at=0.0)
    task.progress = Progress(5, None)
    assert task.transfer(15, BEGIN).completion_time is None
    task.progress = Progress(6, 1 << 62)
    assert task.transfer(30, BEGIN).completion_time is None
    task.progress = Progress(10, 10)
    assert task.transfer(45, BEGIN).completion_time is None


def test_the_status_has_the_estimate_and_how_long_it_took(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other programs' use of the disk is a write, too.
    monkeypatch.setattr(Store, "disk", lambda _: Disk(1 << 40, 0, 1 << 40))
    prepare(world)
    world.web.gate = threading.Event()
    world.want(*models(world, "a"))
    world.settle_until(lambda: bool(world.active()))
    task = world.download("a")
    world.step(5)
    task.progress = Progress(100_000, 700_001)
    world.step(15)
    found = entry(world, "a")
    assert found["bytesPerSecond"] == 5000
    assert found["estimatedCompletionTime"] == f"{world.now() + timedelta(seconds=121):%FT%TZ}"
    # Nothing comes: one write says so, and then there is none.
    world.step(15)
    assert "estimatedCompletionTime" not in entry(world, "a")
    world.loop.observe(world.api.node)
    writes = len(world.api.writes)
    for _ in range(5):
        world.step(15)
    assert len(world.api.writes) == writes
    world.web.gate.set()
    world.settle()
    done = entry(world, "a")
    assert done["lastDownloadSeconds"] == 110
    assert done["downloadedTime"] == f"{world.now():%FT%TZ}"
    assert "estimatedCompletionTime" not in done
    # A restart, a use and a repair change none of it.
    world.restart()
    world.loop.observe_pods(())
    world.want(*models(world, "a"))
    world.step(100)
    world.settle()
    assert entry(world, "a")["lastDownloadSeconds"] == 110
    assert entry(world, "a")["downloadedTime"] == done["downloadedTime"]
    (world.root / "models" / world.key("a") / "a.bin").write_bytes(b"short")
    world.step(60)
    world.settle()
    assert entry(world, "a")["lastDownloadSeconds"] == 110
    assert entry(world, "a")["downloadedTime"] == done["downloadedTime"]
