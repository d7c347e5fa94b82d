"""The state that an engine's threads share: jobs, running segments, and files to digest.

Public methods take the lock; methods whose names end with `_locked` are called with the lock held.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from agent.engine.connection_shares import Shares, share
from agent.engine.failed_ranges import set_back, set_back_of_peer
from agent.engine.job import DIGEST_BYTES, WrongPiecesError
from agent.engine.origins import Origins
from agent.engine.swarm import MAX_CONNECTIONS
from agent.structs.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.disk.staging import Checkpoint
    from agent.engine.job import FileJob, Job, Segment
    from agent.engine.limits import Limits
    from agent.structs.exchange import Lane
    from agent.structs.remote import Body

# The connections of all origins together: each has a thread.
MAX_THREADS = 64


class AbandonedError(Exception):
    """A segment is not needed any more."""


class Schedule:
    """The jobs by priority, the origins that they are fetched from, and the digest queue."""

    def __init__(
        self,
        limits: Limits,
        *,
        jitter: Callable[[], float],
        stall_seconds: float,
    ) -> None:
        # From 0 to 1, for the delays of retries.
        self.jitter = jitter
        self._limits = limits
        self._bucket = TokenBucket(limits.bytes_per_second)
        self._lock = threading.Lock()
        # Notified when there may be a range to fetch, a file to digest, or nothing left that
        # touches a job's files.
        self._fetchable = threading.Condition(self._lock)
        self._digestible = threading.Condition(self._lock)
        self._released = threading.Condition(self._lock)
        # One for each running call of Engine.fetch.
        self._jobs: list[Job] = []
        self._origins = Origins(stall_seconds)
        self._shares = Shares()
        # Second requests for slow segments, and files to digest. Bounded by the jobs: each segment
        # has at most one second request, and a file is queued at most once.
        self._hedges: deque[Segment] = deque()
        self._digest_queue: deque[FileJob] = deque()

    # For the engine

    def set_limits(self, limits: Limits) -> None:
        """Change the limits, also for running jobs."""
        with self._lock:
            self._limits = limits
            self._bucket.rate = limits.bytes_per_second
            self._use_origins_locked()
            self._fetchable.notify_all()

    def add(self, job: Job) -> None:
        """Start to fetch the files of a job."""
        with self._lock:
            self._jobs.append(job)
            self._jobs.sort(key=_order)
            self._use_origins_locked()
            self._digest_whole_locked(job)
            self._fetchable.notify_all()

    def remove(self, job: Job) -> None:
        """Remove a job. Returns once no thread touches its files any more."""
        with self._lock:
            self._jobs.remove(job)
            job.ended.set()
            job.stop()
            while job.touched:
                self._released.wait()
            self._hedges = deque(one for one in self._hedges if one.file.job is not job)
            self._use_origins_locked()

    def fail(self, job: Job, failure: BaseException) -> None:
        """End a job with a failure; only its first failure counts."""
        with self._lock:
            job.fail(failure)

    def connections(self) -> int:
        """How many connections may be open now, to all origins together; 0 without a job."""
        with self._lock:
            allowed = sum(origin.limit.now for origin in self._origins.in_use.values())
            swarms = sum(job.swarm is not None for job in self._jobs)
            return min(MAX_THREADS, allowed + swarms * MAX_CONNECTIONS)

    def watch(self, *, cpu_bound: bool) -> None:
        """Adapt the connection limits, hedge or abort slow segments, and enforce the shares.

        Called several times a second. `cpu_bound`: the fetch threads wait for a CPU.
        """
        with self._lock:
            now = time.monotonic()
            self._jobs.sort(key=_order)
            try:
                for origin in self._origins.in_use.values():
                    self._hedges += origin.watch(now, cpu_bound=cpu_bound)
                for job in self._jobs:
                    if job.swarm is not None:
                        self._hedges += job.swarm.watch(now)
                self._enforce_shares_locked(now)
            finally:
                # The end of a pause or of a retry's delay notifies nobody.
                self._fetchable.notify_all()

    def tell(self, job: Job) -> None:
        """Note that a peer of a job has new pieces."""
        with self._lock:
            if job.swarm is not None:
                job.swarm.refresh(time.monotonic())
                self._fetchable.notify()

    def active_files(self) -> list[FileJob]:
        """The files that have running segments."""
        with self._lock:
            return [file for job in self._jobs for file in job.files if file.active]

    def _use_origins_locked(self) -> None:
        self._origins.use(self._jobs, self._limits.connections_per_origin)

    # For the threads that fetch

    def next_segment(self) -> Segment:
        """Wait for the next range to fetch, and return it as a running segment."""
        with self._lock:
            while True:
                segment = self._take_locked(time.monotonic())
                if segment is not None:
                    if segment.lane is None:
                        self._origins[segment.file.job].active.add(segment)
                        segment.file.job.from_origin.add(segment)
                    return segment
                self._fetchable.wait()

    def _take_locked(self, now: float) -> Segment | None:
        for _ in range(len(self._hedges)):
            hedge = self._hedges.popleft()
            first = hedge.twin
            if first is None or first.writes_from is None or hedge.file.job.over:
                continue
            if first.is_writing or not self._origins[hedge.file.job].may_ask(now):
                # `watch` wakes this thread again.
                self._hedges.append(hedge)
                continue
            hedge.follow(first, now)
            return hedge
        owners = len({job.owner for job in self._jobs})
        if owners > 1:
            # Jobs of owners below their share come first.
            active, most = self._active_of_owners_locked(), share(MAX_THREADS, owners)
            for job in self._jobs:
                origin = self._origins[job]
                here = sum(one.file.job.owner == job.owner for one in origin.active)
                if active[job.owner] < most and here < share(origin.limit.now, owners):
                    segment = self._take_of_locked(job, now)
                    if segment is not None:
                        return segment
        return next(filter(None, (self._take_of_locked(job, now) for job in self._jobs)), None)

    def _take_of_locked(self, job: Job, now: float) -> Segment | None:
        origin = self._origins[job]
        segment = job.take_from_peer(now)
        if segment is None and not job.over and origin.has_room(now):
            segment = job.take(now, origin.limit.now)
        return segment

    def _active_of_owners_locked(self) -> Counter[str]:
        return Counter(
            segment.file.job.owner
            for origin in self._origins.in_use.values()
            for segment in origin.active
        )

    def _enforce_shares_locked(self, now: float) -> None:
        """Abort segments of owners that are above their share while another owner waits."""
        wanting = {
            job.owner
            for job in self._jobs
            if job.has_more and not job.over and self._origins[job].has_room(now)
        }
        active = self._active_of_owners_locked()
        for owner, count in self._shares.excess(active, wanting, MAX_THREADS, now).items():
            theirs = [
                segment
                for origin in self._origins.in_use.values()
                for segment in origin.active
                if segment.file.job.owner == owner and not segment.aborted
            ]
            # Files without ranges would start over: their segments are aborted last.
            theirs.sort(key=lambda one: (not one.file.remote.ranges, -one.started))
            for segment in theirs[:count]:
                segment.is_preempted = True
                segment.abort()

    def attach(self, segment: Segment, body: Body) -> int:
        """Note that a segment begins to write. Returns the connection limit of its origin.

        Raises AbandonedError if the segment is not needed any more.
        """
        file = segment.file
        with self._lock:
            _check_is_needed(segment)
            segment.body, segment.awaits_bytes = body, False
            file.job.touched.add(segment)
            # Only the file's lone segment digests what it writes: beside other segments it would
            # delay the first missing byte, for which the digests of their bytes wait.
            lone = len(file.active) == 1
            if lone and file.digester is None and file.digests.position == segment.position:
                file.digester, segment.digests = segment, file.digests
            return self._origins[file.job].limit.now

    def begin_write(self, segment: Segment) -> None:
        """Note that a segment is about to write bytes.

        Raises AbandonedError if the segment is not needed any more.
        """
        with self._lock:
            _check_is_needed(segment)
            segment.is_writing = True
            if segment.twin is not None and segment.digests is not None:
                # Both requests write the same bytes now: digest threads digest what is final.
                segment.digests = segment.file.digester = None

    def received(self, segment: Segment, count: int) -> float:
        """Count bytes that a segment wrote. Returns how many seconds to wait before the next ones.

        Raises AbandonedError if the segment is not needed any more.
        """
        file, job = segment.file, segment.file.job
        with self._lock:
            segment.is_writing = False
            _check_is_needed(segment)
            start, before = segment.position, file.done
            segment.position = end = start + count
            if job.swarm is not None and segment.lane is not None:
                job.swarm.came(count, time.monotonic())
            else:
                self._origins[job].received += count
                job.received += count
            if file.remote.size is None:
                file.received = end
            else:
                file.staged.mark(start, end)
                if file.digester is None and file.is_behind:
                    self._digest_locked(file)
                file.tell(file.completed(start, end))
            job.done += file.done - before
            return self._bucket.take(count, time.monotonic())

    def end(self, segment: Segment, error: BaseException | None = None) -> None:
        """Note that a segment has ended, completely or with an error."""
        file, job = segment.file, segment.file.job
        with self._lock:
            now, origin = time.monotonic(), self._origins[job]
            origin.active.discard(segment)
            job.from_origin.discard(segment)
            file.active.discard(segment)
            job.touched.discard(segment)
            if file.digester is segment:
                file.digester = None
            if error is None:
                if segment.twin is not None:
                    segment.twin.abort()
            elif not job.over and segment.epoch == file.epoch:
                failure = (
                    set_back(segment, error, origin, now, self.jitter())
                    if segment.lane is None
                    else set_back_of_peer(segment, error)
                )
                if failure is not None:
                    job.fail(failure)
            if job.swarm is not None:
                job.swarm.ended(segment, file.shared, error, now)
            segment.detach_twin()
            if segment.lane is None:
                file.tell_asked()
            if file.undigested:
                self._digest_locked(file)
            self._released.notify_all()
            if file.gaps:
                self._fetchable.notify()

    # For the thread that watches

    def begin_checkpoint(self, file: FileJob) -> Checkpoint | None:
        """What a sync of a file makes durable; None: nothing. `end_checkpoint` must follow."""
        with self._lock:
            if file.sealed or file.job.over:
                return None
            checkpoint = file.staged.begin_checkpoint()
            if checkpoint is not None:
                file.job.touched.add(checkpoint)
            return checkpoint

    def end_checkpoint(
        self, file: FileJob, checkpoint: Checkpoint, failure: OSError | None, *, is_done: bool
    ) -> None:
        """Note that a file was synced (`is_done`), or the failure of that."""
        with self._lock:
            try:
                if failure is not None:
                    file.job.fail(failure)
                    file.staged.forget_unsynced()
                elif is_done and not file.sealed:
                    file.staged.end_checkpoint(checkpoint)
            except OSError as error:
                file.job.fail(error)
            finally:
                file.job.touched.discard(checkpoint)
                self._released.notify_all()

    # For the threads that digest

    def _digest_locked(self, file: FileJob) -> None:
        """Queue a file for the digest threads."""
        if not file.queued and file.digester is None and not file.job.over:
            file.queued = True
            self._digest_queue.append(file)
            self._digestible.notify()

    def _digest_whole_locked(self, job: Job) -> None:
        """Queue files that were complete before the job began, a few at a time."""
        while not job.over and (file := job.next_whole()) is not None:
            self._digest_locked(file)

    def next_to_digest(self, digester: object) -> FileJob | None:
        """Wait for the next file to digest; None if that file needs no digest thread any more."""
        with self._lock:
            while not self._digest_queue:
                self._digestible.wait()
            file = self._digest_queue.popleft()
            file.queued = False
            if file.digester is not None or file.sealed or file.job.over:
                return None
            file.digester = digester
            file.job.touched.add(digester)
            return file

    def undigested(self, file: FileJob, digester: object, most: int) -> int:
        """How many bytes to digest next, at most `most`; 0 if too few are here to be worth it."""
        with self._lock:
            count = min(file.undigested, most)
            enough = count >= min(DIGEST_BYTES, most) or file.written
            is_needed = file.digester is digester and not file.job.over
            return count if enough and is_needed else 0

    def end_digest(self, file: FileJob, digester: object) -> None:
        """Note that a digest thread is done with a file for now."""
        with self._lock:
            if file.digester is digester:
                file.digester = None
                if file.undigested and (file.written or file.is_behind):
                    # More bytes were written meanwhile.
                    self._digest_locked(file)
            file.job.touched.discard(digester)
            self._released.notify_all()

    # The end of a file

    def blame(self, file: FileJob, lane: Lane) -> None:
        """Leave out a peer that sent wrong bytes of a file."""
        with self._lock:
            file.senders.excluded.add(lane)
            swarm = file.job.swarm
        # Where pieces are passed on unverified, another peer may have been the first to send them.
        if swarm is not None and not swarm.relays:
            swarm.exchange.blame(lane, file.remote.path)

    def begin_seal(self, file: FileJob) -> bool:
        """Whether to seal a file now: it is written and digested. True at most once a file."""
        with self._lock:
            done = file.written and file.digested and file.digester is None
            if not done or file.sealed or file.job.over:
                return False
            file.sealed = True
            file.job.touched.add(file)
            return True

    def end_seal(self, file: FileJob, failure: BaseException | None) -> None:
        """Note that a file was sealed, or the failure of that."""
        job = file.job
        with self._lock:
            job.touched.discard(file)
            if isinstance(failure, WrongPiecesError):
                file.distrust(failure.liars)
                self._fetchable.notify_all()
            elif failure is not None:
                job.fail(failure)
            else:
                file.tell_all()
                job.end(file)
                self._digest_whole_locked(job)
                if not job.unfinished:
                    job.ended.set()
            self._released.notify_all()


def _check_is_needed(segment: Segment) -> None:
    if segment.aborted or segment.file.job.over or segment.epoch != segment.file.epoch:
        raise AbandonedError


def _order(job: Job) -> tuple[bool, int, int]:
    return job.order
