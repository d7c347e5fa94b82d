"""Downloads in threads: what the loop starts, cancels, and hears the end of."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from localmodel.agent.capacity.places import Hold, had_its_time
from localmodel.agent.disk.watch import probe
from localmodel.agent.jobs import memory
from localmodel.agent.jobs.adoption.adopting import Refusals
from localmodel.agent.jobs.digest_read import with_digests
from localmodel.agent.jobs.download import Download, Progress
from localmodel.agent.jobs.rechecks import digest_of
from localmodel.agent.jobs.reservations import NoRoomError
from localmodel.agent.jobs.scrub_read import ScrubReader, ScrubStoppedError
from localmodel.agent.sources.readable import check_readable
from localmodel.agent.sources.waits import LISTING_SECONDS, listing_bytes, waiting
from localmodel.agent.structs.failures import CancelledError, DownloadError, FailureKind
from localmodel.agent.structs.grants import check_same
from localmodel.agent.structs.notes import BadFile
from localmodel.agent.structs.requests import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from localmodel.agent.disk.store import Store
    from localmodel.agent.engine.engine import Engine
    from localmodel.agent.jobs.rechecks import Recheck
    from localmodel.agent.jobs.reservations import Reservations
    from localmodel.agent.sources import Sources
    from localmodel.agent.structs.adoption import Adopted
    from localmodel.agent.structs.credentials import Credentials
    from localmodel.agent.structs.manifest import Manifest
    from localmodel.agent.structs.requests import Request, Requester

# A check of access has less time than a listing for a download: others may wait for theirs.
CHECK_SECONDS = 120.0
# Speeds over less than this are noise.
MIN_SAMPLE_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass
class Task:
    """One running download. Only its thread writes `progress`, only the loop the sample.

    Times are monotonic seconds; the first sample is the start.
    """

    request: Request
    sampled_at: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: Progress | None = None
    in_use: bool = False
    origin: str | None = None
    # What was here when it began; its thread writes it too.
    here: int = 0
    sampled_bytes: int = 0
    bytes_per_second: int | None = None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.sampled_at

    def hold(self, now: float, request: Request | None) -> Hold:
        """Its place. `request` is what is asked for now, None for nothing."""
        came = self.progress.done - self.here if self.progress else 0
        return Hold(
            self.request.requester.namespace,
            had_its_time(now - self.started, came),
            wanted=request is not None and not self.cancelled.is_set(),
        )

    def transfer(self, now: float) -> Transfer:
        """How far it is. The speed is that since the sample before, a second ago or more."""
        progress = self.progress
        requester = self.request.requester
        if progress is None:
            return Transfer(requester=requester)
        if progress.comparing:
            return Transfer(progress.done, progress.total, adopting=True, requester=requester)
        elapsed = now - self.sampled_at
        if elapsed >= MIN_SAMPLE_SECONDS:
            # What was here before has not come in this time.
            came = progress.done - max(self.sampled_bytes, self.here)
            self.bytes_per_second = int(came / elapsed)
            self.sampled_at, self.sampled_bytes = now, progress.done
        return Transfer(
            progress.done,
            progress.total,
            self.bytes_per_second,
            listed=True,
            requester=requester,
        )


@dataclass(frozen=True)
class Finished:
    """A download has ended: well, with an error, by a cancellation, or for want of room."""

    request: Request
    error: DownloadError | None = None
    cancelled: bool = False
    no_room: bool = False
    # It went well, and most of it was in a folder that was adopted.
    adopted: Adopted | None = None

    @property
    def is_success(self) -> bool:
        """Whether the model was published."""
        return self.error is None and not self.cancelled and not self.no_room


@dataclass(frozen=True)
class AccessResult:
    """The source of a copy was asked with the credentials of this attempt's requester.

    `manifest` is the copy's at that time; `origin` the server that has told the same, None if there
    is an error, or where it need not be asked. `credentials` is the digest of what it was asked
    with.
    """

    attempt: Request
    manifest: Manifest
    origin: str | None = None
    error: DownloadError | None = None
    credentials: str = ""


@dataclass(frozen=True)
class Digested:
    """The digests of a published model that were left for later; None if they could not be had."""

    key: str
    manifest: Manifest | None


@dataclass(frozen=True)
class Scrubbed:
    """The bad files of a published model that was read; None if nothing can be said of it."""

    key: str
    bad: tuple[BadFile, ...] | None
    # That of the call.
    stopped: threading.Event


# What is told of what was started.
End = Finished | Digested | Scrubbed | AccessResult


@dataclass(frozen=True)
class Fetching:
    """What downloads are made with. `credentials` gives a requester's, or DownloadError."""

    sources: Sources
    engine: Engine
    credentials: Callable[[Requester], Credentials | None] = lambda _: None


