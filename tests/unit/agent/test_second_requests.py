"""Two requests for one slow range: whichever is slower changes nothing that counts already."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, cast

import pytest

from agent.disk.blocks import BLOCK_BYTES
from agent.disk.digests import Digests
from agent.disk.staging import Staging
from agent.engine import ranges
from agent.engine.engine import Engine
from agent.engine.job import Job, Segment
from agent.engine.limits import Limits
from agent.engine.schedule import AbandonedError, Schedule
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.structs.remote import Body, RemoteFile, RemoteModel

URI = "mem://model"
DATA = bytes(n % 251 for n in range(4 * BLOCK_BYTES))
BIG = DATA * 32


class Quiet:
    """The body of a request whose bytes the test brings."""

    def abort(self) -> None:
        pass


class Download:
    """A file whose requests a test drives by hand, as the workers do."""

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        source = Memory({"one": DATA}, ranges=ranges)
        self.staging = Staging(folder)
        self.staging.begin(URI, None, source.files)
        self.schedule = Schedule(Limits(), jitter=lambda: 0.0, stall_seconds=30.0)
        remote = cast("RemoteModel", source)
        self.job = Job(remote, self.staging, 0, 1, threading.Event())
        self.job.arrange()
        self.schedule.add(self.job)

    def request(self) -> Segment:
        """The next request, with its answer."""
        segment = self.schedule.next_segment()
        self.schedule.attach(segment, cast("Body", Quiet()))
        segment.file.staged.open()
        return segment

    def hedge(self, first: Segment) -> None:
        self.schedule._hedges.append(first.hedge(time.monotonic()))

    def bring(self, segment: Segment, count: int, *, wrong: bool = False) -> None:
        piece = DATA[segment.position : segment.position + count]
        self.schedule.begin_write(segment)
        segment.file.staged.write(b"\xff" * count if wrong else piece, segment.position)
        self.schedule.received(segment, count)
        if segment.digests is not None:
            segment.digests.update(piece)

    def digest(self) -> None:
        """What a digest thread does for the next file."""
        me = object()
        file = self.schedule.next_to_digest(me)
        assert file is not None
        while count := self.schedule.undigested(file, me, len(DATA)):
            buffer = memoryview(bytearray(count))
            file.digests.update(buffer[: file.staged.read_into(buffer, file.digests.position)])
        self.schedule.end_digest(file, me)

    @property
    def is_queued(self) -> bool:
        """Whether there is a file to digest."""
        return bool(self.schedule._digest_queue)

    def close(self) -> None:
        # Of the requests that a test leaves without an end.
        self.job.touched.clear()
        self.schedule.remove(self.job)
        self.staging.close()


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Download]:
    monkeypatch.setattr("agent.engine.job.DIGEST_BYTES", BLOCK_BYTES)
    found = Download(tmp_path / "s")
    yield found
    found.close()


def test_what_the_slower_request_may_write_is_not_digested_yet(download: Download) -> None:
    first = download.request()
    file = first.file
    download.bring(first, BLOCK_BYTES)
    download.hedge(first)
    second = download.request()
    assert second.position == first.position == BLOCK_BYTES
    download.bring(second, 3 * BLOCK_BYTES)
    download.schedule.end(second)
    assert file.written
    # The first one is aborted, and may be in the middle of a write.
    assert first.aborted
    assert file.undigested == 0
    assert not download.schedule.begin_seal(file)
    with pytest.raises(AbandonedError):
        download.bring(first, BLOCK_BYTES, wrong=True)
    download.schedule.end(first, AbandonedError())
    download.digest()
    assert download.schedule.begin_seal(file)
    assert file.seal() is None
    download.schedule.end_seal(file, None)
    assert download.staging.path("one").read_bytes() == DATA


def test_the_request_that_digests_leaves_that_to_others_once_there_is_a_second_one(
    download: Download,
) -> None:
    first = download.request()
    download.bring(first, BLOCK_BYTES)
    assert first.digests is not None
    assert first.file.digests.position == BLOCK_BYTES
    download.hedge(first)
    second = download.request()
    download.bring(second, 2 * BLOCK_BYTES)
    download.bring(first, BLOCK_BYTES)
    assert first.digests is None
    # The second one is ahead, and the first one writes from here on.
    assert first.file.undigested == BLOCK_BYTES
    download.bring(first, 2 * BLOCK_BYTES)
    download.schedule.end(first)
    download.schedule.end(second, AbandonedError())
    download.digest()
    assert download.schedule.begin_seal(first.file)


def test_a_second_request_that_ends_before_the_digesting_one_leaves_no_file_behind(
    download: Download,
) -> None:
    first = download.request()
    download.bring(first, 3 * BLOCK_BYTES)
    download.hedge(first)
    second = download.request()
    download.bring(second, BLOCK_BYTES)
    download.schedule.end(second)
    assert first.file.digester is first
    download.schedule.end(first, AbandonedError())
    download.digest()
    assert download.schedule.begin_seal(first.file)


def test_a_second_request_begins_where_the_first_one_is_by_then(download: Download) -> None:
    first = download.request()
    download.hedge(first)
    download.bring(first, BLOCK_BYTES)
    assert download.request().begun == BLOCK_BYTES


def test_no_second_request_begins_in_the_middle_of_a_write(download: Download) -> None:
    first = download.request()
    download.hedge(first)
    download.schedule.begin_write(first)
    assert download.schedule._take_locked(time.monotonic()) is None
    download.schedule.received(first, BLOCK_BYTES)
    assert download.request().begun == BLOCK_BYTES


def test_no_second_request_begins_for_what_came_meanwhile(download: Download) -> None:
    first = download.request()
    download.hedge(first)
    download.bring(first, len(DATA))
    assert download.schedule._take_locked(time.monotonic()) is None


def test_an_origin_that_refuses_a_second_request_is_left_alone(download: Download) -> None:
    first = download.request()
    download.bring(first, BLOCK_BYTES)
    download.hedge(first)
    second = download.request()
    now = time.monotonic()
    refusal = DownloadError(FailureKind.THROTTLED, "slow down", retry_after=10.0)
    download.schedule.end(second, refusal)
    assert not download.job.over
    # Not before the time that the origin has named.
    download.hedge(first)
    assert download.schedule._take_locked(now + 9.0) is None
    assert download.schedule._take_locked(now + 12.0) is not None
    assert first in first.file.active


def test_an_aborted_second_request_says_nothing_of_the_origin(download: Download) -> None:
    first = download.request()
    download.hedge(first)
    second = download.request()
    download.bring(first, len(DATA))
    download.schedule.end(first)
    assert second.aborted
    refusal = DownloadError(FailureKind.THROTTLED, "slow down", retry_after=10.0)
    download.schedule.end(second, refusal)
    assert download.schedule._origins[download.job].may_ask(time.monotonic())


def broke(*, segment: Segment, download: Download) -> None:
    download.schedule.end(segment, DownloadError(FailureKind.UNREACHABLE, "broke"))


def test_what_the_other_request_has_brought_is_not_requested_again(download: Download) -> None:
    first = download.request()
    download.bring(first, BLOCK_BYTES + 100)
    download.hedge(first)
    second = download.request()
    assert second.position == BLOCK_BYTES + 100
    download.bring(second, 2 * BLOCK_BYTES)
    broke(segment=second, download=download)
    broke(segment=first, download=download)
    # All of it counts, and may be digested: the block that is not complete begins anew.
    file = first.file
    assert file.undigested == 2 * BLOCK_BYTES - 100
    assert [(gap.start, gap.end) for gap in file.gaps] == [(3 * BLOCK_BYTES, 4 * BLOCK_BYTES)]
    assert download.job.left == BLOCK_BYTES


def test_a_stalled_request_whose_range_has_come_is_not_sent_again(download: Download) -> None:
    first = download.request()
    download.bring(first, BLOCK_BYTES)
    download.hedge(first)
    second = download.request()
    first.stalled = True
    first.abort()
    download.bring(second, 3 * BLOCK_BYTES)
    download.schedule.end(second)
    broke(segment=first, download=download)
    assert not first.file.gaps
    download.digest()
    assert download.schedule.begin_seal(first.file)


def test_a_checkpoint_that_cannot_be_noted_ends_the_model_alone(
    download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = download.request()
    download.bring(first, 2 * BLOCK_BYTES)
    checkpoint = download.schedule.begin_checkpoint(first.file)
    assert checkpoint is not None
    assert checkpoint in download.job.touched
    failures = [OSError(5, "Input/output error"), OSError(30, "Read-only file system")]

    def fails() -> None:
        raise failures[1]

    monkeypatch.setattr(first.file.staged, "forget_unsynced", fails)
    download.schedule.end_checkpoint(first.file, checkpoint, failures[0], is_done=False)
    assert checkpoint not in download.job.touched
    assert download.job.failure is failures[0]


def test_what_starts_over_is_left_to_request_once(tmp_path: Path) -> None:
    download = Download(tmp_path / "s", ranges=False)
    first = download.request()
    assert download.job.left == 0
    download.bring(first, BLOCK_BYTES)
    download.schedule.end(first, DownloadError(FailureKind.UNREACHABLE, "broke"))
    assert download.job.left == len(DATA)
    download.close()


class Late:
    """The body of a request that sends nothing until it is aborted, and wrong bytes then."""

    def __init__(self, body: Body, digested: threading.Event, lied: threading.Event) -> None:
        self._body = body
        self._digested, self._lied = digested, lied
        self._aborted = threading.Event()

    def read(self, size: int) -> bytes:
        assert self._aborted.wait(20)
        # The second request has brought these bytes: they may have been digested since.
        self._digested.wait(0.3)
        threading.Timer(0.1, self._lied.set).start()
        return b"\xff" * min(size, BLOCK_BYTES)

    def abort(self) -> None:
        self._aborted.set()

    def close(self) -> None:
        self._body.close()


class LateOnce(Memory):
    """Answers the first request for the first byte as `Late` does, and sends the end after that."""

    digested: threading.Event
    lied: threading.Event

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:  # type: ignore[override]
        body = super().read(file, start, end)
        is_first = [begin for _, begin, _ in self.opened].count(0) == 1
        return cast(
            "Body", Late(body, self.digested, self.lied) if start == 0 and is_first else body
        )


def test_bytes_that_come_too_late_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "MIN_RANGE_BYTES", BLOCK_BYTES)
    monkeypatch.setattr("agent.engine.job.DIGEST_BYTES", BLOCK_BYTES)
    monkeypatch.setattr("agent.engine.pace.LOOK_SECONDS", 0.1)
    monkeypatch.setattr("agent.engine.pace.WORTH_SECONDS", 0.1)
    digested, lied = threading.Event(), threading.Event()
    update = Digests.update

    def updated(digests: Digests, piece: memoryview) -> None:
        update(digests, piece)
        digested.set()

    monkeypatch.setattr(Digests, "update", updated)

    def on_read(_path: str, position: int) -> None:
        time.sleep(0.01)
        if position > len(BIG) - BLOCK_BYTES:
            lied.wait(20)

    source = LateOnce({"one": BIG}, piece=50_000, on_read=on_read)
    source.digested, source.lied = digested, lied
    staging = Staging(tmp_path / "s")
    staging.begin(URI, None, source.files)
    remote = cast("RemoteModel", source)
    Engine(jitter=lambda: 0.0).fetch(
        remote,
        staging,
        priority=0,
        cancelled=threading.Event(),
        later=False,
        report=lambda _: None,
    )
    staging.close()
    assert lied.is_set()
    assert staging.path("one").read_bytes() == BIG
