"""The threads that the loop starts: downloads, digests, scrubs and checks of access."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.capacity.places import Hold, had_its_time
from agent.disk.watch import probe
from agent.jobs import allocator
from agent.jobs.adoption.adopting import Refusals
from agent.jobs.digest_read import with_digests
from agent.jobs.download import Download, Progress
from agent.jobs.rechecks import digest_of
from agent.jobs.reservations import NoRoomError
from agent.jobs.scrub_read import ScrubReader
from agent.sources.readable import check_readable
from agent.sources.waits import LISTING_SECONDS, listing_bytes, waiting
from agent.structs.counts import NO_COUNTS, Counts
from agent.structs.failures import CancelledError, DownloadError, scheme, unexpected
from agent.structs.grants import check_same
from agent.structs.log import log
from agent.structs.manifest import Manifest
from agent.structs.records import BadFile
from agent.structs.requests import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from agent.disk.store import Store
    from agent.engine.engine import Engine
    from agent.jobs.rechecks import Recheck
    from agent.jobs.reservations import Reservations
    from agent.sources import Sources
    from agent.structs.adoption import Adopted
    from agent.structs.credentials import Credentials
    from agent.structs.exchange import PeerGroup
    from agent.structs.requests import Request, Requester

# A check of access gets less time than a listing for a download: other checks may wait for it.
CHECK_SECONDS = 120.0
# The shortest time that a speed is computed over.
MIN_SAMPLE_SECONDS = 1.0
# An estimate goes by the mean rate of about so long: by that of the whole download until then.
SMOOTH_SECONDS = 60.0
MAX_ESTIMATE = 365 * 86400.0


@dataclass
class Task:
    """One running download. Only its thread writes `progress`, only the loop the sample.

    Times are monotonic seconds; the first sample is the start.
    """

    request: Request
    sampled_at: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    # Set while a pod waits for the model.
    urgent: threading.Event = field(default_factory=threading.Event)
    progress: Progress | None = None
    in_use: bool = False
    origin: str | None = None
    # Bytes on the disk when the download began; written by its thread, too.
    here: int = 0
    sampled_bytes: int = 0
    bytes_per_second: int | None = None
    smooth_rate: float = 0.0
    completion_time: datetime | None = None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.sampled_at

    def hold(self, now: float, request: Request | None) -> Hold:
        """The place that it holds. `request` is the present request of its key, if any."""
        came = self.progress.done - self.here if self.progress else 0
        return Hold(
            self.request.requester.namespace,
            had_its_time(now - self.started, came),
            wanted=request is not None and not self.cancelled.is_set(),
        )

    def transfer(self, now: float, time: datetime | None = None) -> Transfer:
        """Its progress. The speed is measured since a sample at least a second ago.

        time: the wall clock's, for an estimate when the download is complete.
        """
        progress = self.progress
        requester = self.request.requester
        if progress is None:
            return Transfer(requester=requester)
        if progress.comparing:
            return Transfer(progress.done, progress.total, adopting=True, requester=requester)
        elapsed = now - self.sampled_at
        if elapsed >= MIN_SAMPLE_SECONDS:
            # Bytes that were on the disk before do not count as received.
            came = progress.done - max(self.sampled_bytes, self.here)
            self.bytes_per_second = int(came / elapsed)
            weight = max(elapsed / (now - self.started), 1 - math.exp(-elapsed / SMOOTH_SECONDS))
            self.smooth_rate += weight * (came / elapsed - self.smooth_rate)
            self.completion_time = time and self._completion_time(progress, time)
            self.sampled_at, self.sampled_bytes = now, progress.done
        return Transfer(
            progress.done,
            progress.total,
            self.bytes_per_second,
            self.completion_time,
            listed=True,
            requester=requester,
        )

    def _completion_time(self, progress: Progress, time: datetime) -> datetime | None:
        """When the download is complete; None while nothing comes, as an estimate would move."""
        left = (progress.total or 0) - progress.done
        if left <= 0 or not self.bytes_per_second:
            return None
        # Years ahead would be no estimate, and might be no date.
        seconds = left / self.smooth_rate
        return time + timedelta(seconds=math.ceil(seconds)) if seconds < MAX_ESTIMATE else None


@dataclass(frozen=True)
class Finished:
    """The end of a download: success, an error, a cancellation, or too little room."""

    request: Request
    error: DownloadError | None = None
    cancelled: bool = False
    no_room: bool = False
    # Set if the download adopted a folder.
    adopted: Adopted | None = None

    @property
    def is_success(self) -> bool:
        """Whether the model was published."""
        return self.error is None and not self.cancelled and not self.no_room


@dataclass(frozen=True)
class AccessResult:
    """The result of a check of access: a copy's source was asked with a requester's credentials.

    `manifest` is that of the copy at the start of the check. `origin` is the server that listed the
    same files; None after an error, or if the source was not asked. `credentials` is the digest of
    the credentials.
    """

    attempt: Request
    manifest: Manifest
    origin: str | None = None
    error: DownloadError | None = None
    credentials: str = ""


@dataclass(frozen=True)
class Digested:
    """The manifest of a published model with all digests; None if the files could not be read.

    `bad` are the files that differ from what was downloaded.
    """

    key: str
    # The event that was passed to `digest`.
    stopped: threading.Event
    manifest: Manifest | None = None
    bad: tuple[BadFile, ...] = ()


@dataclass(frozen=True)
class Scrubbed:
    """The bad files of a model that was scrubbed; None if the scrub had no result."""

    key: str
    bad: tuple[BadFile, ...] | None
    # The event that was passed to `scrub`.
    stopped: threading.Event


# The results that are passed to `tell`.
End = Finished | Digested | Scrubbed | AccessResult


@dataclass(frozen=True)
class Fetching:
    """What downloads use. `credentials` returns those of a requester, or raises DownloadError.

    `peers` is where downloads find the peers of their groups; None: no groups have peers.
    """

    sources: Sources
    engine: Engine
    credentials: Callable[[Requester], Credentials]
    peers: PeerGroup | None = None


class Workers:
    """Starts threads, and passes their results to `tell`, which may be called from any thread.

    The threads are daemons: the exit of the process does not wait for a slow origin. Without
    `adopts`, folders of other programs are never adopted.
    """

    def __init__(
        self,
        fetching: Fetching,
        store: Store,
        reservations: Reservations,
        tell: Callable[[End], None],
        *,
        adopts: bool = True,
        counts: Counts = NO_COUNTS,
    ) -> None:
        self._fetching = fetching
        self._counts = counts
        self._store = store
        self._reservations = reservations
        self._tell = tell
        self._refusals = Refusals() if adopts else None
        # Digests are computed one model after the other, since downloads need the disk.
        self._digesting = threading.Lock()

    def start(
        self, request: Request, now: float, *, in_use: bool = False, origin: str | None = None
    ) -> Task:
        """Start a download.

        `in_use`: a pod may mount the present copy. `origin` is the server that the model must come
        from; None: any.
        """
        task = Task(request, now, in_use=in_use, origin=origin)
        name = f"download-{request.key}"
        threading.Thread(target=self._work, args=(task,), name=name, daemon=True).start()
        return task

    def retain(self, keys: Collection[str]) -> None:
        """Forget all other keys, and close idle connections of the sources."""
        if self._refusals is not None:
            self._refusals.retain(keys)
        self._fetching.sources.tidy()

    def digest(self, manifest: Manifest, stopped: threading.Event) -> None:
        """Start to compute the missing digests of a model."""
        name = f"digest-{manifest.key}"
        threading.Thread(
            target=self._digest, args=(manifest, stopped), name=name, daemon=True
        ).start()

    def _digest(self, manifest: Manifest, stopped: threading.Event) -> None:
        key, end = manifest.key, Digested(manifest.key, stopped)
        with self._digesting:
            try:
                found = with_digests(self._store.path(key), manifest, stopped.is_set)
                if not isinstance(found, Manifest):
                    # Raises OSError if the whole disk has failed: then no file counts as bad.
                    probe(self._store)
            except CancelledError:
                pass
            except OSError as error:
                log.warning("Could not digest a model", key=key, reason=str(error))
            except Exception:
                log.exception("Digest of a model failed unexpectedly", key=key)
            else:
                if isinstance(found, Manifest):
                    end = Digested(key, stopped, found)
                else:
                    end = Digested(key, stopped, bad=found)
            self._tell(end)

    def scrub(self, manifest: Manifest, rate: int, stopped: threading.Event) -> None:
        """Start to scrub a model at `rate` bytes per second."""
        name = f"scrub-{manifest.key}"
        threading.Thread(
            target=self._scrub, args=(manifest, rate, stopped), name=name, daemon=True
        ).start()

    def _scrub(self, manifest: Manifest, rate: int, stopped: threading.Event) -> None:
        bad = None
        reader = ScrubReader(rate, stopped, read=self._counts.scrubbed)
        try:
            closed = self._opened(manifest)
            rest = replace(manifest, files=tuple(f for f in manifest.files if f.path not in closed))
            bad = (
                *(BadFile(path=path, problem=problem) for path, problem in closed.items()),
                *reader.bad_files(self._store.path(manifest.key), rest),
            )
            if bad:
                # Raises OSError if the whole disk has failed: then no file counts as bad.
                probe(self._store)
        except CancelledError:
            bad = None
        except OSError as error:
            bad = None
            log.warning("Could not read a model", key=manifest.key, reason=str(error))
        except Exception:
            # Without an end, no other model would ever be scrubbed.
            bad = None
            log.exception("Scrub of a model failed unexpectedly", key=manifest.key)
        self._tell(Scrubbed(manifest.key, bad, stopped))

    def _opened(self, manifest: Manifest) -> dict[str, str]:
        """Make a model readable to everybody. Returns the files where that fails, and why."""
        closed = dict(self._store.open_up(manifest))
        files = {file.path for file in manifest.files}
        for path in closed.keys() - files:
            # A repair fetches files, and cannot change the mode of a folder.
            log.warning(
                "Folder of a published model is closed to servers: chmod a+rx it on the node",
                key=manifest.key,
                folder=path,
                reason=closed[path],
            )
        return {path: problem for path, problem in closed.items() if path in files}

    def check(
        self,
        attempt: Request,
        manifest: Manifest,
        ended: threading.Event,
        again: Recheck | None = None,
    ) -> None:
        """Start a check whether a copy's source accepts a requester's credentials.

        The check ends soon once `ended` is set. `again` is given for requesters with access.
        """
        threading.Thread(
            target=self._check,
            args=(attempt, manifest, ended, again),
            name=f"check-{attempt.key}",
            daemon=True,
        ).start()

    def _check(
        self, attempt: Request, manifest: Manifest, ended: threading.Event, again: Recheck | None
    ) -> None:
        try:
            credentials = self._fetching.credentials(attempt.requester)
            digest = digest_of(credentials)
            if again is not None and not again.is_due and again.digest in {"", digest}:
                self._tell(AccessResult(attempt, manifest, credentials=digest))
                return
            source = self._fetching.sources.of(attempt.uri, attempt.requester.namespace)
            size = listing_bytes(attempt.requester.namespace)
            with waiting(CHECK_SECONDS, ended.is_set, size=size):
                remote = source.resolve(attempt.uri, credentials, None)
            if again is None:
                check_same(manifest, remote, attempt.requester)
            # Credentials that may list files need not be allowed to read them.
            with waiting(LISTING_SECONDS, ended.is_set):
                check_readable(remote)
        except DownloadError as error:
            self._tell(AccessResult(attempt, manifest, error=error.without_traceback()))
        except Exception as error:
            log.exception("Check of access failed unexpectedly", key=attempt.key)
            self._tell(AccessResult(attempt, manifest, error=unexpected(error)))
        else:
            self._tell(AccessResult(attempt, manifest, remote.origin, credentials=digest))

    def _work(self, task: Task) -> None:
        end = self._download(task)
        allocator.give_back()
        self._tell(end)

    def _download(self, task: Task) -> Finished:
        def report(progress: Progress) -> None:
            if task.progress is None or task.progress.comparing:
                task.here = progress.done
            task.progress = progress

        request = task.request
        download = Download(
            request,
            sources=self._fetching.sources,
            store=self._store,
            engine=self._fetching.engine,
            credentials=lambda: self._fetching.credentials(request.requester),
            cancelled=task.cancelled,
            is_urgent=task.urgent.is_set,
            in_use=task.in_use,
            origin=task.origin,
            report=report,
            received=partial(self._counts.received, scheme(request.uri)),
            reserve=lambda size, coming: self._reservations.grow(request, size, coming),
            refusals=self._refusals,
            peers=self._fetching.peers,
            received_from_peers=partial(self._counts.received_from_peers, scheme(request.uri)),
        )
        try:
            download.run()
        except CancelledError:
            return Finished(request, cancelled=True)
        except NoRoomError:
            return Finished(request, no_room=True)
        except DownloadError as error:
            return Finished(request, error.without_traceback())
        except Exception as error:
            # An unexpected error fails one model, and must not end the agent.
            log.exception("Download failed unexpectedly", key=request.key)
            return Finished(request, unexpected(error))
        return Finished(request, adopted=download.adopted)
