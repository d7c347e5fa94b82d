from __future__ import annotations

import errno
import gc
import hashlib
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from agent.commands.assemble import own_credentials
from agent.disk.blocks import BLOCK_BYTES
from agent.disk.staging import Staging
from agent.engine import job, range_retries, ranges
from agent.engine.connection_shares import PATIENCE_SECONDS, Shares
from agent.engine.engine import Engine
from agent.engine.job import Fetched, FileChangedError
from agent.engine.limits import Limits
from agent.structs.causes import unreachable
from agent.structs.failures import CancelledError, DownloadError, FailureKind
from agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile
from tests.unit.agent.helpers import remembered
from tests.unit.agent.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
BIG = os.urandom(9 * MIB + 12_345)
URI = "mem://model"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ranges and no long waits."""
    monkeypatch.setattr(ranges, "MIN_RANGE_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(job, "DIGEST_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(range_retries, "_DEFAULT_BASE_SECONDS", 0.001)
    monkeypatch.setitem(range_retries._BASE_SECONDS, FailureKind.THROTTLED, 0.01)


class Fetch:
    """One model's way into a folder."""

    def __init__(self, folder: Path, source: Memory, engine: Engine | None = None) -> None:
        self.source, self.engine = source, engine or Engine(jitter=lambda: 0.0)
        self.staging = Staging(folder)
        self.cancelled = threading.Event()
        self.urgent = threading.Event()
        self.progress: list[int] = []

    def run(self, *, later: bool = False, priority: int = 0, owner: str = "") -> dict[str, Fetched]:
        remote = self.source.resolve(URI, own_credentials(), None)
        try:
            self.staging.begin(URI, None, remote.files)
            found = self.engine.fetch(
                remote,
                self.staging,
                priority=priority,
                is_urgent=self.urgent.is_set,
                owner=owner,
                cancelled=self.cancelled,
                later=later,
                report=self.progress.append,
            )
            self.staging.sync()
        finally:
            self.staging.close()
        return {file.path: file for file in found}

    def check(self, *, later: bool = False) -> dict[str, Fetched]:
        """Run, and compare each byte and digest."""
        found = self.run(later=later)
        assert found.keys() == self.source.contents.keys()
        for path, content in self.source.contents.items():
            assert self.staging.path(path).read_bytes() == content
            assert found[path].size == len(content)
            if not later:
                assert found[path].sha256 == hashlib.sha256(content).hexdigest()
        return found


@pytest.mark.parametrize(
    "contents",
    [
        {"one": BIG},
        {"empty": b""},
        {"a": b"1", "deep/er/b": BIG[: 3 * MIB], "c": b"", "d": BIG[:MIB]},
        {f"{n % 7}/{n}": BIG[n * 10 : n * 1000] for n in range(300)},
        {"exact": BIG[: 4 * BLOCK_BYTES]},
    ],
    ids=["one", "empty", "some", "many", "whole-blocks"],
)
@pytest.mark.parametrize("piece", [MIB, 100_001])
def test_every_byte_arrives_and_is_digested(
    tmp_path: Path, contents: dict[str, bytes], piece: int
) -> None:
    fetch = Fetch(tmp_path / "s", Memory(contents, piece=piece))
    fetch.check()
    assert fetch.progress[-1] == sum(map(len, contents.values()))
    assert fetch.progress == sorted(fetch.progress)
    # Each byte is asked for once.
    assert fetch.source.sent == {path: len(data) for path, data in contents.items() if data}
    assert fetch.source.open_now == 0


def test_a_fault_after_the_last_byte_is_one_models(tmp_path: Path) -> None:
    engine = Engine()

    def fail(_path: str, start: int, end: int | None) -> None:
        if (start, end) == (0, 1):
            raise RuntimeError("of a library")

    checked = replace(RemoteFile("f", "f", len(BIG), "v1"), recheck=True)
    source = Memory({"f": BIG}, on_open=fail)
    with patch.object(Memory, "files", (checked,)), pytest.raises(DownloadError) as failed:
        Fetch(tmp_path / "s", source, engine).run()
    assert failed.value.kind is FailureKind.INTERNAL
    Fetch(tmp_path / "t", Memory({"f": BIG}), engine).check()


