"""Counts what the agents' hints about each other cost the API server.

An agent writes its address and certificate once, when it starts. Then the hooks write the group's
placement, and the LocalModelNodes whose neighbours have changed. A download writes no hint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.peers import PeerEndpoint
from hooks.exchange import Neighbours
from tests.bench.peers.simulation import Member

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Writes:
    """Requests to the API server: of agents, and of hooks for the placement and for the nodes."""

    status: int
    placement: int
    nodes: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.status + self.placement + self.nodes


def endpoints(count: int) -> list[PeerEndpoint]:
    """The agents of a group of so many nodes."""
    return [_endpoint(number, start=0) for number in range(count)]


def _endpoint(number: int, start: int) -> PeerEndpoint:
    return PeerEndpoint(
        node=f"node-{number:05}",
        address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8089",
        fingerprint=f"{number:032x}{start:032x}",
    )


def members(agents: Sequence[PeerEndpoint]) -> list[Member]:
    """The nodes of a group, with the neighbours that the hooks give them."""
    numbers = {agent.node: number for number, agent in enumerate(agents)}
    graph = Neighbours(agents)
    found = []
    for agent in agents:
        part = graph.of(agent.node)
        found.append(
            Member(agent.node, part.seed, tuple(numbers[peer.node] for peer in part.peers))
        )
    return found


def restarts(agents: Sequence[PeerEndpoint], restarted: Iterable[int]) -> Writes:
    """The writes after these agents have started again within one sync of the hooks."""
    after = list(agents)
    for number in restarted:
        after[number] = _endpoint(number, start=1)
    former, graph = Neighbours(agents), Neighbours(after)
    changed = sum(former.of(agent.node) != graph.of(agent.node) for agent in after)
    return Writes(sum(a != b for a, b in zip(agents, after, strict=True)), 1, changed)
