"""Fetches the files of models in ranges, in the order of the models' priorities.

The engine starts the threads and watches them; `schedule` has their common state, `workers` has
what they do.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from typing import TYPE_CHECKING

from agent.engine.cpu_pressure import CpuPressure
from agent.engine.job import Job
from agent.engine.limits import Limits
from agent.engine.pace import STALL_SECONDS
from agent.engine.schedule import Schedule
from agent.engine.swarm import Swarm
from agent.engine.workers import DigestWorker, FetchWorker
from agent.structs.failures import CancelledError
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.disk.staging import Staging
    from agent.engine.job import Fetched
    from agent.structs.exchange import Exchange
    from agent.structs.remote import RemoteModel

TICK_SECONDS = 0.1
CHECKPOINT_SECONDS = 30.0
MAX_DIGEST_THREADS = 4


class Engine:
    """Fetches several models at once. Methods may be called from any thread."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        jitter: Callable[[], float] = random.random,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._schedule = Schedule(limits or Limits(), jitter=jitter, stall_seconds=stall_seconds)
        self._pressure = CpuPressure()
        self._numbers = itertools.count()
        # Held while threads are started, and while the watching thread decides whether to end.
        self._starting = threading.Lock()
        self._threads = 0
        self._watching = False

    def set_limits(self, limits: Limits) -> None:
        """Change the limits, also for running downloads."""
        self._schedule.set_limits(limits)
        self._start_threads()

    def fetch(
        self,
        remote: RemoteModel,
        staging: Staging,
        *,
        priority: int,
        is_urgent: Callable[[], bool] = lambda: False,
        owner: str = "",
        cancelled: threading.Event,
        later: bool,
        report: Callable[[int], None],
        received: Callable[[int], None] = lambda _size: None,
        exchange: Exchange | None = None,
        received_from_peers: Callable[[int], None] = lambda _size: None,
    ) -> tuple[Fetched, ...]:
        """Fetch the files of a model into `staging`, on which `begin` was called with them.

        `report` is called with the bytes on the disk, several times a second, and so is `received`
        with the bytes that came from the origin since its last call; `received_from_peers` likewise
        with those from the peers of `exchange`. With `later`, no SHA-256 is computed of files whose
        store has a cheaper checksum, unless they are exchanged. Owners (namespaces) get
        equal shares of the connections. As long as `is_urgent()`, the model comes before those of
        higher priorities. Raises DownloadError, FileChangedError, CancelledError,
        and OSError for the disk.
        """
        job = Job(
            remote, staging, priority, next(self._numbers), cancelled, owner, later, is_urgent
        )
        if exchange is not None:
            self._join(job, exchange)
        job.arrange()
        report(job.done)
        self._schedule.add(job)
        tell = _Told(received, received_from_peers)
        try:
            self._start_threads()
            while not job.ended.wait(TICK_SECONDS):
                if cancelled.is_set():
                    raise CancelledError
                report(job.done)
                tell.of(job)
            report(job.done)
        finally:
            self._schedule.remove(job)
            tell.of(job)
        if job.failure is not None:
            raise job.failure
        return tuple(job.fetched[file.path] for file in remote.files)

    def _join(self, job: Job, exchange: Exchange) -> None:
        """Begin to exchange the files of a job that have a known digest."""
        job.swarm = Swarm(exchange, time.monotonic())
        shared = [one for file in job.remote.files if (one := job.shared(file)) is not None]
        exchange.begin(shared, lambda: self._schedule.tell(job))
        job.swarm.refresh(time.monotonic())

    def _start_threads(self) -> None:
        """Start threads: one for each allowed connection, and one that watches the others."""
        with self._starting:
            wanted = self._schedule.connections()
            if wanted and not self._threads:
                for number in range(min(MAX_DIGEST_THREADS, os.cpu_count() or 1)):
                    DigestWorker(self._schedule, number).start()
            while self._threads < wanted:
                FetchWorker(self._schedule, self._pressure, self._threads).start()
                self._threads += 1
            if wanted and not self._watching:
                threading.Thread(target=self._watch, name="watch-ranges", daemon=True).start()
                # Last: where no thread can be started now, the next call tries again.
                self._watching = True

    def _watch(self) -> None:
        """Adapt the connections, and make received bytes durable, as long as there is a job."""
        checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
        while True:
            with self._starting:
                if not self._schedule.connections():
                    self._watching = False
                    return
            try:
                self._schedule.watch(cpu_bound=self._pressure.sample(time.monotonic()))
                self._start_threads()
                if time.monotonic() >= checkpoint_at:
                    checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
                    self._checkpoint()
            except Exception:
                # Without this thread, a paused origin or a stalled request would wait for ever.
                log.exception("Watch of ranges failed unexpectedly")
            time.sleep(TICK_SECONDS)

    def _checkpoint(self) -> None:
        for file in self._schedule.active_files():
            checkpoint = self._schedule.begin_checkpoint(file)
            if checkpoint is None:
                continue
            failure: OSError | None = None
            is_done = False
            try:
                is_done = file.staged.sync()
            except OSError as error:
                failure = error
            self._schedule.end_checkpoint(file, checkpoint, failure, is_done=is_done)


class _Told:
    """Passes on what a job has received since the last time."""

    def __init__(
        self, received: Callable[[int], None], received_from_peers: Callable[[int], None]
    ) -> None:
        self._received = received
        self._received_from_peers = received_from_peers
        self._from_origin = 0
        self._from_peers = 0

    def of(self, job: Job) -> None:
        from_origin, from_peers = job.received, job.swarm.received if job.swarm else 0
        self._received(from_origin - self._from_origin)
        self._received_from_peers(from_peers - self._from_peers)
        self._from_origin, self._from_peers = from_origin, from_peers
