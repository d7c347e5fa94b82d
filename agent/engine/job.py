"""What the engine knows of a model that it fetches. Changed only under the engine's lock."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from localmodel.agent.disk.blocks import Gap, carve
from localmodel.agent.disk.digests import Digests, is_cheap
from localmodel.agent.disk.staging import SYNC_EACH
from localmodel.agent.engine.ranges import range_bytes
from localmodel.agent.engine.retries import PROGRESS_BYTES
from localmodel.agent.structs.failures import DownloadError, FailureKind
from localmodel.agent.structs.remote import RangeIgnoredError

if TYPE_CHECKING:
    from localmodel.agent.disk.staging import StagedFile, Staging
    from localmodel.agent.structs.remote import Body, RemoteFile, RemoteModel

# How many large files are in work at once: each has a digest and a descriptor.
OPEN_FILES = 16
SMALL_BYTES = 1 << 20
# So many bytes are worth a thread's while.
DIGEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """One file that is in staging, complete and as its store says.

    `sha256` is None if it was left for later.
    """

    path: str
    size: int
    sha256: str | None
    version: str | None


@dataclass(eq=False)
class Segment:
    """A range that one connection fetches. `position` is the first byte that is not here yet.

    `twin` is a second request for the rest of a slow range: the first to end wins.
    """

    file: FileJob
    position: int
    end: int | None
    attempts: int
    started: float
    begun: int = 0
    # Bytes of its file that were here when it began.
    file_done: int = 0
    body: Body | None = None
    # Set while it is at the front of its file: the digests that it feeds.
    digests: Digests | None = None
    twin: Segment | None = None
    epoch: int = 0
    aborted: bool = False
    stalled: bool = False
    # It was ended for others' sake: what is left of it is fetched later.
    gave_way: bool = False
    # What `pace` remembers: what was here at its last look, since when it has been slow, and when
    # it had last come on.
    seen: int = 0
    slow_since: float | None = None
    mark_bytes: int = 0
    mark_time: float = 0.0

    def abort(self) -> None:
        """End it from another thread."""
        self.aborted = True
        if self.body is not None:
            self.body.abort()

    def hedge(self, now: float) -> Segment:
        """A second request for what is left of this one."""
        rest = Segment(
            self.file,
            self.position,
            self.end,
            0,
            now,
            begun=self.position,
            file_done=self.file.done,
            epoch=self.epoch,
        )
        rest.twin, self.twin = self, rest
        return rest

    def part(self) -> None:
        """It has ended: the other request, if there is one, is the only one."""
        if self.twin is not None:
            self.twin.twin = None
        self.twin = None

    def failed_attempts(self) -> int:
        """How many requests for its first missing byte have failed, with this one."""
        # One stream starts over, whatever came of it.
        progress = self.position - self.begun if self.file.remote.ranges else 0
        return 1 if progress >= PROGRESS_BYTES else self.attempts + 1


class FileJob:
    """One file: its gaps, the segments in work, and the digests as far as they are."""

    def __init__(self, job: Job, remote: RemoteFile, staged: StagedFile) -> None:
        self.job = job
        # Nothing would show that ranges are of several versions.
        unpinned = remote.version is None and remote.checksum is None
        whole = remote.size is None or unpinned
        self.remote = replace(remote, ranges=False) if whole else remote
        self.staged = staged
        self.later = job.later and is_cheap(remote.checksum)
        self.active: set[Segment] = set()
        # Who computes the digests now: a segment at the front, or a thread of digests.
        self.digester: object | None = None
        self.queued = False
        self.sealed = False
        # Segments of a former epoch are of no interest: the file has started over since.
        self.epoch = 0
        self._begin()

    def _begin(self) -> None:
        """Begin with what the disk has."""
        self.digests = Digests(self.remote.checksum, self.remote.size, ours=not self.later)
        if self.remote.size is None:
            self.gaps = deque([Gap(0, 0)])
        else:
            self.gaps = deque(self.staged.blocks.gaps())
        self.received = 0

    @property
    def done(self) -> int:
        """Bytes that are here."""
        return self.received if self.remote.size is None else self.staged.blocks.done

    @property
    def written(self) -> bool:
        """Whether all bytes are here."""
        if self.remote.size is None:
            return not self.gaps and not self.active
        return self.staged.blocks.complete

    @property
    def undigested(self) -> int:
        """How many bytes are here, in order, and not digested."""
        if self.remote.size is None:
            return 0
        return self.staged.blocks.frontier - self.digests.position

    @property
    def is_small(self) -> bool:
        """Whether it comes in one piece or a few, and is one of many that are synced together."""
        return (self.remote.size or 0) <= SMALL_BYTES and self.job.count > SYNC_EACH

    @property
    def is_behind(self) -> bool:
        """Whether a thread should digest what is here already."""
        return self.undigested >= DIGEST_BYTES

    def take(self, now: float, connections: int, left: int, *, alone: bool) -> Segment | None:
        """The next range to fetch, or None if there is none now.

        `alone` is whether the file is likely to have no other request meanwhile.
        """
        if not self.gaps or self.gaps[0].not_before > now:
            return None
        if self.active and not self.remote.ranges:
            # One stream at a time: what another still writes must not fall on top of it.
            return None
        gap = self.gaps.popleft()
        if not self.remote.ranges:
            end = self.remote.size
        else:
            gap, rest = carve(gap, range_bytes(left, connections, alone=alone))
            end = gap.end
            if rest is not None:
                self.gaps.appendleft(rest)
        segment = Segment(
            self,
            gap.start,
            end,
            gap.attempts,
            now,
            begun=gap.start,
            file_done=self.done,
            epoch=self.epoch,
        )
        self.active.add(segment)
        return segment

    def heed(self, error: DownloadError) -> None:
        """Take in that its source sends no ranges: then it is read in one stream."""
        if isinstance(error, RangeIgnoredError):
            self.remote = replace(self.remote, ranges=False)
            # What comes now need not be what the listing has.
            self.staged.goes_on = False

    def restart(self, attempts: int, not_before: float) -> None:
        """Fetch it all again."""
        self.epoch += 1
        self.digester = None
        for segment in self.active:
            segment.abort()
        self.job.done -= self.done
        self.staged.restart()
        self._begin()
        self.gaps[0].attempts, self.gaps[0].not_before = attempts, not_before

    def seal(self) -> DownloadError | None:
        """Close the complete file, if it is what its store says; otherwise what is wrong."""
        if not self.digests.agree:
            self.staged.restart()
            self.staged.close()
            return DownloadError(
                FailureKind.CORRUPT,
                f"{self.remote.path} from {self.job.remote.origin} is {self.digests.found}, and "
                f"its store says {self.remote.checksum}: check the file at its source, it is "
                "downloaded again by itself",
            )
        self.staged.seal(self.digests.position, sync=self.job.count <= SYNC_EACH)
        return None


@dataclass(eq=False)
class Job:
    """One model that is being fetched. Higher priorities come first, then lower numbers.

    Of its files, which may be many, there is a FileJob while they are in work alone.
    """

    remote: RemoteModel
    staging: Staging
    priority: int
    number: int
    cancelled: threading.Event
    # The namespace for which it is, empty for LocalModelCaches.
    owner: str = ""
    # Whether our digests are left out where the store's own checksum is cheaper.
    later: bool = False
    # Those in work, and what came of those that are sealed, by path.
    files: set[FileJob] = field(default_factory=set)
    fetched: dict[str, Fetched] = field(default_factory=dict)
    # Those with gaps that are in work, in turn, and those that wait, the largest first.
    turn: deque[FileJob] = field(default_factory=deque)
    waiting: deque[RemoteFile] = field(default_factory=deque)
    # Those that are here already and wait for their digests, and those of them that are in work.
    whole: deque[RemoteFile] = field(default_factory=deque)
    checked: set[FileJob] = field(default_factory=set)
    # Bytes to ask for, bytes that are here, bytes that came, files that are not sealed.
    left: int = 0
    done: int = 0
    received: int = 0
    unfinished: int = 0
    failure: BaseException | None = None
    # What may be touching the job's files on the disk now.
    touched: set[object] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)

    def arrange(self) -> None:
        """Take the files of the model, the largest first."""
        listed, here = self.remote.files, self.staging.staged.done
        self.unfinished = len(listed)
        for file in sorted(listed, key=lambda f: -(f.size or 0)):
            done = here(file.path)
            self.done += done
            self.left += (file.size or 0) - done
            (self.whole if done == file.size else self.waiting).append(file)

    @property
    def count(self) -> int:
        """How many files the model has."""
        return len(self.remote.files)

    def begin(self, remote: RemoteFile) -> FileJob:
        """A file that is in work from now on."""
        file = FileJob(self, remote, self.staging.staged[remote.path])
        self.files.add(file)
        return file

    def next_whole(self) -> FileJob | None:
        """One more file that is here already, if few of those are in work."""
        if not self.whole or len(self.checked) >= OPEN_FILES:
            return None
        file = self.begin(self.whole.popleft())
        self.checked.add(file)
        return file

    def end(self, file: FileJob) -> None:
        """A file is sealed: nothing but what came of it is of interest any more."""
        digests = file.digests
        for segment in file.active:
            if segment.position != segment.end:
                # A second request has brought all of it.
                segment.abort()
        self.files.discard(file)
        self.checked.discard(file)
        self.staging.staged.forget(file.remote.path)
        self.fetched[file.remote.path] = Fetched(
            file.remote.path, digests.position, digests.sha256, file.remote.version
        )
        self.unfinished -= 1

    @property
    def over(self) -> bool:
        """Whether nothing is to be fetched any more."""
        return self.failure is not None or self.cancelled.is_set() or self.unfinished == 0

    @property
    def has_more(self) -> bool:
        """Whether there is something left to ask for."""
        return bool(self.turn or self.waiting)

    def take(self, now: float, connections: int) -> Segment | None:
        """The next range: of each file in work in turn, so that most are digested as they come."""
        while len(self.turn) < OPEN_FILES and self.waiting:
            self.turn.append(self.begin(self.waiting.popleft()))
        alone = 2 * len(self.turn) >= connections
        for _ in range(len(self.turn)):
            file = self.turn.popleft()
            segment = file.take(now, connections, self.left, alone=alone)
            if file.gaps:
                self.turn.append(file)
            if segment is not None:
                self.left -= (segment.end or 0) - segment.position
                return segment
        return None

    def give_back(self, file: FileJob, gap: Gap) -> None:
        """Bytes that were asked for and did not come."""
        file.gaps.appendleft(gap)
        self.left += gap.end - gap.start
        self.enqueue(file)

    def enqueue(self, file: FileJob) -> None:
        """Let a file with gaps have its turn."""
        if file not in self.turn:
            self.turn.appendleft(file)

    def fail(self, failure: BaseException) -> None:
        """End it; the first failure counts."""
        if self.failure is None:
            self.failure = failure
        self.ended.set()
        self.stop()

    def stop(self) -> None:
        """Abort all that is under way."""
        for file in self.files:
            for segment in file.active:
                segment.abort()


class FileChangedError(Exception):
    """A file is no longer the one that was listed."""

    def __init__(self, path: str, failure: DownloadError) -> None:
        super().__init__(failure.message)
        self.path = path
        self.failure = failure