class Workers:
    """Threads for downloads. They are daemons: an exit does not wait for a slow origin.

    Unless `adopts`, they leave alone what others have put in a model's place.
    """

    def __init__(
        self,
        fetching: Fetching,
        store: Store,
        reservations: Reservations,
        tell: Callable[[End], None],
        *,
        adopts: bool = True,
    ) -> None:
        self._fetching = fetching
        self._store = store
        self._reservations = reservations
        self._tell = tell
        self._refusals = Refusals() if adopts else None
        # One after the other: they are in no hurry, and share the disk with downloads.
        self._digesting = threading.Lock()

    def start(
        self, request: Request, now: float, *, in_use: bool = False, origin: str | None = None
    ) -> Task:
        """Start a download; its end is told from its own thread.

        `in_use` is whether a pod may mount the copy that is here, `origin` the server that it must
        come from, None: any.
        """
        task = Task(request, now, in_use=in_use, origin=origin)
        name = f"download-{request.key}"
        threading.Thread(target=self._work, args=(task,), name=name, daemon=True).start()
        return task

    def retain(self, keys: Collection[str]) -> None:
        """Forget what is known of all other models, and what sources keep and nobody uses."""
        if self._refusals is not None:
            self._refusals.keep(keys)
        self._fetching.sources.tidy()

    def digest(self, manifest: Manifest, stopped: threading.Event) -> None:
        """Compute the digests that were left for later; their end is told from another thread."""
        name = f"digest-{manifest.key}"
        threading.Thread(
            target=self._digest, args=(manifest, stopped), name=name, daemon=True
        ).start()

    def _digest(self, manifest: Manifest, stopped: threading.Event) -> None:
        with self._digesting:
            try:
                found = with_digests(self._store.path(manifest.key), manifest, stopped.is_set)
            except OSError as error:
                log.warning("Could not digest a model", key=manifest.key, reason=str(error))
                self._tell(Digested(manifest.key, None))
            else:
                self._tell(Digested(manifest.key, found))

    def scrub(self, manifest: Manifest, rate: int, stopped: threading.Event) -> None:
        """Read a model at `rate` bytes per second; the end is told from another thread."""
        name = f"scrub-{manifest.key}"
        threading.Thread(
            target=self._scrub, args=(manifest, rate, stopped), name=name, daemon=True
        ).start()

    def _scrub(self, manifest: Manifest, rate: int, stopped: threading.Event) -> None:
        bad = None
        try:
            closed = self._opened(manifest)
            rest = manifest.model_copy(
                update={"files": tuple(f for f in manifest.files if f.path not in closed)}
            )
            bad = (
                *(BadFile(path=path, problem=problem) for path, problem in closed.items()),
                *ScrubReader(rate, stopped).bad_files(self._store.path(manifest.key), rest),
            )
            if bad:
                # Where the whole disk is away, no file is bad.
                probe(self._store)
        except ScrubStoppedError:
            bad = None
        except OSError as error:
            bad = None
            log.warning("Could not read a model", key=manifest.key, reason=str(error))
        self._tell(Scrubbed(manifest.key, bad, stopped))

    def _opened(self, manifest: Manifest) -> dict[str, str]:
        """Have everybody read a model. Returns the files where that cannot be done, and why."""
        closed = dict(self._store.open_up(manifest))
        files = {file.path for file in manifest.files}
        for path in closed.keys() - files:
            # Nothing that is fetched anew would change that.
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
        """Ask a copy's source on a requester's behalf; the end is told from another thread.

        It comes soon once `ended` is set. `again` is for one who has the copy.
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
            # Who may list need not be allowed to read.
            with waiting(LISTING_SECONDS, ended.is_set):
                check_readable(remote)
        except DownloadError as error:
            self._tell(AccessResult(attempt, manifest, error=error))
        except Exception as error:
            log.exception("Check of access failed unexpectedly", key=attempt.key)
            self._tell(AccessResult(attempt, manifest, error=_fault(error)))
        else:
            self._tell(AccessResult(attempt, manifest, remote.origin, credentials=digest))

    def _work(self, task: Task) -> None:
        end = self._download(task)
        memory.give_back()
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
            in_use=task.in_use,
            origin=task.origin,
            report=report,
            reserve=lambda size, coming: self._reservations.grow(request, size, coming),
            refusals=self._refusals,
        )
        try:
            download.run()
        except CancelledError:
            return Finished(request, cancelled=True)
        except NoRoomError:
            return Finished(request, no_room=True)
        except DownloadError as error:
            return Finished(request, error)
        except Exception as error:
            # A fault of ours must not end the agent: it is one model's failure like any other.
            log.exception("Download failed unexpectedly", key=request.key)
            return Finished(request, _fault(error))
        return Finished(request, adopted=download.adopted)


def _fault(error: Exception) -> DownloadError:
    return DownloadError(
        FailureKind.INTERNAL,
        f"the agent failed with {type(error).__name__}: see its log, and report it",
    )
