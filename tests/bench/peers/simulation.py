"""Simulates a large group that fetches one model: the agents' choices on links of known speed.

The choices are those of agent.engine.swarm, by the same functions of agent.structs.pieces, among
the neighbours that hooks.exchange gives. Of the time, only links and news count: a piece passes
the sender's link and then the receiver's, each of which carries one piece after the other. This
shares a link as fairly as many connections do, for pieces of one size, and costs one event for
each piece.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.engine.swarm import (
    LANE_CONNECTIONS,
    MAX_CONNECTIONS,
    ORIGIN_CONNECTIONS,
    PATIENCE_OF_OTHERS_SECONDS,
    PATIENCE_PIECES,
    PATIENCE_SECONDS,
    SILENT_PIECES,
    SILENT_SECONDS,
)
from agent.structs.pieces import all_pieces, choose, first_of, owned, span, window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GBIT = 10**9 / 8
# What a busy peer says: see agent.peers.
BUSY_SECONDS = 1.0

_TICK, _PEER, _ORIGIN = range(3)


@dataclass(frozen=True)
class Network:
    """Links in bytes per second, and how old news are at most, in seconds."""

    node: float = 10 * GBIT
    origin: float = 20 * GBIT
    news: float = 0.4
    # From a request to its first byte.
    latency: float = 0.002
    uploads: int = 16


@dataclass(frozen=True)
class Member:
    """A node of the group: its neighbours by number, and whether it is a seed."""

    name: str
    seed: bool
    neighbours: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """Seconds until the first, the median and the last node had all.

    `copies` is how many times the model left the origin. `hungry` counts pieces that a node fetched
    there although others own them, `refused` the answers of busy peers.
    """

    first: float
    median: float
    last: float
    copies: float
    hungry: int
    refused: int
    pieces: int


@dataclass
class _Lane:
    """What a node knows of a neighbour."""

    peer: _Node
    active: int = 0
    paused_until: float = 0.0
    seconds: float = 0.0
    seen: object = None
    progress_at: float = 0.0


@dataclass
class _Node:
    """One node; sets of pieces are by number of the file."""

    member: Member
    # Neither there nor requested.
    missing: list[int]
    has: list[int]
    # What the neighbours know.
    told: list[int]
    turn: list[int]
    lanes: list[_Lane] = field(default_factory=list)
    owns: list[int] = field(default_factory=list)
    owners: frozenset[str] = frozenset()
    left: int = 0
    up_free: float = 0.0
    down_free: float = 0.0
    uploads: int = 0
    active: int = 0
    origin_active: int = 0
    origin_seconds: float = 0.0
    news_at: float = 0.0
    done_at: float | None = None
    # Whether the last look among all peers, or at the origin, found nothing: until there is news,
    # only the peer that has just sent a piece may have another one.
    dry: bool = False
    origin_dry: bool = False
    # By file: the pieces that a neighbour has, and that two have, at the last look.
    known: dict[int, tuple[int, int]] = field(default_factory=dict)


class Simulation:
    """A group of nodes that all begin at once, without any piece."""

    def __init__(
        self, members: Sequence[Member], sizes: Sequence[int], network: Network, seed: int = 1
    ) -> None:
        """`sizes` are those of the model's files. `seed` is of the random choices."""
        self._random = random.Random(seed)
        self._network = network
        self._sizes = sizes
        self._digests = [
            hashlib.sha256(f"{number}".encode()).hexdigest() for number in range(len(sizes))
        ]
        self._events: list[tuple[float, int, int, tuple[int, ...]]] = []
        self._number = 0
        self._origin_free = 0.0
        self._origin_bytes = 0
        self._refused = self._hungry = 0
        full = [all_pieces(size) for size in sizes]
        self._pieces = sum(pieces.bit_count() for pieces in full)
        none = [0] * len(sizes)
        self._nodes = [
            _Node(
                member, full.copy(), none.copy(), none, list(range(len(sizes))), left=self._pieces
            )
            for member in members
        ]
        for node in self._nodes:
            node.lanes = [_Lane(self._nodes[number]) for number in node.member.neighbours]
            node.owns = none
        self._unfinished = len(members)

    def run(self) -> Outcome:
        """Run until every node has every piece."""
        for number in range(len(self._nodes)):
            self._at(self._random.uniform(0, self._network.news), _TICK, (number,))
        now = 0.0
        while self._unfinished:
            now, _, kind, about = heapq.heappop(self._events)
            node = self._nodes[about[0]]
            if kind == _TICK:
                self._tick(node, now, about[0])
            elif kind == _PEER:
                self._came(node, now, about)
            else:
                self._came_from_origin(node, now, about)
        times = sorted(node.done_at or now for node in self._nodes)
        return Outcome(
            times[0],
            times[len(times) // 2],
            times[-1],
            self._origin_bytes / sum(self._sizes),
            self._hungry,
            self._refused,
            self._pieces,
        )

    def _at(self, time: float, kind: int, about: tuple[int, ...]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, kind, about))

    def _tick(self, node: _Node, now: float, number: int) -> None:
        """Tell the news, and look at those of the others."""
        node.told = node.has.copy()
        if node.done_at is not None:
            return
        for lane in node.lanes:
            if lane.seen is not lane.peer.told:
                if lane.seen is not None and lane.seen != lane.peer.told:
                    lane.progress_at = node.news_at = now
                lane.seen = lane.peer.told
        node.known, node.dry, node.origin_dry = {}, False, False
        if node.member.seed:
            self._divide(node, now)
        self._fill(node, now, number)
        self._at(now + self._network.news, _TICK, (number,))

    def _divide(self, node: _Node, now: float) -> None:
        silent = max(SILENT_SECONDS, SILENT_PIECES * node.origin_seconds)
        owners = frozenset(
            lane.peer.member.name
            for lane in node.lanes
            if lane.peer.member.seed and now - lane.progress_at <= silent
        ) | {node.member.name}
        if owners != node.owners:
            node.owners = owners
            node.owns = [
                owned(digest, size, node.member.name, owners)
                for digest, size in zip(self._digests, self._sizes, strict=True)
            ]

    def _fill(self, node: _Node, now: float, number: int, at: int | None = None) -> None:
        """Request what there is. at: the peer that has just sent a piece."""
        while node.origin_active < ORIGIN_CONNECTIONS and not node.origin_dry:
            node.origin_dry = not self._take_from_origin(node, now, number)
        while node.active < MAX_CONNECTIONS and not node.dry:
            node.dry = not self._take(node, now, number, range(len(node.lanes)))
        if at is not None and node.active < MAX_CONNECTIONS:
            self._take(node, now, number, (at,))

    # Peers

    def _take(self, node: _Node, now: float, number: int, lanes: Iterable[int]) -> bool:
        ready: list[tuple[int, float, float, int]] = []
        for at in lanes:
            lane = node.lanes[at]
            if lane.active < LANE_CONNECTIONS and now >= lane.paused_until:
                ready.append((lane.active, lane.seconds, self._random.random(), at))
        if not ready:
            return False
        ready.sort()
        for file in node.turn:
            wanted = window(node.missing[file])
            once, twice = self._known(node, file)
            if not once & wanted:
                continue
            for *_, at in ready:
                lane = node.lanes[at]
                candidates = lane.peer.told[file] & wanted
                if not candidates:
                    continue
                if lane.peer.uploads >= self._network.uploads:
                    self._refused += 1
                    lane.paused_until = now + BUSY_SECONDS
                    continue
                start = int(self._random.random() * candidates.bit_length())
                self._request(node, lane, file, choose(candidates, ~twice, start), now, number, at)
                return True
        return False

    def _known(self, node: _Node, file: int) -> tuple[int, int]:
        found = node.known.get(file)
        if found is None:
            once = twice = 0
            for lane in node.lanes:
                has = lane.peer.told[file]
                twice |= once & has
                once |= has
            found = node.known[file] = once, twice
        return found

    def _request(
        self, node: _Node, lane: _Lane, file: int, piece: int, now: float, number: int, at: int
    ) -> None:
        self._reserve(node, file, piece)
        node.active += 1
        lane.active += 1
        lane.peer.uploads += 1
        seconds = self._bytes(file, piece) / self._network.node
        lane.peer.up_free = max(lane.peer.up_free, now + self._network.latency) + seconds
        node.down_free = max(lane.peer.up_free, node.down_free + seconds)
        # How long it took, in microseconds.
        took = int((node.down_free - now) * 1e6)
        self._at(node.down_free, _PEER, (number, file, piece, at, took))

    def _came(self, node: _Node, now: float, about: tuple[int, ...]) -> None:
        number, file, piece, at, took = about
        lane = node.lanes[at]
        node.active -= 1
        lane.active -= 1
        lane.seconds = took / 1e6
        lane.peer.uploads -= 1
        node.news_at = now
        self._got(node, file, piece, now)
        self._fill(node, now, number, at)

    # The origin

    def _take_from_origin(self, node: _Node, now: float, number: int) -> bool:
        patience = max(PATIENCE_SECONDS, PATIENCE_PIECES * node.origin_seconds)
        if not node.member.seed:
            patience = max(patience, PATIENCE_OF_OTHERS_SECONDS)
        hungry = now - node.news_at > patience
        if not (node.member.seed or hungry):
            return False
        for file in node.turn:
            wanted = window(node.missing[file])
            if not wanted:
                continue
            mine = -1 if hungry else node.owns[file]
            candidates = wanted & mine
            if candidates:
                candidates &= ~self._known(node, file)[0]
            if candidates:
                self._request_origin(node, file, first_of(candidates), now, number)
                self._hungry += hungry
                if node.missing[file]:
                    node.turn.remove(file)
                    node.turn.append(file)
                return True
        return False

    def _request_origin(self, node: _Node, file: int, piece: int, now: float, number: int) -> None:
        self._reserve(node, file, piece)
        node.origin_active += 1
        node.news_at = now
        size = self._bytes(file, piece)
        self._origin_bytes += size
        began = max(self._origin_free, now + self._network.latency)
        self._origin_free = began + size / self._network.origin
        seconds = size / self._network.node
        node.down_free = max(self._origin_free, node.down_free + seconds, began + seconds)
        took = int((node.down_free - now) * 1e6)
        self._at(node.down_free, _ORIGIN, (number, file, piece, took))

    def _came_from_origin(self, node: _Node, now: float, about: tuple[int, ...]) -> None:
        number, file, piece, took = about
        node.origin_active -= 1
        node.origin_dry = False
        node.origin_seconds = took / 1e6
        self._got(node, file, piece, now)
        self._fill(node, now, number)

    # Pieces

    def _bytes(self, file: int, piece: int) -> int:
        start, end = span(piece, self._sizes[file])
        return end - start

    def _reserve(self, node: _Node, file: int, piece: int) -> None:
        node.missing[file] &= ~(1 << piece)
        if not node.missing[file]:
            node.turn.remove(file)

    def _got(self, node: _Node, file: int, piece: int, now: float) -> None:
        node.has[file] |= 1 << piece
        node.left -= 1
        if not node.left:
            node.done_at = now
            node.told = node.has
            self._unfinished -= 1
