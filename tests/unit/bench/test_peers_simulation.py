from __future__ import annotations

import pytest

from agent.structs.pieces import MIN_PIECE_BYTES, piece_count
from hooks.exchange import SEED_NEIGHBOURS_MAX, SEEDS
from tests.bench.peers.hints import endpoints, members, restarts
from tests.bench.peers.simulation import Member, Network, Outcome, Simulation

SIZES = [100 * MIN_PIECE_BYTES, 3 * MIN_PIECE_BYTES + 1]
NETWORK = Network(node=20 * MIN_PIECE_BYTES, origin=40 * MIN_PIECE_BYTES)


def _run(nodes: int, network: Network = NETWORK) -> Outcome:
    return Simulation(members(endpoints(nodes)), SIZES, network).run()


@pytest.mark.parametrize("nodes", [1, 2, 20, 50])
def test_the_model_leaves_the_origin_once(nodes: int) -> None:
    found = _run(nodes)
    assert found.copies == 1.0
    assert found.hungry == 0
    assert found.pieces == sum(map(piece_count, SIZES))
    # No node is faster than its link.
    assert sum(SIZES) / NETWORK.node <= found.first <= found.median <= found.last


def test_nodes_without_neighbours_fetch_all_from_the_origin() -> None:
    alone = [Member(f"node-{number}", seed=True, neighbours=()) for number in range(4)]
    found = Simulation(alone, SIZES, NETWORK).run()
    assert found.copies == 4.0
    assert found.last >= 4 * sum(SIZES) / NETWORK.origin


def test_a_busy_peer_is_asked_later() -> None:
    found = _run(20, Network(node=NETWORK.node, origin=NETWORK.origin, uploads=1))
    assert found.refused > 0
    assert found.last > _run(20).last


def test_a_restarted_agent_changes_its_neighbours_alone() -> None:
    agents = endpoints(200)
    found = restarts(agents, [7])
    assert (found.status, found.placement) == (1, 1)
    assert 2 <= found.nodes <= SEED_NEIGHBOURS_MAX
    assert found.nodes == len(members(agents)[7].neighbours)
    assert sum(member.seed for member in members(agents)) == SEEDS
    assert restarts(agents, []).nodes == 0
    assert restarts(agents, range(200)).nodes == 200