@pytest.mark.timeout(60)  # collects garbage until the engine's threads have ended their turns
def test_nothing_of_a_model_is_kept_once_it_is_here(tmp_path: Path) -> None:
    engine = Engine()
    source = Memory({f"f{number}": BIG[: 2 * MIB] for number in range(20)})
    Fetch(tmp_path / "s", source, engine).check()
    kept, source = weakref.ref(source), Memory({})
    for _ in range(100):
        # The threads end their turns a moment later.
        gc.collect()
        if kept() is None:
            break
        time.sleep(0.05)
    assert kept() is None


@pytest.mark.parametrize("announced", [True, False])
def test_one_stream_where_there_are_no_ranges(tmp_path: Path, announced: bool) -> None:
    sizes: dict[str, int | None] = {} if announced else {"one": None}
    source = Memory({"one": BIG}, sizes, ranges=False, piece=MIB)
    Fetch(tmp_path / "s", source).check()
    assert source.opened == [("one", 0, len(BIG) if announced else None)]


def test_server_that_ignores_ranges_is_read_in_one_stream(tmp_path: Path) -> None:
    source = Memory({"one": BIG}, ignores_ranges=True)
    Fetch(tmp_path / "s", source).check()
    assert source.opened[-1] == ("one", 0, len(BIG))


def test_stream_that_breaks_starts_over_where_there_are_no_ranges(tmp_path: Path) -> None:
    source = Memory({"one": BIG}, ranges=False, piece=MIB, on_read=breaks_at(5 * MIB))
    Fetch(tmp_path / "s", source).check()
    assert source.opened == 2 * [("one", 0, len(BIG))]


def breaks_at(*positions: int) -> Callable[[str, int], None]:
    """Breaks once at each position."""
    left = list(positions)
    lock = threading.Lock()

    def on_read(_path: str, position: int) -> None:
        with lock:
            found = next((p for p in left if p <= position < p + MIB), None)
            if found is None:
                return
            left.remove(found)
        raise unreachable(ConnectionResetError(), "mem")

    return on_read


def test_range_that_breaks_goes_on_where_it_broke(tmp_path: Path) -> None:
    source = Memory({"one": BIG}, piece=100_000, on_read=breaks_at(*range(0, len(BIG), MIB)))
    Fetch(tmp_path / "s", source).check()
    assert source.sent["one"] == len(BIG)
    assert len(source.opened) > 9


def test_range_that_always_breaks_is_given_up(tmp_path: Path) -> None:
    def on_read(_path: str, position: int) -> None:
        if position > 6 * MIB:
            raise unreachable(ConnectionResetError(), "mem")

    source = Memory({"one": BIG}, on_read=on_read)
    fetch = Fetch(tmp_path / "s", source)
    with pytest.raises(DownloadError) as caught:
        fetch.run()
    assert caught.value.kind is FailureKind.UNREACHABLE
    # What came is not asked for again.
    source.on_read = lambda *_: None
    before = source.sent["one"]
    assert before > 5 * MIB
    fetch.check()
    assert source.sent["one"] <= len(BIG) + 2 * 16 * BLOCK_BYTES


@pytest.mark.parametrize(
    "kind", [FailureKind.NOT_FOUND, FailureKind.DENIED, FailureKind.TLS, FailureKind.UNSUPPORTED]
)
def test_what_no_retry_mends_is_told_at_once(tmp_path: Path, kind: FailureKind) -> None:
    def on_open(*_: object) -> None:
        raise DownloadError(kind, "no")

    fetch = Fetch(tmp_path / "s", Memory({"one": BIG}, on_open=on_open))
    with pytest.raises(DownloadError) as caught:
        fetch.run()
    assert caught.value.kind is kind
    assert len(fetch.source.opened) <= 16


def test_throttled_origin_gets_fewer_connections_and_is_waited_for(tmp_path: Path) -> None:
    refusals = iter(range(6))

    def on_open(*_: object) -> None:
        if next(refusals, None) is not None:
            raise DownloadError(FailureKind.THROTTLED, "slow down", retry_after=0.05)

    source = Memory({"one": BIG}, on_open=on_open)
    fetch = Fetch(tmp_path / "s", source)
    fetch.check()
    assert remembered(fetch.engine, source.origin).limit.now < 16


