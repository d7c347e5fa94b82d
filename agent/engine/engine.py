"""Fetches models: threads that take ranges, in the order of the models' priorities."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from localmodel.agent.disk.blocks import Gap
from localmodel.agent.engine.cpu_pressure import CpuPressure
from localmodel.agent.engine.job import FileChangedError, FileJob, Job, Segment
from localmodel.agent.engine.limits import ConnectionLimit, Limits, TokenBucket
from localmodel.agent.engine.pace import STALL_SECONDS, Pace
from localmodel.agent.engine.retries import is_limit, refused_delay, retry_delay
from localmodel.agent.engine.shares import Shares, share
from localmodel.agent.engine.workers import DigestWorker, FetchWorker, internal
from localmodel.agent.sources.waits import HEAD_SECONDS, waiting
from localmodel.agent.structs.failures import CancelledError, DownloadError, FailureKind
from localmodel.agent.structs.remote import RangeIgnoredError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from localmodel.agent.disk.staging import Staging
    from localmodel.agent.engine.job import Fetched
    from localmodel.agent.structs.remote import RemoteModel

MAX_THREADS = 64
TICK_SECONDS = 0.1
CHECKPOINT_SECONDS = 30.0
# How long nobody opens one connection more than an origin allows.
REFUSED_PAUSE_SECONDS = 1.0
# How many requests of one model may have a second one at a time.
MAX_HEDGES = 4
# The part of the allowed connections that must be in use for their number to be the limit.
BUSY = 0.7

log = structlog.get_logger(__name__)


@dataclass
class Origin:
    """What is known of one origin."""

    limit: ConnectionLimit
    pace: Pace
    active: set[Segment] = field(default_factory=set)
    received: int = 0
    paused_until: float = 0.0


class Engine:
    """Fetches several models at once. `fetch` may be called from several threads."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        # Something to fetch; something to digest; a segment has ended.
        self.ready = threading.Condition(self.lock)
        self.to_digest = threading.Condition(self.lock)
        self.drained = threading.Condition(self.lock)
        self.bucket = TokenBucket()
        self.crowd = CpuPressure()
        self.digest_queue: deque[FileJob] = deque()
        self._jitter = jitter
        self._stall_seconds = stall_seconds
        self._limits = limits or Limits()
        self._jobs: list[Job] = []
        self._hedges: deque[Segment] = deque()
        self._shares = Shares()
        self._origins: dict[str, Origin] = {}
        self._threads = 0
        self._watching = False
        self._numbers = itertools.count()
        self.set_limits(self._limits)

    def set_limits(self, limits: Limits) -> None:
        """Change the limits, also of what is under way."""
        with self.lock:
            self._limits = limits
            self.bucket.rate = limits.bytes_per_second
            for origin in self._origins.values():
                origin.limit.cap(limits.connections_per_origin)
            self._grow()
            self.ready.notify_all()

    def fetch(
        self,
        remote: RemoteModel,
        staging: Staging,
        *,
        priority: int,
        owner: str = "",
        cancelled: threading.Event,
        later: bool,
        report: Callable[[int], None],
    ) -> tuple[Fetched, ...]:
        """Bring the files of a model into staging, which has them laid out.

        `report` gets the bytes that are here, a few times a second. With `later`, our digests of
        files are left out where the store's own checksum is cheaper. Connections are shared among
        the owners. Raises DownloadError,
        FileChangedError, CancelledError and, for the disk, OSError.
        """
        job = Job(remote, staging, priority, next(self._numbers), cancelled, owner, later)
        job.arrange()
        self._start(job)
        try:
            report(job.done)
            while not job.ended.wait(TICK_SECONDS):
                if cancelled.is_set():
                    raise CancelledError
                report(job.done)
            report(job.done)
        finally:
            self._end(job)
        if job.failure is not None:
            raise job.failure
        return tuple(job.fetched[file.path] for file in remote.files)

    def _start(self, job: Job) -> None:
        with self.lock:
            self._jobs.append(job)
            self._jobs.sort(key=lambda one: (-one.priority, one.number))
            self._forget_origins()
            origin = self.origin(job)
            origin.limit.cap(self._limits.connections_per_origin)
            self._digest_whole(job)
            self._grow()
            self.ready.notify_all()
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="watch-ranges", daemon=True).start()

    def _end(self, job: Job) -> None:
        """Let nothing touch the job's files any more."""
        with self.lock:
            self._jobs.remove(job)
            job.ended.set()
            job.stop()
            while job.touched:
                self.drained.wait()
            self._forget_origins()

    def _forget_origins(self) -> None:
        """Drop what nothing is fetched from, unless it has just said no. Under the lock."""
        now, used = self.clock(), {job.remote.origin for job in self._jobs}
        self._origins = {
            name: origin
            for name, origin in self._origins.items()
            if name in used or origin.limit.is_fresh(now) or now < origin.paused_until
        }

    def origin(self, job: Job) -> Origin:
        """The origin of a job. Under the lock."""
        name = job.remote.origin
        if name not in self._origins:
            self._origins[name] = Origin(
                ConnectionLimit(most=self._limits.connections_per_origin),
                Pace(self._stall_seconds),
            )
        return self._origins[name]

    # For the workers

    def next_segment(self) -> Segment:
        """Wait for something to fetch, and take it."""
        with self.lock:
            while True:
                segment = self._take(self.clock())
                if segment is not None:
                    self.origin(segment.file.job).active.add(segment)
                    return segment
                self.ready.wait()

    def _take(self, now: float) -> Segment | None:
        while self._hedges:
            hedge = self._hedges.popleft()
            if hedge.twin is not None and not hedge.file.job.over:
                hedge.started = now
                hedge.file.active.add(hedge)
                return hedge
        owners = len({job.owner for job in self._jobs})
        if owners > 1:
            # First those with less than their share.
            active, most = self._active_of_owners(), share(MAX_THREADS, owners)
            for job in self._jobs:
                limit = self.origin(job).limit.now
                here = sum(s.file.job.owner == job.owner for s in self.origin(job).active)
                if active[job.owner] < most and here < share(limit, owners):
                    segment = self._take_of(job, now)
                    if segment is not None:
                        return segment
        return next(filter(None, (self._take_of(job, now) for job in self._jobs)), None)

    def _take_of(self, job: Job, now: float) -> Segment | None:
        if not self._may_take(job, now):
            return None
        return job.take(now, self.origin(job).limit.now)

    def _may_take(self, job: Job, now: float) -> bool:
        """Whether one more connection to a job's origin is allowed."""
        origin = self.origin(job)
        return not (job.over or len(origin.active) >= origin.limit.now or now < origin.paused_until)

    def _active_of_owners(self) -> Counter[str]:
        return Counter(
            segment.file.job.owner for origin in self._origins.values() for segment in origin.active
        )

    def _give_way(self, now: float) -> None:
        """End what has more than its share while others wait."""
        wanting = {job.owner for job in self._jobs if job.has_more and self._may_take(job, now)}
        active = self._active_of_owners()
        for owner, count in self._shares.excess(active, wanting, MAX_THREADS, now).items():
            theirs = [
                segment
                for origin in self._origins.values()
                for segment in origin.active
                if segment.file.job.owner == owner and not segment.aborted
            ]
            # One stream starts over: those go last.
            theirs.sort(key=lambda one: (not one.file.remote.ranges, -one.started))
            for segment in theirs[:count]:
                segment.gave_way = True
                segment.abort()

    def digest(self, file: FileJob) -> None:
        """Have a file's bytes digested by a thread of its own. Under the lock."""
        if not file.queued and file.digester is None:
            file.queued = True
            self.digest_queue.append(file)
            self.to_digest.notify()

    def _digest_whole(self, job: Job) -> None:
        """Have files digested that are here already, a few at a time. Under the lock."""
        while not job.over and (file := job.next_whole()) is not None:
            self.digest(file)

    def ended(self, segment: Segment, error: BaseException | None = None) -> None:
        """A segment has come to its end, or as far as it could."""
        file, job = segment.file, segment.file.job
        with self.lock:
            self.origin(job).active.discard(segment)
            file.active.discard(segment)
            job.touched.discard(segment)
            if file.digester is segment:
                file.digester = None
            if error is None:
                if segment.twin is not None:
                    segment.twin.abort()
            elif not job.over and segment.epoch == file.epoch:
                self._take_failure(segment, error)
            segment.part()
            if not job.over and file.undigested:
                self.digest(file)
            self.drained.notify_all()
            if file.gaps:
                self.ready.notify()

    def _take_failure(self, segment: Segment, error: BaseException) -> None:
        file, job, now = segment.file, segment.file.job, self.clock()
        if segment.gave_way and segment.twin not in file.active:
            self._put_back(segment, segment.attempts, now)
            return
        if segment.twin in file.active or (segment.aborted and not segment.stalled):
            # The other request goes on, or has brought the rest already.
            return
        if not isinstance(error, DownloadError):
            job.fail(error)
            return
        if error.kind is FailureKind.CHANGED:
            job.fail(FileChangedError(file.remote.path, error))
            return
        if self._crowds(segment, error):
            self._make_room(segment, error, now)
            return
        origin = self.origin(job)
        attempts = segment.failed_attempts()
        delay = retry_delay(error, attempts, self._jitter())
        if delay is None:
            job.fail(error)
            return
        log.debug("Range failed", path=file.remote.path, reason=error.kind.value, delay=delay)
        if error.kind is FailureKind.THROTTLED:
            origin.limit.refused(now)
            origin.paused_until = max(origin.paused_until, now + delay)
        file.heed(error)
        self._put_back(segment, attempts, now + delay)

    def _crowds(self, segment: Segment, error: DownloadError) -> bool:
        """Whether a request may have failed because others of its model are under way."""
        job = segment.file.job
        others = [other for other in self.origin(job).active if other.file.job is job]
        return segment.position == segment.begun and is_limit(
            error,
            segment.attempts,
            others=len(others),
            coming=sum(other.position > other.begun for other in others),
            has_come=job.received > 0,
        )

    def _make_room(self, segment: Segment, error: DownloadError, now: float) -> None:
        """Go on with fewer connections, as long as the file comes."""
        file, origin = segment.file, self.origin(segment.file.job)
        attempts = segment.failed_attempts()
        if file.done > segment.file_done:
            attempts = 1
        elif file.active:
            # Whether the file comes is not known before those have ended.
            attempts = max(1, segment.attempts)
        delay = refused_delay(error.kind, attempts, self._jitter())
        if delay is None:
            file.job.fail(_told(error, file))
            return
        log.debug("Connection refused", path=file.remote.path, reason=error.kind.value)
        origin.limit.refused(now, sum(other.position > other.begun for other in origin.active))
        pause = min(delay, REFUSED_PAUSE_SECONDS)
        origin.paused_until = max(origin.paused_until, now + pause)
        self._put_back(segment, attempts, now + delay)

    def _put_back(self, segment: Segment, attempts: int, not_before: float) -> None:
        """Have what is left of a segment fetched later."""
        file, job = segment.file, segment.file.job
        if not file.remote.ranges:
            file.restart(attempts, not_before)
            job.enqueue(file)
        else:
            assert segment.end is not None  # noqa: S101
            job.give_back(file, Gap(segment.position, segment.end, attempts, not_before))

    def finish(self, file: FileJob) -> None:
        """Seal a file that is written and digested, once. Without the lock."""
        job = file.job
        with self.lock:
            done = file.written and not file.undigested and file.digester is None
            if not done or file.sealed or job.over:
                return
            file.sealed = True
            job.touched.add(file)
        failure: Exception | None
        try:
            failure = self._recheck(file) or file.seal()
        except OSError as error:
            failure = error
        except Exception as error:
            # It must neither end the thread nor keep the job waiting.
            log.exception("End of a file failed unexpectedly", path=file.remote.path)
            failure = internal(error)
        with self.lock:
            job.touched.discard(file)
            if failure is not None:
                job.fail(failure)
            else:
                job.end(file)
                self._digest_whole(job)
                if not job.unfinished:
                    job.ended.set()
            self.drained.notify_all()

    def _recheck(self, file: FileJob) -> DownloadError | FileChangedError | None:
        """What is wrong if a file is no longer the one that was listed, now that all of it is here.

        One stream looks itself at what it is a stream of.
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
                wait = retry_delay(error, attempts, self._jitter())
                if error.kind in {FailureKind.DENIED, FailureKind.THROTTLED}:
                    # Others of the model may be under way.
                    wait = refused_delay(error.kind, attempts, self._jitter())
                if wait is None:
                    return _told(error, file)
                job.ended.wait(wait)
            else:
                return None
        return None

    # Threads

    def _grow(self) -> None:
        """Have as many threads as connections are allowed. Under the lock."""
        origins = {job.remote.origin for job in self._jobs}
        wanted = min(MAX_THREADS, sum(self._origins[name].limit.now for name in origins))
        if origins and not self._threads:
            for number in range(min(4, os.cpu_count() or 1)):
                DigestWorker(self, number).start()
        while self._threads < wanted:
            FetchWorker(self, self._threads).start()
            self._threads += 1

    def _watch(self) -> None:
        checkpoint_at = self.clock() + CHECKPOINT_SECONDS
        while True:
            time.sleep(TICK_SECONDS)
            with self.lock:
                now = self.clock()
                if not self._jobs:
                    self._watching = False
                    return
                try:
                    crowded = self.crowd.look(now)
                    for origin in self._origins.values():
                        self._look(origin, now, crowded=crowded)
                    self._give_way(now)
                    self._grow()
                except Exception:
                    # Without the watch, nothing that waits would ever go on.
                    log.exception("Watch of ranges failed unexpectedly")
                self.ready.notify_all()
                files = [file for job in self._jobs for file in job.files if file.active]
            if now >= checkpoint_at:
                self._checkpoint(files)
                checkpoint_at = self.clock() + CHECKPOINT_SECONDS

    def _look(self, origin: Origin, now: float, *, crowded: bool) -> None:
        active = list(origin.active)
        # Connections that are between two ranges are busy too.
        busy = BUSY * origin.limit.now <= len(active)
        origin.limit.sample(origin.received, now, busy=busy, crowded=crowded)
        slow, stalled = origin.pace.look(active, origin.received, now)
        for segment in stalled:
            segment.stalled = True
            segment.abort()
        hedged = sum(segment.twin is not None for segment in active) // 2
        for segment in slow[: max(0, MAX_HEDGES - hedged)]:
            self._hedges.append(segment.hedge(now))

    def _checkpoint(self, files: Sequence[FileJob]) -> None:
        for file in files:
            try:
                file.staged.checkpoint()
            except OSError as error:
                with self.lock:
                    file.job.fail(error)


def _told(error: DownloadError, file: FileJob) -> DownloadError:
    """A refusal of what came until now."""
    if error.kind is not FailureKind.DENIED or not file.done:
        return error
    return DownloadError(
        error.kind,
        f"{error.message}. It came until now: if the URL is signed, its time may be over, so have "
        "it signed for longer",
        retry_after=error.retry_after,
        hides=error.hides,
    )
