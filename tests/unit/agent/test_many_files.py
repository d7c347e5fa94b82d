"""A model of many files takes little more than its listing, and work in proportion to them."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from agent.commands.assemble import own_credentials
from agent.disk.staging import SYNC_EACH, Staging
from agent.disk.store import Store
from agent.engine import job
from agent.engine.engine import Engine
from agent.jobs.download import Download
from agent.sources import Sources
from agent.structs.manifest import CacheName
from agent.structs.requests import Request
from crds.keys import model_key
from tests.unit.agent.growth import MOST
from tests.unit.agent.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Models of a thousand files, counted call by call.
pytestmark = pytest.mark.timeout(60)

URI = "mem://model"
FEW, MANY = 250, 1000
# The most that a file takes at any time of its download, beside its listing and its content. With
# all that is made for a file in work it was 4,300.
FILE_BYTES = 1500


def many(count: int) -> Memory:
    return Memory({f"shards/{n % 7}/part-{n:06d}.safetensors": b"%06d" % n for n in range(count)})


def prepare(folder: Path, source: Memory) -> Callable[[], object]:
    store = Store(folder)
    folder.mkdir()
    store.open()
    store.recover()
    return Download(
        Request(model_key(URI), URI, (CacheName(name="m"),)),
        sources=Sources({"mem": source}),
        store=store,
        engine=Engine(jitter=lambda: 0.0),
        credentials=own_credentials,
        cancelled=threading.Event(),
        report=lambda _: None,
    ).run


def most_bytes(work: Callable[[], object]) -> int:
    """The most that Python holds at a time for it."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def calls_of_all(work: Callable[[], object]) -> int:
    """How many functions of Python all threads call that begin with it."""
    counts: dict[int, int] = {}

    def saw(_frame: Any, event: str, _argument: Any) -> None:
        if event == "call":
            thread = threading.get_ident()
            counts[thread] = counts.get(thread, 0) + 1

    threading.setprofile(saw)
    sys.setprofile(saw)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return sum(counts.values())


def test_what_a_file_takes(tmp_path: Path) -> None:
    prepare(tmp_path / "warm", many(2))()
    few, more = (most_bytes(prepare(tmp_path / str(count), many(count))) for count in (FEW, MANY))
    assert (more - few) / (MANY - FEW) < FILE_BYTES


def test_work_for_a_file(tmp_path: Path) -> None:
    prepare(tmp_path / "warm", many(2))()
    # Both are more than those that are synced one by one.
    assert FEW > SYNC_EACH
    few, more = (calls_of_all(prepare(tmp_path / str(count), many(count))) for count in (FEW, MANY))
    assert more <= MOST * few, f"{few} calls for {FEW}, and {more} for {MANY}"


@pytest.mark.parametrize("is_here", [False, True], ids=["new", "resumed"])
def test_few_files_are_in_work_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_here: bool
) -> None:
    source = many(MANY)
    staging = Staging(tmp_path)
    seen: list[int] = []
    begin = job.Job.begin

    def counted(self: job.Job, remote: Any) -> job.FileJob:
        file = begin(self, remote)
        seen.append(len(self.files))
        return file

    monkeypatch.setattr(job.Job, "begin", counted)
    engine = Engine(jitter=lambda: 0.0)

    def fetch() -> None:
        model = source.resolve(URI, own_credentials(), None)
        staging.begin(URI, None, model.files)
        try:
            found = engine.fetch(
                model,
                staging,
                priority=0,
                cancelled=threading.Event(),
                later=False,
                report=lambda _: None,
            )
            assert [file.path for file in found] == list(source.contents)
        finally:
            staging.close()

    fetch()
    if is_here:
        seen.clear()
        source.opened.clear()
        fetch()
        assert source.opened == []
    assert len(seen) == MANY
    # Those in turn, and one for each thread that is about to seal it.
    assert max(seen) <= 2 * job.OPEN_FILES + engine._threads
