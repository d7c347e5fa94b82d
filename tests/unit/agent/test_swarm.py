"""Which piece comes from whom: with peers that are no more than what they say they have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agent.engine import swarm as module
from agent.engine.swarm import Swarm
from agent.structs.exchange import Neighbourhood, Peer, SharedFile
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.pieces import MIN_PIECE_BYTES as PIECE
from agent.structs.pieces import owned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from agent.structs.exchange import Lane
    from agent.structs.remote import Body
    from agent.structs.verified import VerifiedManifest

D = "d" * 64
COUNT = 32
ALL = (1 << COUNT) - 1
FILE = SharedFile("a.bin", COUNT * PIECE, D)
BROKEN = DownloadError(FailureKind.UNREACHABLE, "broken")


@dataclass(eq=False)
class FakeLane:
    peer: Peer
    pieces: Mapping[str, int] = field(default_factory=dict)
    takes_part: bool | None = True
    is_near: bool = False
    asked: Mapping[str, int] = field(default_factory=dict)

    def read(self, digest: str, start: int, end: int) -> Body:
        raise NotImplementedError


class FakeExchange:
    def __init__(self, *lanes: FakeLane, seed: bool = True) -> None:
        self.now = list(lanes)
        self.neighbourhood = Neighbourhood("me", seed=seed)

    def lanes(self) -> Sequence[Lane]:
        return tuple(self.now)

    def begin(self, files: Iterable[SharedFile], news: Callable[[], None]) -> None: ...

    def wrote(self, digest: str, pieces: int) -> None: ...

    def asks(self, digest: str, pieces: int) -> None: ...

    def lost(self, digest: str) -> None: ...

    def blame(self, lane: Lane, path: str) -> None: ...

    def manifest(self, digest: str) -> VerifiedManifest | None: ...

    def end(self) -> None: ...


@dataclass(eq=False)
class FakeRequest:
    piece: int
    lane: Lane | None
    started: float
    position: int = 0
    begun: int = 0
    aborted: bool = False
    stalled: bool = False
    seen: int = 0
    slow_since: float | None = None
    mark_bytes: int = 0
    mark_time: float = 0.0
    left: int | None = None

    def abort(self) -> None:
        self.aborted = True

    def hedge(self, now: float) -> FakeRequest:
        return FakeRequest(self.piece, None, now)


@dataclass(eq=False)
class FakeFile:
    shared: SharedFile | None = FILE
    missing: int = ALL
    is_suspect: bool = False
    left_out: set[Lane] = field(default_factory=set)
    live: set[Lane] = field(default_factory=set)

    def may_come_from(self, lane: Lane, live: Collection[Lane]) -> bool:
        self.live = set(live)
        return lane not in self.left_out

    def take_piece(self, piece: int, lane: Lane, now: float) -> FakeRequest:
        assert self.missing >> piece & 1
        self.missing &= ~(1 << piece)
        return FakeRequest(piece, lane, now)


def lane(name: str, pieces: int = 0, *, seed: bool = True, **fields: Any) -> FakeLane:
    return FakeLane(Peer(name, f"{name}:1", seed=seed), {D: pieces}, **fields)


def made(*lanes: FakeLane, seed: bool = True, now: float = 0.0) -> Swarm[FakeRequest]:
    return Swarm[FakeRequest](FakeExchange(*lanes, seed=seed), now)


def took(peers: Swarm[FakeRequest], file: FakeFile, now: float = 0.0) -> list[FakeRequest]:
    """All requests to peers that may be sent now."""
    found = []
    while (request := peers.take([file], now)) is not None:
        found.append(request)
    return found


def test_origin_is_asked_for_own_pieces_alone_which_no_peer_has() -> None:
    peers = made(lane("a"), lane("b"))
    mine = owned(D, FILE.size, "me", {"me", "a", "b"})
    assert 0 < mine < ALL
    assert peers.of_origin(FILE, None, 0.5) == mine
    first = mine & -mine
    peers = made(lane("a", first), lane("b"))
    assert peers.of_origin(FILE, None, 0.5) == mine & ~first


def test_what_a_live_peer_has_asked_the_origin_for_is_left_to_it() -> None:
    began_earlier = lane("a", asked={D: 0b1111}, seed=False)
    peers = made(began_earlier)
    assert peers.of_origin(FILE, None, 0.5) & ALL == ALL & ~0b1111
    # It brings nothing, or is gone.
    assert peers.of_origin(FILE, None, module.SILENT_SECONDS + 0.1) & ALL == ALL
    began_earlier.takes_part = False
    assert peers.of_origin(FILE, None, 0.5) & ALL == ALL


def test_each_piece_has_one_owner() -> None:
    names = ("me", "a", "b")
    parts = [owned(D, FILE.size, name, set(names)) for name in names]
    assert sum(parts) == parts[0] | parts[1] | parts[2] == ALL


def test_origin_waits_for_the_greeting_of_all_peers_or_its_end() -> None:
    peers = made(lane("a"), lane("b", takes_part=None))
    assert peers.of_origin(FILE, None, module.GREETING_SECONDS - 0.01) == 0
    assert peers.of_origin(FILE, None, module.GREETING_SECONDS) != 0
    assert made(lane("a"), lane("b", takes_part=False)).of_origin(FILE, None, 0.0) != 0


def test_no_peer_that_takes_part_leaves_the_origin_alone() -> None:
    peers = made(lane("a", takes_part=False))
    assert peers.of_origin(FILE, None, 0.0) == ALL
    assert peers.may_ask_origin(99, 0.0)
    assert not peers.awaits_peers(0.0)
    assert not made(lane("a")).may_ask_origin(module.ORIGIN_CONNECTIONS, 0.0)


def test_peers_that_are_no_seeds_own_nothing() -> None:
    assert made(lane("a", seed=False)).of_origin(FILE, None, 0.0) == ALL
    assert made(lane("a"), seed=False).of_origin(FILE, None, 0.5) == 0
    # Nobody else downloads the model.
    assert made(lane("a", takes_part=False), seed=False).of_origin(FILE, None, 0.5) == ALL


def test_where_no_seed_takes_part_the_pieces_belong_to_all() -> None:
    peers = made(lane("a", seed=False), lane("b", takes_part=False), seed=False)
    mine = owned(D, FILE.size, "me", {"me", "a"})
    assert 0 < mine < ALL
    assert peers.of_origin(FILE, None, 0.5) == mine


@pytest.mark.parametrize(
    ("seed", "patience"),
    [(True, module.PATIENCE_SECONDS), (False, module.PATIENCE_OF_OTHERS_SECONDS)],
)
def test_without_news_the_origin_is_asked_for_one_piece_of_others(
    *, seed: bool, patience: float
) -> None:
    peers = made(lane("a"), seed=seed)
    mine = peers.of_origin(FILE, None, patience)
    assert mine != ALL
    assert peers.of_origin(FILE, None, patience + 0.1) & ALL == ALL
    peers.asked_origin(patience + 0.1)
    assert peers.of_origin(FILE, None, patience + 0.2) == mine


def test_slow_piece_of_the_origin_makes_patient() -> None:
    peers = made(lane("a"))
    # The oldest request to the origin has run for four seconds already.
    assert peers.of_origin(FILE, 0.0, 4.0) & ALL != ALL
    assert peers.of_origin(FILE, None, 4.0) & ALL == ALL


def test_owner_without_new_pieces_is_not_waited_for() -> None:
    silent, lively = lane("a"), lane("b")
    peers = made(silent, lively)
    now = module.SILENT_SECONDS + 0.1
    lively.pieces = {D: 0}
    peers.refresh(now)
    assert peers.of_origin(FILE, None, now) == owned(D, FILE.size, "me", {"me", "b"})


def test_peers_are_asked_for_the_rarest_pieces_first() -> None:
    rare = 1 << 7
    peers = made(lane("a", ALL), lane("b", ALL & ~rare), lane("c", ALL & ~rare))
    requests = took(peers, FakeFile())
    assert len(requests) == 3 * module.LANE_CONNECTIONS
    of_a = [one.piece for one in requests if one.lane and one.lane.peer.node == "a"]
    assert of_a[0] == 7


def test_near_peers_are_asked_first_and_then_the_others() -> None:
    near = lane("near", ALL, is_near=True)
    requests = took(made(lane("far", ALL), near, lane("away", ALL)), FakeFile())
    assert [one.lane is near for one in requests] == [True] * 2 + [False] * 4


def test_no_more_requests_than_all_peers_may_have() -> None:
    peers = made(*(lane(f"n{n}", ALL) for n in range(20)))
    assert len(took(peers, FakeFile())) == module.MAX_CONNECTIONS


def test_files_come_from_no_peer_that_is_left_out_and_suspects_from_none() -> None:
    liar, honest = lane("liar", ALL), lane("honest", ALL)
    requests = took(made(liar, honest), FakeFile(left_out={liar}))
    assert {one.lane for one in requests} == {honest}
    assert took(made(honest), FakeFile(is_suspect=True)) == []
    assert took(made(honest), FakeFile(shared=None)) == []
    assert took(made(honest), FakeFile(missing=0)) == []


def test_peer_that_fails_is_left_alone_for_longer_each_time() -> None:
    peers = made(lane("a", ALL))
    now = 0.0
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, module.MAX_PAUSE_SECONDS, module.MAX_PAUSE_SECONDS):
        request = peers.take([FakeFile()], now)
        assert request is not None
        peers.ended(request, FILE, BROKEN, now)
        assert peers.take([FakeFile()], now + pause - 0.1) is None
        now += pause
        peers.refresh(now)


def test_file_is_told_which_peers_answer() -> None:
    failing, good = lane("a", ALL), lane("b", 0)
    peers = made(failing, good, lane("c", 0, takes_part=False))
    for _ in range(2):
        request = peers.take([FakeFile()], 9.0)
        assert request is not None
        peers.ended(request, FILE, BROKEN, 0.0)
    good.pieces = {D: ALL}
    file = FakeFile()
    peers.refresh(0.5)
    assert peers.take([file], 0.5) is not None
    assert file.live == {good}


def test_busy_peer_is_asked_again_when_it_says_so() -> None:
    peers = made(lane("a", ALL))
    busy = DownloadError(FailureKind.THROTTLED, "busy", retry_after=3.0)
    for now in (0.0, 3.0, 6.0):
        peers.refresh(now)
        request = peers.take([FakeFile()], now)
        assert request is not None
        peers.ended(request, FILE, busy, now)
        assert peers.take([FakeFile()], now + 2.9) is None


def test_pieces_of_a_peer_that_fails_come_from_the_origin_too() -> None:
    peers = made(lane("a", ALL))
    assert peers.of_origin(FILE, None, 0.0) == 0
    for _ in range(2):
        request = peers.take([FakeFile()], 9.0)
        assert request is not None
        peers.ended(request, FILE, BROKEN, 0.0)
    assert peers.of_origin(FILE, None, 0.5) != 0


def test_origin_that_is_much_faster_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = made(lane("a", ALL))
    mine = owned(D, FILE.size, "me", {"me", "a"})
    # A piece takes the origin a second, and peers send next to nothing.
    peers.ended(FakeRequest(0, None, 0.0, position=PIECE), FILE, None, 1.0)
    assert peers.take([FakeFile()], 1.0) is not None
    monkeypatch.setattr(module, "SILENT_SECONDS", 99.0)
    peers.came(1000, module.COMPARED_SECONDS)
    peers.watch(module.COMPARED_SECONDS)
    assert peers.of_origin(FILE, None, module.COMPARED_SECONDS) == mine
    # Peers that send as much as the origin are used again.
    later = 2 * module.COMPARED_SECONDS
    peers.came(int(4 * PIECE * module.COMPARED_SECONDS), later)
    peers.watch(later)
    assert peers.of_origin(FILE, None, later) == 0


def test_requests_to_a_peer_that_leaves_end() -> None:
    exchange = FakeExchange(lane("a", ALL), lane("b", 0))
    peers = Swarm[FakeRequest](exchange, 0.0)
    request = peers.take([FakeFile()], 0.0)
    assert request is not None
    del exchange.now[0]
    peers.refresh(1.0)
    assert request.aborted
    assert request.stalled
    assert peers.take([FakeFile()], 1.0) is None
    peers.ended(request, FILE, BROKEN, 1.0)


def test_job_goes_on_without_its_origin_while_peers_give() -> None:
    peers = made(lane("a", 1))
    peers.came(1, 5.0)
    # That the origin is asked in vain gives no hope.
    peers.asked_origin(34.0)
    assert peers.sustains(5.0 + module.HOPE_SECONDS - 0.1)
    assert not peers.sustains(5.0 + module.HOPE_SECONDS)
    assert not made(lane("a", 1, takes_part=False)).sustains(0.0)
