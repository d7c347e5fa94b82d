"""Which pieces of a job come from which peer, and which ones from the origin.

Changed only with the schedule's lock held. Times are monotonic seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from agent.engine.pace import Pace, Request
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.pieces import choose, owned, piece_bytes, window

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agent.structs.exchange import Exchange, Lane, SharedFile

# Requests to one peer, and to all peers of a job, at a time.
LANE_CONNECTIONS = 2
MAX_CONNECTIONS = 12
# With so many peers or more, pieces are passed on before the whole file is verified: the group may
# be larger than the neighbourhood of a node, see hooks.exchange, where rings of a group of 34 may
# give a node as few. Else pieces come from the node that read them at the origin, so that it is
# known who sent wrong ones.
RELAYING_PEERS = 14
# Requests to the origin at a time, as long as a peer takes part.
ORIGIN_CONNECTIONS = 4
# A peer whose request has failed is left alone for so long: the time doubles with each failure.
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0
# A request to a peer that brings nothing for so long has stalled: others may have the piece.
STALL_SECONDS = 5.0
# The origin is not asked before all peers have said what they have, or this time is over: a peer
# may have everything.
GREETING_SECONDS = 1.0
# An owner without new pieces for so long, or for so many times the time of a piece, is not waited
# for.
SILENT_SECONDS, SILENT_PIECES = 5.0, 3.0
# Without news for so long, a node asks the origin for a piece of another owner.
PATIENCE_SECONDS, PATIENCE_PIECES = 1.0, 2.0
PATIENCE_OF_OTHERS_SECONDS = 10.0
# Where peers have given nothing for so long, a failure of the origin fails the job.
HOPE_SECONDS = 30.0
# The origin is compared with the peers when those have been in use for so long. It is asked for
# what they have if it gives so many times more.
COMPARED_SECONDS, BETTER = 10.0, 2.0


class PieceRequest(Request, Protocol):
    """A running request, to a peer or (`lane` None) to the origin: see agent.engine.job.Segment."""

    stalled: bool

    @property
    def lane(self) -> Lane | None:
        """The peer."""
        ...

    def abort(self) -> None:
        """Make the request end."""
        ...

    def hedge(self, now: float) -> Self:
        """Make a second request for the rest of this one."""
        ...


_S = TypeVar("_S", bound=PieceRequest)
_Started_co = TypeVar("_Started_co", bound=PieceRequest, covariant=True)


class PieceFile(Protocol[_Started_co]):
    """A file in work: see agent.engine.job.FileJob."""

    @property
    def shared(self) -> SharedFile | None:
        """How it is exchanged; None if it is not."""
        ...

    @property
    def missing(self) -> int:
        """The pieces that no running request asks for."""
        ...

    def may_come_from(self, lane: Lane, live: Collection[Lane]) -> bool:
        """Whether a peer may be asked for a piece. `live` are the peers that answer."""
        ...

    @property
    def is_suspect(self) -> bool:
        """Whether it is fetched from the origin alone, to find out who sent wrong bytes."""
        ...

    def take_piece(self, piece: int, lane: Lane, now: float) -> _Started_co:
        """Start a request for a missing piece."""
        ...


@dataclass(eq=False)
class LaneState(Generic[_S]):
    """What a job knows of one peer. `seconds` is how long a piece takes; 0: not known."""

    lane: Lane
    active: set[_S] = field(default_factory=set)
    paused_until: float = 0.0
    failures: int = 0
    progress_at: float = 0.0
    seconds: float = 0.0
    # The pieces at the last look.
    seen: object = None

    def has_room(self, now: float) -> bool:
        """Whether one more request may be sent now."""
        return len(self.active) < LANE_CONNECTIONS and now >= self.paused_until

    @property
    def answers(self) -> bool:
        """Whether its last requests have not failed."""
        return self.failures < 2

    def failed(self, error: BaseException, now: float) -> None:
        """Leave the peer alone for a while, after a failed request."""
        self.failures += 1
        pause = PAUSE_SECONDS * 2.0 ** (self.failures - 1)
        if isinstance(error, DownloadError) and error.kind is FailureKind.THROTTLED:
            # It serves others, and will serve this node soon.
            self.failures, pause = 0, error.retry_after or PAUSE_SECONDS
        self.paused_until = max(self.paused_until, now + min(pause, MAX_PAUSE_SECONDS))


class Swarm(Generic[_S]):
    """The peers of one job."""

    def __init__(self, exchange: Exchange, now: float) -> None:
        self.exchange = exchange
        self.received = 0
        self._began = now
        # When peers last gave or had something new; and the same, or the origin was asked.
        self._given_at = self._news_at = now
        self._lanes: dict[Lane, LaneState[_S]] = {}
        self._pace = Pace(STALL_SECONDS)
        # How long a piece from the origin takes, in seconds, and the rate of one request there.
        self._piece_seconds = 0.0
        self._origin_rate = 0.0
        self._compared_at, self._compared_bytes = now, 0
        self._prefers_origin = False
        # Whether the last look for a request to peers, or to the origin, found none: idle threads
        # need not look again.
        self._dry = self._origin_dry = False
        self._owned: dict[str, tuple[frozenset[str], int]] = {}
        self.refresh(now)

    @property
    def _requests(self) -> int:
        """How many requests to peers are running."""
        return sum(len(state.active) for state in self._lanes.values())

    @property
    def takes_part(self) -> bool:
        """Whether a peer has a part of the model, or is downloading it."""
        return any(state.lane.takes_part for state in self._lanes.values())

    def awaits_peers(self, now: float) -> bool:
        """Whether the origin may not be used as if there were no peers."""
        return self.takes_part or self._is_greeting(now)

    def _is_greeting(self, now: float) -> bool:
        unknown = any(state.lane.takes_part is None for state in self._lanes.values())
        return unknown and now < self._began + GREETING_SECONDS

    @property
    def relays(self) -> bool:
        """Whether pieces of peers are passed on before their file is verified."""
        return len(self._lanes) >= RELAYING_PEERS

    def sustains(self, now: float) -> bool:
        """Whether the job goes on without its origin: peers have given pieces lately."""
        return self.takes_part and now - self._given_at < HOPE_SECONDS

    def refresh(self, now: float) -> None:
        """Take over the present peers and what they have."""
        present = self.exchange.lanes()
        for lane in self._lanes.keys() - set(present):
            for segment in self._lanes.pop(lane).active:
                segment.stalled = True
                segment.abort()
        for lane in present:
            state = self._lanes.get(lane)
            if state is None:
                state = self._lanes[lane] = LaneState[_S](lane, progress_at=now)
            if state.seen is not lane.pieces:
                state.seen = lane.pieces
                state.progress_at = self._given_at = self._news_at = now
        self._dry = self._origin_dry = False

    def watch(self, now: float) -> list[_S]:
        """Abort stalled requests to peers. Returns second ones, to the origin, for slow ones."""
        self.refresh(now)
        active = [segment for state in self._lanes.values() for segment in state.active]
        slow, stalled = self._pace.look(active, self.received, now)
        for segment in stalled:
            segment.stalled = True
            segment.abort()
        if now - self._compared_at >= COMPARED_SECONDS:
            rate = (self.received - self._compared_bytes) / (now - self._compared_at)
            origin = self._origin_rate * ORIGIN_CONNECTIONS
            self._prefers_origin = bool(active) and origin > BETTER * rate
            self._compared_at, self._compared_bytes = now, self.received
        return [segment.hedge(now) for segment in slow]

    # Requests to peers

    def take(self, files: Iterable[PieceFile[_S]], now: float) -> _S | None:
        """Start a request to a peer; None if no peer has a missing piece, or has room."""
        if self._dry or self._requests >= MAX_CONNECTIONS:
            return None
        ready = sorted(
            (state for state in self._lanes.values() if state.has_room(now)), key=_preference
        )
        for file in files if ready else ():
            segment = self._take_of(file, ready, now)
            if segment is not None:
                return segment
        self._dry = True
        return None

    def _take_of(self, file: PieceFile[_S], ready: list[LaneState[_S]], now: float) -> _S | None:
        shared, missing = file.shared, file.missing
        if shared is None or file.is_suspect or not missing:
            return None
        wanted = window(missing)
        digest = shared.digest
        once, twice = 0, 0
        for state in self._lanes.values():
            has = state.lane.pieces.get(digest, 0) & wanted
            twice |= once & has
            once |= has
        if not once:
            return None
        live = [lane for lane, state in self._lanes.items() if lane.takes_part and state.answers]
        for state in ready:
            candidates = state.lane.pieces.get(digest, 0) & wanted
            if candidates and file.may_come_from(state.lane, live):
                start = random.randrange(candidates.bit_length())  # noqa: S311
                segment = file.take_piece(choose(candidates, ~twice, start), state.lane, now)
                state.active.add(segment)
                return segment
        return None

    def came(self, count: int, now: float) -> None:
        """Count bytes from a peer."""
        self.received += count
        self._given_at = self._news_at = now

    def ended(
        self, segment: _S, shared: SharedFile | None, error: BaseException | None, now: float
    ) -> None:
        """Note that a request for a file has ended, to a peer or to the origin."""
        self._dry = self._origin_dry = False
        seconds, size = now - segment.started, segment.position - segment.begun
        if segment.lane is None:
            if error is None and shared is not None:
                self._piece_seconds = seconds / max(1.0, size / piece_bytes(shared.size))
                self._origin_rate = size / max(seconds, 1e-3)
            return
        state = self._lanes.get(segment.lane)
        if state is None:
            return
        state.active.discard(segment)
        if error is None:
            state.failures, state.seconds = 0, seconds
        elif segment.stalled or isinstance(error, DownloadError):
            state.failed(error, now)

    # Requests to the origin

    def may_ask_origin(self, requests: int, now: float) -> bool:
        """Whether one more piece may be requested from the origin, beside this many requests."""
        return requests < ORIGIN_CONNECTIONS or not self.awaits_peers(now)

    @property
    def is_origin_dry(self) -> bool:
        """Whether the last look for a request to the origin found none, and nothing has changed."""
        return self._origin_dry

    def found_none(self) -> None:
        """Note that nothing may be fetched from the origin now."""
        self._origin_dry = True

    def of_origin(self, shared: SharedFile, oldest: float | None, now: float) -> int:
        """The pieces of a file that this node may fetch from the origin now.

        `oldest` is when the oldest running request to the origin began; None: there is none.
        """
        if self._is_greeting(now):
            return 0
        digest = shared.digest
        me = self.exchange.neighbourhood
        piece = max(self._piece_seconds, now - oldest if oldest is not None else 0.0)
        silent = max(SILENT_SECONDS, SILENT_PIECES * piece)
        live = [state.lane for state in self._lanes.values() if self._is_live(state, silent, now)]
        # In a first wave without a seed, for example, all are owners.
        has_seed = me.seed or self._has_seed
        owners = {lane.peer.node for lane in live if lane.peer.seed or not has_seed}
        is_owner = me.seed or not has_seed
        mine = self._owned_of(shared, frozenset(owners | {me.node})) if is_owner else 0
        # A node that began earlier has asked for pieces that have other owners by now.
        for lane in live:
            mine &= ~lane.asked.get(digest, 0)
        if self._is_hungry(piece, now):
            mine = -1
        return mine if self._prefers_origin else mine & ~self._available(digest, now)

    def asked_origin(self, now: float) -> None:
        """Note that a request was sent to the origin: at most one at a time is out of hunger."""
        self._news_at = now

    def _is_hungry(self, piece: float, now: float) -> bool:
        patience = max(PATIENCE_SECONDS, PATIENCE_PIECES * piece)
        if not self.exchange.neighbourhood.seed:
            patience = max(patience, PATIENCE_OF_OTHERS_SECONDS)
        return now - self._news_at > patience

    @property
    def _has_seed(self) -> bool:
        return any(one.lane.takes_part and one.lane.peer.seed for one in self._lanes.values())

    def _is_live(self, state: LaneState[_S], silent: float, now: float) -> bool:
        return bool(state.lane.takes_part) and now - state.progress_at <= silent

    def _available(self, digest: str, now: float) -> int:
        """The pieces that peers have which answer."""
        found = 0
        for state in self._lanes.values():
            if state.answers or now >= state.paused_until:
                found |= state.lane.pieces.get(digest, 0)
        return found

    def _owned_of(self, shared: SharedFile, owners: frozenset[str]) -> int:
        known, mine = self._owned.get(shared.digest, (None, 0))
        if known != owners:
            me = self.exchange.neighbourhood.node
            mine = owned(shared.digest, shared.size, me, owners)
            self._owned[shared.digest] = (owners, mine)
        return mine


def _preference(state: LaneState[_S]) -> tuple[bool, int, float, float]:
    """The sort key of peers: the nearest and least busy first."""
    return (not state.lane.is_near, len(state.active), state.seconds, random.random())  # noqa: S311
