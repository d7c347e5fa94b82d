"""The engine's threads: some fetch ranges, the others digest bytes that are on the disk."""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from contextlib import closing, suppress
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import TYPE_CHECKING

from agent.engine.job import FileChangedError, WrongPiecesError
from agent.engine.range_retries import refused_delay, retry_delay, with_advice
from agent.engine.schedule import AbandonedError
from agent.sources.waits import HEAD_SECONDS, waiting
from agent.structs.failures import DownloadError, FailureKind, unexpected
from agent.structs.log import log
from agent.structs.pieces import span
from agent.structs.remote import RangeIgnoredError

if TYPE_CHECKING:
    from agent.engine.cpu_pressure import CpuPressure
    from agent.engine.job import FileJob, Segment
    from agent.engine.schedule import Schedule
    from agent.structs.remote import Body

# Bytes that a connection reads at once: few where it is slow, so that a kill of the agent loses
# little of what was received. Not fewer: on a busy node each read takes long, and costs the same.
FIRST_READ_BYTES = 256 << 10
MIN_READ_BYTES, MAX_READ_BYTES = 64 << 10, 1 << 20
QUICK_SECONDS, SLOW_SECONDS = 0.1, 0.3
# The memory for the pieces of all connections together. Less costs CPU, more saves none.
ALL_READS_BYTES = 4 << 20
# What is compared of a peer's pieces where a file is wrong.
SAMPLE_BYTES = 64 << 10
# Large, since a thread queues for the interpreter's lock before each piece.
DIGEST_READ_BYTES = 4 << 20
# Write-back to the disk is started after each portion of this size.
FLUSH_BYTES = 16 << 20

# The niceness that fetch threads add to their own.
NICE = 10