def test_long_wait_that_an_origin_asks_for_is_the_models(tmp_path: Path) -> None:
    def on_open(*_: object) -> None:
        raise DownloadError(FailureKind.THROTTLED, "slow down", retry_after=120.0)

    with pytest.raises(DownloadError) as caught:
        Fetch(tmp_path / "s", Memory({"one": BIG}, on_open=on_open)).run()
    assert caught.value.retry_after == 120.0


def test_changed_file_is_named(tmp_path: Path) -> None:
    source = Memory({"a": BIG, "b": BIG[:MIB]})

    def on_read(path: str, position: int) -> None:
        if path == "a" and position > 4 * MIB:
            source.versions["a"] = "v2"

    source.on_read = on_read
    with pytest.raises(FileChangedError) as caught:
        Fetch(tmp_path / "s", source).run()
    assert caught.value.path == "a"
    assert caught.value.failure.kind is FailureKind.CHANGED


@pytest.mark.parametrize(
    "right",
    [
        Checksum(ChecksumAlgorithm.SHA256, hashlib.sha256(BIG).hexdigest()),
        Checksum(ChecksumAlgorithm.MD5, hashlib.md5(BIG).hexdigest()),
        Checksum(
            ChecksumAlgorithm.GIT_BLOB,
            hashlib.sha1(f"blob {len(BIG)}\0".encode() + BIG).hexdigest(),
        ),
    ],
    ids=lambda found: found.algorithm,
)
def test_checksum_of_the_store_is_compared(tmp_path: Path, right: Checksum) -> None:
    source = Memory({"one": BIG, "two": BIG[:MIB]}, checksums={"one": right})
    fetch = Fetch(tmp_path / "s", source)
    fetch.check(later=True)
    source.contents["one"] = BIG[:-1] + bytes([BIG[-1] ^ 1])
    source.versions["one"] = "v2"
    with pytest.raises(DownloadError) as caught:
        fetch.run()
    assert caught.value.kind is FailureKind.CORRUPT
    assert "one" in caught.value.message
    # Only the bad file is fetched again.
    source.contents["one"], before = BIG, source.sent["two"]
    fetch.check()
    assert source.sent["two"] == before


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [(ChecksumAlgorithm.CRC32C, "e3069283"), (ChecksumAlgorithm.CRC64NVME, "ae8b14860a799888")],
)
def test_cheap_checksum_leaves_ours_for_later(
    tmp_path: Path, algorithm: ChecksumAlgorithm, value: str
) -> None:
    # The check values that the CRCs are published with.
    source = Memory({"one": b"123456789"}, checksums={"one": Checksum(algorithm, value)})
    assert Fetch(tmp_path / "a", source).check(later=True)["one"].sha256 is None
    assert Fetch(tmp_path / "b", source).check()["one"].sha256 is not None
    source.contents["one"] = b"123456780"
    with pytest.raises(DownloadError) as caught:
        Fetch(tmp_path / "c", source).run(later=True)
    assert caught.value.kind is FailureKind.CORRUPT


def test_cancelled_fetch_ends_soon_and_touches_nothing_afterwards(tmp_path: Path) -> None:
    gate = threading.Event()
    source = Memory({"one": BIG}, piece=100_000)
    fetch = Fetch(tmp_path / "s", source)

    def on_read(_path: str, position: int) -> None:
        if position > MIB:
            fetch.cancelled.set()
            gate.wait(0.3)

    source.on_read = on_read
    began = time.monotonic()
    with pytest.raises(CancelledError):
        fetch.run()
    assert time.monotonic() - began < 3
    assert not fetch.engine._schedule._jobs
    source.on_read = lambda *_: None
    fetch.cancelled.clear()
    fetch.check()


def test_slow_range_gets_a_second_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.engine.pace.LOOK_SECONDS", 0.1)
    monkeypatch.setattr("agent.engine.pace.WORTH_SECONDS", 0.1)
    stuck = threading.Event()
    slow: list[int] = []

    def on_read(_path: str, position: int) -> None:
        time.sleep(0.02)
        if position == 0 and not slow:
            slow.append(position)
            stuck.wait(20)

    def on_abort() -> None:
        stuck.set()

    source = Memory({"one": BIG}, piece=50_000, on_read=on_read, on_abort=on_abort)
    began = time.monotonic()
    try:
        Fetch(tmp_path / "s", source).check()
    finally:
        stuck.set()
    assert time.monotonic() - began < 10
    assert [start for _, start, _ in source.opened].count(0) == 2


