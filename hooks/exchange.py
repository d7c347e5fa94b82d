"""Which agents of a group exchange pieces of model files: a graph of few edges for each node. Pure.

In a group of up to 33 agents, everybody is everybody's neighbour. In a larger one, neighbours are
those before and after a node in rings: each ring has the agents in another order, by digests of
their names. Half of the rings go through the whole group, which keeps the graph in one part; the
other half stay in one zone each, so that most bytes do.

The graph is symmetric. An agent that joins or leaves changes the lists of its neighbours, and, if
it is or was a seed, those of the other seeds and of one more node.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from crds.peers import Exchange, ExchangePeer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crds.peers import PeerEndpoint

RINGS = 16
ZONE_RINGS = RINGS // 2
# Two in each ring.
NEIGHBOURS_MAX = 2 * RINGS
SEEDS = 16
# All seeds know each other.
SEED_NEIGHBOURS_MAX = NEIGHBOURS_MAX + SEEDS - 1
_POSITION_BYTES = 4


class Neighbours:
    """The neighbours of each agent of a group, from all its agents, each on another node."""

    def __init__(self, endpoints: Sequence[PeerEndpoint]) -> None:
        zones = {one.node: one.zone for one in endpoints}
        seeds = frozenset(sorted(zones, key=_seed_order)[:SEEDS])
        self._seeds = seeds
        self._peers = {
            one.node: ExchangePeer(**dict(one), seed=one.node in seeds) for one in endpoints
        }
        self._around: dict[str, set[str]] = defaultdict(set)
        if len(self._peers) > NEIGHBOURS_MAX + 1:
            for ring in _rings(zones):
                for node, following in zip(ring, (*ring[1:], *ring[:1]), strict=True):
                    self._around[node].add(following)
                    self._around[following].add(node)

    def of(self, node: str) -> Exchange:
        """The part of a node in the exchange: none yet for a node without an agent that serves."""
        if node not in self._peers:
            return Exchange()
        seed = node in self._seeds
        around = self._around.get(node, self._peers.keys())
        names = (around | self._seeds if seed else set(around)) - {node}
        return Exchange(seed=seed, peers=tuple(self._peers[name] for name in sorted(names)))


def _rings(zones: dict[str, str]) -> Iterable[Sequence[str]]:
    """The rings, from the zone of each node. A node alone in its zone is in half of them."""
    positions = {node: _positions(node) for node in zones}
    by_zone: dict[str, list[str]] = defaultdict(list)
    for node, zone in zones.items():
        by_zone[zone].append(node)
    for number in range(RINGS):

        def position(node: str, number: int = number) -> tuple[bytes, str]:
            return positions[node][number], node

        parts = by_zone.values() if number < ZONE_RINGS else (zones,)
        yield from (sorted(part, key=position) for part in parts if len(part) > 1)


def _positions(node: str) -> list[bytes]:
    """The positions of a node in all rings, from one digest."""
    digest = hashlib.sha512(node.encode()).digest()
    return [digest[at : at + _POSITION_BYTES] for at in range(0, len(digest), _POSITION_BYTES)]


def _seed_order(node: str) -> tuple[bytes, str]:
    return hashlib.sha256(f"seed {node}".encode()).digest(), node