class FetchWorker(threading.Thread):
    """A thread that fetches one segment after the other."""

    def __init__(self, schedule: Schedule, pressure: CpuPressure, number: int) -> None:
        super().__init__(name=f"fetch-{number}", daemon=True)
        self._schedule = schedule
        self._pressure = pressure

    def run(self) -> None:
        """Work until the process ends."""
        _lower_priority()
        self._pressure.add(threading.get_native_id())
        while True:
            # In a frame of its own, so that a waiting thread holds no reference to its last job.
            self._work_on(self._schedule.next_segment())

    def _work_on(self, segment: Segment) -> None:
        error: BaseException | None = None
        try:
            self._fetch(segment)
        except (DownloadError, OSError) as caught:
            error = caught
        except AbandonedError as caught:
            error = _stalled(segment, caught)
        except Exception as caught:
            # An unexpected error fails one model, and must not end the thread.
            log.exception("Range failed unexpectedly", path=segment.file.remote.path)
            error = unexpected(caught)
        if segment.stalled and segment.position != segment.end:
            error = _stalled(segment, None)
        elif _is_whole(segment, error):
            error = None
        try:
            self._schedule.end(segment, error)
            # Also after an error: the second request may have brought the rest before.
            _seal(self._schedule, segment.file)
        except Exception as caught:
            log.exception("End of a range failed unexpectedly", path=segment.file.remote.path)
            self._schedule.fail(segment.file.job, unexpected(caught))

    def _fetch(self, segment: Segment) -> None:
        file = segment.file
        with (
            waiting(math.inf, lambda: segment.aborted or file.job.over),
            closing(_read(segment)) as body,
        ):
            connections = self._schedule.attach(segment, body)
            file.staged.open()
            self._receive(segment, body, connections)

    def _receive(self, segment: Segment, body: Body, connections: int) -> None:
        file = segment.file
        most = max(MIN_READ_BYTES, min(MAX_READ_BYTES, ALL_READS_BYTES // connections))
        least = min(FIRST_READ_BYTES, most)
        size, flushed = most if file.is_small else least, segment.position
        while True:
            began = time.monotonic()
            segment.awaits_bytes = True
            piece = body.read(size)
            segment.awaits_bytes = False
            if not piece:
                break
            self._write(segment, piece)
            if segment.position - flushed >= FLUSH_BYTES:
                file.staged.flush(flushed, segment.position)
                flushed = segment.position
            took = time.monotonic() - began
            if took < QUICK_SECONDS:
                size = min(2 * size, most)
            elif took > SLOW_SECONDS:
                size = max(size // 2, least)
        if segment.position > flushed and not file.is_small:
            file.staged.flush(flushed, segment.position)

    def _write(self, segment: Segment, piece: bytes) -> None:
        self._schedule.begin_write(segment)
        self._compare(segment, piece)
        segment.file.staged.write(piece, segment.position)
        wait = self._schedule.received(segment, len(piece))
        # Last: what does not count as received is requested again, and written again.
        if segment.digests is not None:
            segment.digests.update(piece)
        while wait > 0 and not segment.aborted:
            time.sleep(min(wait, 0.1))
            wait -= 0.1

    def _compare(self, segment: Segment, piece: bytes) -> None:
        """Find out whether a peer sent other bytes than these, which come from the origin."""
        file = segment.file
        lane = file.senders.compared_at(segment.position)
        if lane is not None and file.staged.differs(piece, segment.position):
            self._schedule.blame(file, lane)


class DigestWorker(threading.Thread):
    """A thread that digests bytes on the disk which no fetch thread digested."""

    def __init__(self, schedule: Schedule, number: int) -> None:
        super().__init__(name=f"digest-{number}", daemon=True)
        self._schedule = schedule
        # Private memory that the system gives as it is written: a small download needs none.
        self._buffer = memoryview(mmap(-1, DIGEST_READ_BYTES, MAP_PRIVATE | MAP_ANONYMOUS))

    def run(self) -> None:
        """Work until the process ends."""
        while True:
            file = self._schedule.next_to_digest(self)
            if file is not None:
                self._work_on(file)
                # A waiting thread holds no reference to its last file.
                del file

    def _work_on(self, file: FileJob) -> None:
        try:
            file.staged.open()
            self._digest(file)
        except OSError as error:
            self._schedule.fail(file.job, error)
        except Exception as error:
            log.exception("Digest failed unexpectedly", path=file.remote.path)
            self._schedule.fail(file.job, unexpected(error))
        self._schedule.end_digest(file, self)
        _seal(self._schedule, file)

    def _digest(self, file: FileJob) -> None:
        digests = file.digests
        while count := self._schedule.undigested(file, self, len(self._buffer)):
            read = file.staged.read_into(self._buffer[:count], digests.position)
            if not read:
                raise OSError(errno.EIO, "a file in staging became shorter", file.remote.path)
            digests.update(self._buffer[:read])


def _read(segment: Segment) -> Body:
    """Request the bytes of a segment from its peer, or from the origin."""
    file = segment.file
    if segment.lane is not None and file.shared is not None:
        assert segment.end is not None  # noqa: S101
        return segment.lane.read(file.shared.digest, segment.position, segment.end)
    return file.job.remote.read(file.remote, segment.position, segment.end)


def _lower_priority() -> None:
    """Lower this thread's priority below the digest threads and the servers on the node."""
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)


def _is_whole(segment: Segment, error: BaseException | None) -> bool:
    """Whether a failed request of an exchanged file has brought all: its digest tells if rightly.

    A request for the rest would be for no bytes.
    """
    is_failure = isinstance(error, DownloadError) and error.kind is not FailureKind.CHANGED
    return is_failure and segment.file.shared is not None and segment.position == segment.end


def _stalled(segment: Segment, error: BaseException | None) -> BaseException:
    if not segment.stalled and error is not None:
        return error
    return DownloadError(
        FailureKind.UNREACHABLE,
        f"{segment.file.remote.path} comes too slowly from {_sender(segment)}, as "
        "good as not at all: check the origin and the network of the node, it is tried again by "
        "itself",
    )


def _sender(segment: Segment) -> str:
    lane = segment.lane
    return segment.file.job.remote.origin if lane is None else f"node {lane.peer.node}"


def _seal(schedule: Schedule, file: FileJob) -> None:
    """Seal a file if it is written and digested, once."""
    if not schedule.begin_seal(file):
        return
    failure: Exception | None
    try:
        failure = _recheck(schedule, file) or file.seal()
        if isinstance(failure, WrongPiecesError):
            failure = _sampled(schedule, file)
    except OSError as error:
        failure = error
    except Exception as error:
        # An unexpected error must neither end the thread nor leave the job waiting.
        log.exception("End of a file failed unexpectedly", path=file.remote.path)
        failure = unexpected(error)
    schedule.end_seal(file, failure)


def _sampled(schedule: Schedule, file: FileJob) -> WrongPiecesError:
    """Compare a part of what each peer sent of a wrong file with the origin's bytes.

    It finds a peer that sends other bytes altogether, and costs little.
    """
    remote, job, liars = file.remote, file.job, set()
    for lane, piece in file.senders.samples.items():
        start, end = span(piece, remote.size or 0)
        end = min(end, start + SAMPLE_BYTES)
        try:
            with (
                waiting(HEAD_SECONDS, lambda: job.over),
                closing(job.remote.read(remote, start, end)) as body,
            ):
                wrong = False
                while sample := body.read(end - start):
                    wrong = wrong or file.staged.differs(sample, start)
                    start += len(sample)
        except DownloadError:
            # The origin cannot be asked now: it is when the pieces are fetched again.
            break
        if wrong:
            schedule.blame(file, lane)
            liars.add(lane)
    return WrongPiecesError(frozenset(liars))


def _recheck(schedule: Schedule, file: FileJob) -> DownloadError | FileChangedError | None:
    """Ask the source whether a complete file still has its listed version; a failure if not.

    Only where the source cannot pin each range to a version, and the file was read in ranges.
    """
    remote, job, attempts = file.remote, file.job, 0
    while remote.recheck and remote.ranges and remote.size and not job.over:
        try:
            with waiting(HEAD_SECONDS, lambda: job.over):
                job.remote.read(remote, 0, 1).close()
        except DownloadError as error:
            if error.kind is FailureKind.CHANGED or isinstance(error, RangeIgnoredError):
                file.staged.restart()
                return FileChangedError(remote.path, error)
            attempts += 1
            # Where it may be one request too many, other requests of the model are under way.
            is_refusal = error.kind in {FailureKind.DENIED, FailureKind.THROTTLED}
            delay = (
                refused_delay(error.kind, attempts, schedule.jitter())
                if is_refusal
                else retry_delay(error, attempts, schedule.jitter())
            )
            if delay is None:
                return with_advice(error)
            job.ended.wait(delay)
        else:
            return None
    return None
