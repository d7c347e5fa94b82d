"""The state of a model that the engine fetches: its files and the segments in work.

Changed only with the schedule's lock held.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.disk.blocks import Gap, carve
from agent.disk.digests import Digests, is_cheap
from agent.disk.staging import SYNC_EACH
from agent.engine.piece_gaps import PieceGaps
from agent.engine.range_retries import PROGRESS_BYTES
from agent.engine.ranges import range_bytes
from agent.engine.senders import Senders
from agent.structs.exchange import SharedFile
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.pieces import all_pieces, piece_bytes, pieces_in, span
from agent.structs.remote import RangeIgnoredError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agent.disk.staging import StagedFile, Staging
    from agent.engine.swarm import Swarm
    from agent.structs.exchange import Lane
    from agent.structs.remote import Body, RemoteFile, RemoteModel

# How many files of a model are in work at once: each has digests and an open file descriptor.
OPEN_FILES = 16
# The same where peers may have any of them: for each batch, all nodes wait for each other's news.
SHARED_FILES = 128
SMALL_BYTES = 1 << 20
# The fewest bytes that a digest thread starts for, unless they are the file's last ones.
DIGEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete file in staging that matches its store's checksum.

    `sha256` is None if it is to be computed later.
    """

    path: str
    size: int
    sha256: str | None
    version: str | None


@dataclass(eq=False)
class Segment:
    """A range that one connection fetches. `position` is the first byte not yet received.

    `twin` is the other one of two requests for a slow range: the first to end wins.
    """

    file: FileJob
    position: int
    end: int | None
    attempts: int
    started: float
    # The bytes of its model from the origin when the last of those attempts ended.
    received_before: int = 0
    # Its first byte; and the bytes of its file on the disk, and of its model from the origin, when
    # it began. See `_begin`.
    begun: int = field(init=False)
    file_done: int = field(init=False)
    job_received: int = field(init=False)
    body: Body | None = None
    # Whether it waits for bytes from its sender; otherwise for the disk, or for this node.
    awaits_bytes: bool = True
    # The digests of its file, while it starts at the first undigested byte.
    digests: Digests | None = None
    # Whether a piece is being written: its bytes may be on the disk, and do not count yet.
    is_writing: bool = False
    twin: Segment | None = None
    # The peer that it is requested from; None: the origin.
    lane: Lane | None = None
    epoch: int = 0
    aborted: bool = False
    stalled: bool = False
    # It was aborted since its owner was above its share: the rest is fetched later.
    is_preempted: bool = False
    # State of `pace`: the position at its last look, since when the segment has been slow, and
    # the position and time that its stall is measured from.
    seen: int = 0
    slow_since: float | None = None
    mark_bytes: int = 0
    mark_time: float = 0.0

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.begun = self.position
        self.file_done, self.job_received = self.file.done, self.file.job.received

    @property
    def left(self) -> int | None:
        """The bytes that a second request would ask for; None if there may be none."""
        if self.twin is not None or self.end is None or not self.file.remote.ranges:
            return None
        return self.end - self.position

    def abort(self) -> None:
        """Make the request end. May be called from any thread."""
        self.aborted = True
        if self.body is not None:
            self.body.abort()

    @property
    def writes_from(self) -> int | None:
        """The first byte that it may still write; None if it writes nothing any more."""
        is_whole = self.end is not None and self.position >= self.end
        never_begins = self.aborted and self.body is None
        return None if is_whole or never_begins else self.position

    def hedge(self, now: float) -> Segment:
        """Make a second request for the rest of this segment; `follow` starts it."""
        rest = Segment(self.file, self.position, self.end, 0, now, epoch=self.epoch)
        rest.twin, self.twin = self, rest
        return rest

    def follow(self, first: Segment, now: float) -> None:
        """Start as the second request for what is left of the first one by now."""
        self.started, self.position = now, first.position
        self._begin()
        self.file.active.add(self)

    def detach_twin(self) -> None:
        """Make the other request, if there is one, the only one: this one has ended."""
        if self.twin is not None:
            self.twin.twin = None
        self.twin = None

    def failed_attempts(self) -> int:
        """How many requests for its first missing byte have failed, including this one."""
        # A file without ranges starts over: what it received does not count.
        progress = self.position - self.begun if self.file.remote.ranges else 0
        return 1 if progress >= PROGRESS_BYTES else self.attempts + 1