@pytest.mark.usefixtures("no_waiting")
def test_stream_that_is_as_good_as_dead_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engine.pace.LOOK_SECONDS", 0.1)

    def on_read(*_: object) -> None:
        time.sleep(0.05)

    source = Memory({"one": BIG[: 2 * MIB]}, piece=10, on_read=on_read)
    engine = Engine(jitter=lambda: 0.0, stall_seconds=0.3)
    with pytest.raises(DownloadError) as caught:
        Fetch(tmp_path / "s", source, engine).run()
    assert caught.value.kind is FailureKind.UNREACHABLE
    assert "too slowly" in caught.value.message


def test_limit_of_bytes_can_be_set_while_it_runs(tmp_path: Path) -> None:
    engine = Engine(Limits(bytes_per_second=4 * MIB))
    fetch = Fetch(tmp_path / "s", Memory({"one": BIG}), engine)
    began = time.monotonic()
    threading.Timer(1.0, engine.set_limits, [Limits()]).start()
    fetch.check()
    # A second at 4 MiB, and the rest at once.
    assert 0.9 < time.monotonic() - began < 2.2


def test_limit_of_connections_for_each_origin(tmp_path: Path) -> None:
    engine = Engine(Limits(connections_per_origin=3))
    a = Memory({"one": BIG}, on_read=lambda *_: time.sleep(0.002), piece=50_000, origin="mem://a")
    b = Memory({"one": BIG}, on_read=lambda *_: time.sleep(0.002), piece=50_000, origin="mem://b")
    with ThreadPoolExecutor() as threads:
        runs = [
            threads.submit(Fetch(tmp_path / name, source, engine).check)
            for name, source in (("a", a), ("b", b))
        ]
        for run in runs:
            run.result()
    assert (a.most_open, b.most_open) == (3, 3)


def test_first_model_is_served_first_and_the_second_is_not_starved_of_the_rest(
    tmp_path: Path,
) -> None:
    engine = Engine(Limits(connections_per_origin=2))
    order: list[str] = []
    started = threading.Event()

    def on_open(path: str, *_: object) -> None:
        order.append(path)
        started.set()
        time.sleep(0.005)

    low = Memory({"low": BIG}, on_open=on_open)
    high = Memory({"high": BIG}, on_open=on_open)
    with ThreadPoolExecutor() as threads:
        second = threads.submit(Fetch(tmp_path / "low", low, engine).run, priority=0)
        started.wait(5)
        first = threads.submit(Fetch(tmp_path / "high", high, engine).run, priority=5)
        first.result()
        second.result()
    begun = order.index("high")
    ended = len(order) - 1 - order[::-1].index("high")
    # Once the first has come, all that is asked for is its own.
    assert order[begun:ended].count("low") <= 1
    assert set(order[ended + 1 :]) <= {"low"}


def test_a_model_that_becomes_urgent_is_served_first(tmp_path: Path) -> None:
    engine = Engine(Limits(connections_per_origin=2))
    order: list[str] = []
    started = threading.Event()

    def on_open(path: str, *_: object) -> None:
        order.append(path)
        if order.count("high") == 3:
            started.set()
        time.sleep(0.05)

    low, high = (Memory({name: BIG}, on_open=on_open) for name in ("low", "high"))
    waiting = Fetch(tmp_path / "low", low, engine)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(Fetch(tmp_path / "high", high, engine).run, priority=5)
        second = threads.submit(waiting.run)
        assert started.wait(30)
        waiting.urgent.set()
        second.result()
        # The other has not ended, although it began first.
        assert not first.done()
        first.result()


def test_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        Fetch(tmp_path / "s", Memory({"one": BIG})).run()


