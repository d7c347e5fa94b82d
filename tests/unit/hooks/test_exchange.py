"""The graph of the agents that exchange pieces: symmetric, in one part, bounded, and steady."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crds.peers import Exchange, PeerEndpoint
from hooks.exchange import NEIGHBOURS_MAX, SEED_NEIGHBOURS_MAX, SEEDS, Neighbours

if TYPE_CHECKING:
    from collections.abc import Sequence

Graph = dict[str, Exchange]


def endpoint(number: int, zone: str = "") -> PeerEndpoint:
    return PeerEndpoint(
        node=f"node-{number:04d}",
        address=f"10.0.{number // 250}.{number % 250}:9444",
        fingerprint=f"{number:064x}",
        zone=zone,
    )


def endpoints(count: int, zones: int = 1) -> list[PeerEndpoint]:
    return [endpoint(number, f"zone-{number % zones}") for number in range(count)]


def graph(members: Sequence[PeerEndpoint]) -> Graph:
    neighbours = Neighbours(members)
    return {one.node: neighbours.of(one.node) for one in members}


def names(exchange: Exchange) -> list[str]:
    return [peer.node for peer in exchange.peers]


def reached(found: Graph) -> set[str]:
    """The nodes that can be reached from the first."""
    seen = {next(iter(found))}
    edge = set(seen)
    while edge:
        edge = {name for node in edge for name in names(found[node])} - seen
        seen |= edge
    return seen


@pytest.mark.parametrize("count", [1, 2, 33])
def test_in_a_small_group_everybody_knows_everybody(count: int) -> None:
    found = graph(endpoints(count, zones=3))
    for node, exchange in found.items():
        assert names(exchange) == sorted(found.keys() - {node})


@pytest.mark.parametrize(
    ("count", "zones"), [(34, 1), (34, 34), (100, 3), (101, 40), (1000, 1), (1000, 7)]
)
def test_the_graph_of_a_large_group(count: int, zones: int) -> None:
    members = endpoints(count, zones)
    found = graph(members)
    known = {one.node: one for one in members}
    seeds = {node for node, exchange in found.items() if exchange.seed}
    assert len(seeds) == SEEDS
    assert reached(found) == found.keys()
    for node, exchange in found.items():
        mine = names(exchange)
        assert mine == sorted(set(mine) - {node})
        assert len(mine) <= (SEED_NEIGHBOURS_MAX if exchange.seed else NEIGHBOURS_MAX)
        assert all(node in names(found[name]) for name in mine)
        if exchange.seed:
            assert seeds - {node} <= set(mine)
        for peer in exchange.peers:
            assert peer.seed == (peer.node in seeds)
            there = known[peer.node]
            assert peer.model_dump(exclude={"seed"}) == there.model_dump()


def test_half_of_the_neighbours_are_in_the_zone_of_the_node() -> None:
    members = endpoints(600, zones=6)
    zone_of = {one.node: one.zone for one in members}
    near = far = 0
    for node, exchange in graph(members).items():
        if not exchange.seed:
            near += sum(peer.zone == zone_of[node] for peer in exchange.peers)
            far += sum(peer.zone != zone_of[node] for peer in exchange.peers)
    # Of the other half, a sixth is in the zone too.
    assert 0.5 < near / (near + far) < 0.65


def test_a_node_that_leaves_changes_few_lists() -> None:
    members = endpoints(500, zones=3)
    before = graph(members)
    for gone in (
        next(n for n, one in before.items() if one.seed is want) for want in (True, False)
    ):
        after = graph([one for one in members if one.node != gone])
        changed = {node for node in after if after[node] != before[node]}
        # Those that had it, and if it was a seed, those that have or see the new one.
        expected = set(names(before[gone]))
        new = {node for node in after if after[node].seed and not before[node].seed}
        assert len(new) == before[gone].seed
        for node in new:
            expected |= {node, *names(after[node])}
        assert changed <= expected


def test_a_new_certificate_changes_only_the_lists_that_have_it() -> None:
    members = endpoints(200, zones=3)
    before = graph(members)
    restarted = members[17].model_copy(update={"fingerprint": "f" * 64})
    after = graph([restarted if one.node == restarted.node else one for one in members])
    changed = {node for node in after if after[node] != before[node]}
    assert changed == set(names(before[restarted.node]))


def test_the_order_of_the_agents_does_not_matter() -> None:
    members = endpoints(120, zones=5)
    assert graph(members) == graph(members[::-1])


def test_a_node_without_an_agent_that_serves_has_no_peers_yet() -> None:
    assert Neighbours(endpoints(3)).of("node-9999") == Exchange()