class WrongPiecesError(Exception):
    """A complete file is not what its digest says, and peers sent some of its pieces.

    `liars` are those of whom a sample was wrong; none: it is not known who sent wrong pieces.
    """

    def __init__(self, liars: frozenset[Lane] = frozenset()) -> None:
        super().__init__()
        self.liars = liars


class FileJob:
    """A file in work: its missing ranges (gaps), its running segments, and its digests."""

    def __init__(self, job: Job, remote: RemoteFile, staged: StagedFile) -> None:
        self.job = job
        # Without a version or a checksum, ranges of different versions could be mixed unnoticed.
        unpinned = remote.version is None and remote.checksum is None
        whole = remote.size is None or unpinned
        self.remote = replace(remote, ranges=False) if whole else remote
        self.staged = staged
        # Whether and how agents exchange it. Then all digests are needed before its publication.
        self.shared = job.shared(self.remote)
        self.later = job.later and is_cheap(remote.checksum) and self.shared is None
        has_unknown = self.shared is not None and staged.blocks.done > 0
        self.senders = Senders(remote.size or 0, has_unknown=has_unknown)
        self.active: set[Segment] = set()
        # What updates the digests now: a segment, or a digest thread.
        self.digester: object | None = None
        self.queued = False
        self.sealed = False
        # Incremented when the file starts over: results of older segments are dropped.
        self.epoch = 0
        self._begin()

    def _begin(self) -> None:
        """Set the state from what is on the disk."""
        self.digests = Digests(self.remote.checksum, self.remote.size, ours=not self.later)
        self.gaps: deque[Gap] | PieceGaps
        if self.remote.size is None:
            self.gaps = deque([Gap(0, 0)])
        elif self.shared is not None:
            self.gaps = PieceGaps(self.remote.size, self.staged.blocks.gaps())
        else:
            self.gaps = deque(self.staged.blocks.gaps())
        self.received = 0

    @property
    def done(self) -> int:
        """Bytes on the disk."""
        return self.received if self.remote.size is None else self.staged.blocks.done

    @property
    def written(self) -> bool:
        """Whether all bytes are on the disk."""
        if self.remote.size is None:
            return not self.gaps and not self.active
        return self.staged.blocks.complete

    @property
    def undigested(self) -> int:
        """How many bytes follow the digested ones without a gap, and are not written again.

        The slower one of two requests for a range may still write what the other one has written.
        Bytes that were digested must not change.
        """
        if self._ahead <= 0:
            return 0
        writes = (start for one in self.active if (start := one.writes_from) is not None)
        return max(0, min((self.staged.blocks.frontier, *writes)) - self.digests.position)

    @property
    def _ahead(self) -> int:
        """How many bytes follow the digested ones without a gap, final or not."""
        if self.remote.size is None:
            return 0
        return self.staged.blocks.frontier - self.digests.position

    @property
    def digested(self) -> bool:
        """Whether all bytes were digested."""
        return self.remote.size is None or self.digests.position == self.remote.size

    @property
    def is_small(self) -> bool:
        """Whether it is one of many small files, which are synced together at the end."""
        return (self.remote.size or 0) <= SMALL_BYTES and self.job.count > SYNC_EACH

    @property
    def is_behind(self) -> bool:
        """Whether enough bytes wait for a digest thread."""
        return self._ahead >= DIGEST_BYTES and self.undigested >= DIGEST_BYTES

    @property
    def unrequested(self) -> int:
        """The missing bytes that no running request asks for."""
        return sum(gap.end - gap.start for gap in self.gaps)

    @property
    def missing(self) -> int:
        """The pieces that no running request asks for, of a file that is exchanged."""
        return self.gaps.missing if isinstance(self.gaps, PieceGaps) else 0

    def take(self, now: float, connections: int, left: int, *, alone: bool) -> Segment | None:
        """Start the next segment from the origin; None if no range may be requested now.

        `left` and `alone` are as in `range_bytes`.
        """
        if isinstance(self.gaps, PieceGaps):
            return self._take_run(self.gaps, now, range_bytes(left, connections, alone=alone))
        if not self.gaps or self.gaps[0].not_before > now:
            return None
        if self.active and not self.remote.ranges:
            # One request at a time: an older one may still write to the same bytes.
            return None
        gap = self.gaps.popleft()
        if not self.remote.ranges:
            return self._start(gap, self.remote.size, now)
        gap, rest = carve(gap, range_bytes(left, connections, alone=alone))
        if rest is not None:
            self.gaps.appendleft(rest)
        return self._start(gap, gap.end, now)

    def take_piece(self, piece: int, lane: Lane, now: float) -> Segment:
        """Start a request for a missing piece to a peer that has it."""
        assert isinstance(self.gaps, PieceGaps)  # noqa: S101
        gap = self.gaps.take(piece)
        self.senders.ask(lane, piece, gap.start)
        segment = self._start(gap, gap.end, now)
        segment.lane = lane
        return segment

    def _take_run(self, gaps: PieceGaps, now: float, most: int) -> Segment | None:
        swarm, shared = self.job.swarm, self.shared
        allowed = -1
        if swarm is not None and shared is not None and not self.is_suspect:
            requests = [one.started for one in self.job.from_origin if one.file.shared is not None]
            if not swarm.may_ask_origin(len(requests), now):
                return None
            oldest = min(requests, default=None)
            allowed = swarm.of_origin(shared, oldest, now)
        gap = gaps.take_run(allowed, most, now)
        if gap is None:
            return None
        if swarm is not None:
            swarm.asked_origin(now)
        self.senders.ask_origin(gap)
        segment = self._start(gap, gap.end, now)
        self.tell_asked()
        return segment

    def _start(self, gap: Gap, end: int | None, now: float) -> Segment:
        segment = Segment(self, gap.start, end, gap.attempts, now, gap.received, epoch=self.epoch)
        self.active.add(segment)
        return segment

    def put_back(self, gap: Gap) -> None:
        """Put back missing bytes that were requested."""
        if isinstance(self.gaps, PieceGaps):
            self.gaps.put(gap)
        else:
            self.gaps.appendleft(gap)

    def completed(self, start: int, end: int) -> int:
        """The pieces that bytes from `start` to `end`, just written, have made complete."""
        shared, found = self.shared, 0
        if shared is not None:
            step = piece_bytes(shared.size)
            for piece in range(start // step, (end - 1) // step + 1):
                if self.staged.blocks.has(*span(piece, shared.size)):
                    found |= 1 << piece
        return found

    def adapt_to(self, error: DownloadError) -> None:
        """Read the file in one request from now on if its source turned out to send no ranges."""
        if isinstance(error, RangeIgnoredError):
            self.remote = replace(self.remote, ranges=False)
            self.stop_sharing()
            # The next answer may be of another version than the listing.
            self.staged.goes_on = False

    def restart(self, attempts: int, not_before: float) -> None:
        """Drop all bytes, and fetch the file from its beginning."""
        self.epoch += 1
        self.digester = None
        for segment in self.active:
            segment.abort()
        self.job.done -= self.done
        before = self.unrequested
        self.staged.restart()
        self._begin()
        self.job.left += self.unrequested - before
        for gap in self.gaps if isinstance(self.gaps, deque) else ():
            gap.attempts, gap.not_before = attempts, not_before
            gap.received = self.job.received

    def stop_sharing(self) -> None:
        """Fetch the file from its origin alone from now on. `restart` must follow."""
        if self.shared is not None and self.job.swarm is not None:
            self.job.swarm.exchange.lost(self.shared.digest)
        self.shared = None
        self.senders.forget()

    def tell(self, pieces: int) -> None:
        """Tell peers which pieces are on the disk: the origin's, unless all are passed on."""
        swarm, shared = self.job.swarm, self.shared
        if swarm is None or shared is None or not pieces:
            return
        told = pieces if swarm.relays else self.senders.without_peers(pieces)
        swarm.exchange.wrote(shared.digest, told)

    def tell_asked(self) -> None:
        """Tell peers which pieces are asked for at the origin now."""
        swarm, shared = self.job.swarm, self.shared
        if swarm is not None and shared is not None:
            swarm.exchange.asks(shared.digest, self._asked(shared))

    def _asked(self, shared: SharedFile) -> int:
        step, found = piece_bytes(shared.size), 0
        for segment in self.active:
            start, end = segment.position, segment.end
            if segment.lane is None and not segment.aborted and end is not None and start < end:
                found |= (2 << (end - 1) // step) - (1 << start // step)
        return found

    def tell_all(self) -> None:
        """Tell peers that the whole file is on the disk, and verified."""
        if self.job.swarm is not None and self.shared is not None:
            self.job.swarm.exchange.wrote(self.shared.digest, all_pieces(self.shared.size))

    def distrust(self, liars: frozenset[Lane]) -> None:
        """Fetch pieces of a wrong file again: see Senders."""
        self._drop(self.senders.distrust(liars))

    def start_over(self) -> Lane | None:
        """Fetch the file again from one peer. Returns the peer that was wrong, if it is known."""
        liar = self.senders.start_over()
        self._drop(0)
        return liar

    @property
    def is_suspect(self) -> bool:
        """Whether it is fetched from the origin alone, to find out who sent wrong bytes."""
        return self.senders.is_suspect

    def may_come_from(self, lane: Lane, live: Collection[Lane]) -> bool:
        """Whether a peer may be asked for a piece. `live` are the peers that answer."""
        return self.senders.may_send(lane, live)

    def _drop(self, pieces: int) -> None:
        """Count these pieces as missing; 0: all."""
        assert self.shared is not None  # noqa: S101
        self.epoch += 1
        self.digester, self.sealed = None, False
        for segment in self.active:
            segment.abort()
        done, unrequested, size = self.done, self.unrequested, self.shared.size
        self.staged.drop([span(piece, size) for piece in pieces_in(pieces)] or [(0, size)])
        self.job.done -= done - self.done
        self._begin()
        self.job.left += self.unrequested - unrequested
        if self.job.swarm is not None:
            self.job.swarm.exchange.lost(self.shared.digest)
        if pieces:
            self.tell(all_pieces(size) & ~pieces)
        self.job.enqueue(self)

    @property
    def is_wrong(self) -> bool:
        """Whether the complete file is not what its store, or the verified manifest, says.

        Where the store has no digest, what came from the origin alone counts more than a manifest.
        """
        if not self.digests.agree:
            return True
        is_other = self.shared is not None and self.digests.sha256 != self.shared.digest
        return is_other and self.senders.includes_peers

    def seal(self) -> DownloadError | WrongPiecesError | None:
        """Close the complete file. Returns a failure if it does not match its store's checksum."""
        if self.is_wrong and self.senders.includes_peers:
            return WrongPiecesError()
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
    """A model that is being fetched.

    Urgent models come first, which may change, then higher priorities, then lower numbers. A model
    may have very many files: only those in work have a FileJob.
    """

    remote: RemoteModel
    staging: Staging
    priority: int
    number: int
    cancelled: threading.Event
    # The namespace of the requester, empty for LocalModelCaches.
    owner: str = ""
    # Whether SHA-256 is computed later where the store has a cheaper checksum.
    later: bool = False
    is_urgent: Callable[[], bool] = lambda: False
    # Its peers; None: it has none.
    swarm: Swarm[Segment] | None = None
    # The files in work, and the results of sealed files by path.
    files: set[FileJob] = field(default_factory=set)
    fetched: dict[str, Fetched] = field(default_factory=dict)
    # The files in work that have gaps, in the order of their turns; and the files that wait for
    # work, the largest first.
    turn: deque[FileJob] = field(default_factory=deque)
    waiting: deque[RemoteFile] = field(default_factory=deque)
    # The files that were complete before the job and are only digested: those that wait, and
    # those in work.
    whole: deque[RemoteFile] = field(default_factory=deque)
    checked: set[FileJob] = field(default_factory=set)
    # Bytes to request, bytes on the disk, bytes received by this job, files that are not sealed.
    left: int = 0
    done: int = 0
    received: int = 0
    unfinished: int = 0
    # The running requests to the origin.
    from_origin: set[Segment] = field(default_factory=set)
    failure: BaseException | None = None
    # The segments and digest threads that may access the job's files on the disk now.
    touched: set[object] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def order(self) -> tuple[bool, int, int]:
        """The sort key of jobs: the first one is served first."""
        return (not self.is_urgent(), -self.priority, self.number)

    def arrange(self) -> None:
        """Sort the files of the model into `whole` and `waiting`."""
        listed, here = self.remote.files, self.staging.staged.done
        self.unfinished = len(listed)
        for file in sorted(listed, key=lambda f: -(f.size or 0)):
            done = here(file.path)
            self.done += done
            self.left += (file.size or 0) - done
            (self.whole if done == file.size else self.waiting).append(file)

    def shared(self, remote: RemoteFile) -> SharedFile | None:
        """How agents exchange a file; None if they do not: its digest must be known."""
        if self.swarm is None or not remote.ranges or not remote.size or remote.sha256 is None:
            return None
        return SharedFile(remote.path, remote.size, remote.sha256)

    @property
    def count(self) -> int:
        """How many files the model has."""
        return len(self.remote.files)

    def begin(self, remote: RemoteFile) -> FileJob:
        """Put a file in work."""
        file = FileJob(self, remote, self.staging.staged[remote.path])
        self.files.add(file)
        return file

    def next_whole(self) -> FileJob | None:
        """Put one more complete file in work, unless OPEN_FILES of them are."""
        if not self.whole or len(self.checked) >= OPEN_FILES:
            return None
        file = self.begin(self.whole.popleft())
        self.checked.add(file)
        return file

    def end(self, file: FileJob) -> None:
        """Record the result of a sealed file, and drop all other state of it."""
        digests = file.digests
        for segment in file.active:
            if segment.position != segment.end:
                # A second request has fetched its range.
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
        """Whether the job has ended or failed, is cancelled or is complete."""
        return self.ended.is_set() or self.cancelled.is_set() or self.unfinished == 0

    @property
    def has_more(self) -> bool:
        """Whether there are bytes left to request."""
        return bool(self.turn or self.waiting)

    def take(self, now: float, connections: int) -> Segment | None:
        """Start the next segment: the files in work take turns, so that each is read in order."""
        if self.swarm is not None and self.swarm.is_origin_dry:
            return None
        self._begin_files()
        alone = 2 * len(self.turn) >= connections
        for _ in range(len(self.turn)):
            file = self.turn.popleft()
            segment = file.take(now, connections, self.left, alone=alone)
            if file.gaps:
                self.turn.append(file)
            if segment is not None:
                self.left -= (segment.end or 0) - segment.position
                return segment
        if self.swarm is not None:
            self.swarm.found_none()
        return None

    def take_from_peer(self, now: float) -> Segment | None:
        """Start the next request to a peer; None if there is none to start."""
        if self.swarm is None or self.over:
            return None
        self._begin_files()
        segment = self.swarm.take(self.turn, now)
        if segment is not None:
            self.left -= (segment.end or 0) - segment.position
            if not segment.file.gaps:
                self.turn.remove(segment.file)
        return segment

    def _begin_files(self) -> None:
        most = OPEN_FILES if self.swarm is None else SHARED_FILES
        while len(self.turn) < most and self.waiting:
            self.turn.append(self.begin(self.waiting.popleft()))

    def give_back(self, file: FileJob, gap: Gap) -> None:
        """Put back a gap that was requested and not received."""
        file.put_back(gap)
        self.left += gap.end - gap.start
        self.enqueue(file)

    def enqueue(self, file: FileJob) -> None:
        """Make a file with gaps the next one."""
        if file not in self.turn:
            self.turn.appendleft(file)

    def fail(self, failure: BaseException) -> None:
        """End the job; only the first failure counts."""
        if self.failure is None:
            self.failure = failure
        self.ended.set()
        self.stop()

    def stop(self) -> None:
        """Abort all running segments."""
        for file in self.files:
            for segment in file.active:
                segment.abort()


class FileChangedError(Exception):
    """A file at the source has another version than in the listing."""

    def __init__(self, path: str, failure: DownloadError) -> None:
        super().__init__(failure.message)
        self.path = path
        self.failure = failure