def test_a_failed_sync_has_the_bytes_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, fsync = Memory({"one": BIG}), os.fsync

    def fails(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == len(BIG):
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            Fetch(tmp_path / "s", source).run()
    assert source.sent["one"] == len(BIG)
    Fetch(tmp_path / "s", source).check()
    assert source.sent["one"] == 2 * len(BIG)


def test_a_checkpoint_that_fails_ends_the_model_and_has_its_bytes_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def on_read(_path: str, position: int) -> None:
        assert position < MIB or gate.wait(20)

    source = Memory({"one": BIG}, on_read=on_read)

    def fails(_descriptor: int) -> None:
        gate.set()
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("agent.engine.engine.CHECKPOINT_SECONDS", 0.1)
        broken.setattr(os, "fdatasync", fails)
        with pytest.raises(OSError, match="Input/output"):
            Fetch(tmp_path / "s", source).run()
    before = source.sent["one"]
    assert before > 0
    Fetch(tmp_path / "s", source).check()
    assert source.sent["one"] == before + len(BIG)


def test_a_fetch_does_not_end_in_the_middle_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go = threading.Event(), threading.Event()

    def slow(_descriptor: int) -> None:
        syncing.set()
        assert go.wait(20)

    monkeypatch.setattr("agent.engine.engine.CHECKPOINT_SECONDS", 0.1)
    monkeypatch.setattr(os, "fdatasync", slow)
    source = Memory({"one": BIG}, piece=MIB // 4, on_read=lambda *_: time.sleep(0.05))
    fetch = Fetch(tmp_path / "s", source)
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(fetch.run)
        assert syncing.wait(20)
        fetch.cancelled.set()
        with pytest.raises(TimeoutError):
            # Its descriptors would be closed, and their numbers used again.
            ended.result(0.5)
        go.set()
        with pytest.raises(CancelledError):
            ended.result(20)


def test_a_watch_that_could_not_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(jitter=lambda: 0.0)
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "watch-ranges":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="new thread"):
            Fetch(tmp_path / "a", Memory({"one": BIG}), engine).run()
    watched = threading.Event()

    def started(thread: threading.Thread) -> None:
        if thread.name == "watch-ranges":
            watched.set()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    Fetch(tmp_path / "b", Memory({"one": BIG}), engine).check()
    assert watched.is_set()


@pytest.mark.parametrize("ranges_of_slow", [True, False])
def test_slow_origins_of_one_owner_leave_connections_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges_of_slow: bool
) -> None:
    monkeypatch.setattr("agent.engine.schedule.MAX_THREADS", 8)
    monkeypatch.setattr("agent.engine.connection_shares.PATIENCE_SECONDS", 0.2)
    released = threading.Event()
    contents = {f"{number}.bin": os.urandom(MIB) for number in range(12)}

    def drip(_path: str, _position: int) -> None:
        if not released.is_set():
            time.sleep(0.01)

    slow = Memory(contents, on_read=drip, piece=1, ranges=ranges_of_slow, origin="mem://slow")
    engine = Engine(jitter=lambda: 0.0)
    one, other = Fetch(tmp_path / "a", slow, engine), Fetch(tmp_path / "b", Memory({"b": BIG}))
    other.engine = engine
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(one.run, priority=9, owner="slow")
        try:
            while slow.open_now < 8:
                time.sleep(0.01)
            # It comes later, and is less important.
            other.run()
            assert not running.done()
        finally:
            slow.piece = MIB
            released.set()
        found = running.result(60)
    assert {path: file.sha256 for path, file in found.items()} == {
        path: hashlib.sha256(data).hexdigest() for path, data in contents.items()
    }


def test_an_owner_that_is_alone_has_all_connections() -> None:
    shares = Shares()
    assert shares.excess({"a": 8}, {"a"}, 8, 0.0) == {}
    assert shares.excess({"a": 8}, {"a"}, 8, 100.0) == {}


def test_what_is_over_a_share_has_some_time_to_end() -> None:
    shares = Shares()
    assert shares.excess({"a": 7, "b": 1}, {"a", "b"}, 8, 0.0) == {}
    assert shares.excess({"a": 7, "b": 1}, {"a", "b"}, 8, PATIENCE_SECONDS) == {"a": 3}
    # Nobody else could use one more.
    assert shares.excess({"a": 7, "b": 1}, {"a"}, 8, PATIENCE_SECONDS) == {}
    assert shares.excess({"a": 7, "b": 1}, {"b"}, 8, PATIENCE_SECONDS) == {}
