"""The engine's threads: those that fetch ranges, and those that digest what is here."""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import structlog

from localmodel.agent.engine.job import DIGEST_BYTES
from localmodel.agent.sources.waits import waiting
from localmodel.agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from localmodel.agent.engine.engine import Engine
    from localmodel.agent.engine.job import FileJob, Segment
    from localmodel.agent.structs.remote import Body

# Pieces that a connection reads: as large as comes soon, so that a kill costs little of a slow one.
FIRST_READ_BYTES = 64 << 10
MAX_READ_BYTES = 1 << 20
QUICK_SECONDS, SLOW_SECONDS = 0.02, 0.06
# All connections together hold at most this much.
ALL_READS_BYTES = 8 << 20
# Large, since a thread that comes back for the next piece queues for the interpreter's lock.
DIGEST_READ_BYTES = 4 << 20
# Written bytes go on their way to the disk in portions of this.
FLUSH_BYTES = 16 << 20

# How much the threads that fetch stand back.
NICE = 10

log = structlog.get_logger(__name__)


class AbandonedError(Exception):
    """Nobody needs this range any more."""


class FetchWorker(threading.Thread):
    """Fetches one range after the other."""

    def __init__(self, engine: Engine, number: int) -> None:
        super().__init__(name=f"fetch-{number}", daemon=True)
        self._engine = engine

    def run(self) -> None:
        """Work until the process ends."""
        _step_back()
        self._engine.crowd.add(threading.get_native_id())
        while True:
            # In a frame of its own: what waits here keeps nothing of the last one's job.
            self._work_on(self._engine.next_segment())

    def _work_on(self, segment: Segment) -> None:
        error: BaseException | None = None
        try:
            self._fetch(segment)
        except (DownloadError, OSError) as caught:
            error = caught
        except AbandonedError as caught:
            error = _given_up(segment, caught)
        except Exception as caught:
            # A fault of ours must not end the thread: it is one model's failure.
            log.exception("Range failed unexpectedly", path=segment.file.remote.path)
            error = internal(caught)
        if segment.stalled and segment.position != segment.end:
            error = _given_up(segment, None)
        try:
            self._engine.ended(segment, error)
            if error is None:
                self._engine.finish(segment.file)
        except Exception as caught:
            log.exception("End of a range failed unexpectedly", path=segment.file.remote.path)
            with self._engine.lock:
                segment.file.job.fail(internal(caught))

    def _fetch(self, segment: Segment) -> None:
        file = segment.file
        with waiting(math.inf, lambda: segment.aborted or file.job.over):
            body = file.job.remote.read(file.remote, segment.position, segment.end)
            with closing(body):
                if not self._attach(segment, body):
                    raise AbandonedError
                file.staged.open()
                self._receive(segment, body)

    def _attach(self, segment: Segment, body: Body) -> bool:
        """From here on the segment touches the disk, unless it is not needed any more."""
        file = segment.file
        with self._engine.lock:
            if segment.aborted or file.job.over or segment.epoch != file.epoch:
                return False
            segment.body = body
            file.job.touched.add(segment)
            # Not beside others: it would hold up the front of the file that they wait for.
            lone = len(file.active) == 1
            if lone and file.digester is None and file.digests.position == segment.position:
                file.digester, segment.digests = segment, file.digests
            return True

    def _receive(self, segment: Segment, body: Body) -> None:
        engine, file = self._engine, segment.file
        origin = engine.origin(file.job)
        size, flushed = FIRST_READ_BYTES, segment.position
        most = max(FIRST_READ_BYTES, min(MAX_READ_BYTES, ALL_READS_BYTES // origin.limit.now))
        if file.is_small:
            size = most
        while True:
            began = time.monotonic()
            piece = body.read(size)
            if not piece:
                break
            self._keep(segment, piece)
            if segment.position - flushed >= FLUSH_BYTES:
                file.staged.flush(flushed, segment.position)
                flushed = segment.position
            took = time.monotonic() - began
            if took < QUICK_SECONDS:
                size = min(2 * size, most)
            elif took > SLOW_SECONDS:
                size = max(size // 2, FIRST_READ_BYTES)
        if segment.position > flushed and not file.is_small:
            file.staged.flush(flushed, segment.position)

    def _keep(self, segment: Segment, piece: bytes) -> None:
        engine, file = self._engine, segment.file
        start, end = segment.position, segment.position + len(piece)
        file.staged.write(piece, start)
        if segment.digests is not None:
            segment.digests.update(piece)
        with engine.lock:
            if segment.aborted or file.job.over or segment.epoch != file.epoch:
                raise AbandonedError
            segment.position, before = end, file.done
            engine.origin(file.job).received += len(piece)
            if file.remote.size is None:
                file.received = end
            else:
                file.staged.mark(start, end)
                if file.digester is None and file.is_behind:
                    engine.digest(file)
            file.job.done += file.done - before
            file.job.received += len(piece)
            wait = engine.bucket.take(len(piece), engine.clock())
        while wait > 0 and not segment.aborted:
            time.sleep(min(wait, 0.1))
            wait -= 0.1


class DigestWorker(threading.Thread):
    """Digests the bytes that are on the disk and were not digested as they came."""

    def __init__(self, engine: Engine, number: int) -> None:
        super().__init__(name=f"digest-{number}", daemon=True)
        self._engine = engine
        self._buffer = memoryview(bytearray(DIGEST_READ_BYTES))

    def run(self) -> None:
        """Work until the process ends."""
        while True:
            file = self._next()
            if file is not None:
                self._work_on(file)
                # Nor does this one keep it while it waits.
                del file

    def _work_on(self, file: FileJob) -> None:
        try:
            file.staged.open()
            self._digest(file)
        except OSError as error:
            with self._engine.lock:
                file.job.fail(error)
        except Exception as error:
            log.exception("Digest failed unexpectedly", path=file.remote.path)
            with self._engine.lock:
                file.job.fail(internal(error))
        self._let_go(file)
        self._engine.finish(file)

    def _let_go(self, file: FileJob) -> None:
        engine = self._engine
        with engine.lock:
            if file.digester is self:
                file.digester = None
                if file.undigested and not file.job.over and (file.written or file.is_behind):
                    # More came while this was ending.
                    engine.digest(file)
            file.job.touched.discard(self)
            engine.drained.notify_all()

    def _next(self) -> FileJob | None:
        engine = self._engine
        with engine.lock:
            while not engine.digest_queue:
                engine.to_digest.wait()
            file = engine.digest_queue.popleft()
            file.queued = False
            if file.digester is not None or file.sealed or file.job.over:
                return None
            file.digester = self
            file.job.touched.add(self)
            return file

    def _digest(self, file: FileJob) -> None:
        digests = file.digests
        while True:
            with self._engine.lock:
                count = min(file.undigested, len(self._buffer))
                enough = count >= min(DIGEST_BYTES, len(self._buffer)) or file.written
                if file.job.over or file.digester is not self or not count or not enough:
                    return
            read = file.staged.read_into(self._buffer[:count], digests.position)
            if not read:
                raise OSError(errno.EIO, "a file in staging became shorter", file.remote.path)
            digests.update(self._buffer[:read])


def _step_back() -> None:
    """Let the digests, of which each is one thread's, and all that serves on the node go first."""
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)


def _given_up(segment: Segment, error: BaseException | None) -> BaseException:
    if not segment.stalled and error is not None:
        return error
    return DownloadError(
        FailureKind.UNREACHABLE,
        f"{segment.file.remote.path} comes too slowly from {segment.file.job.remote.origin}, as "
        "good as not at all: check the origin and the network of the node, it is tried again by "
        "itself",
    )


def internal(error: Exception) -> DownloadError:
    """A fault of ours, or of a library, as the failure of one model."""
    return DownloadError(
        FailureKind.INTERNAL,
        f"the agent failed with {type(error).__name__}: see its log, and report it",
    )
