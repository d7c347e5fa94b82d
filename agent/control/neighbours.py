"""The peers that a LocalModelNode names, for each of its groups. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.structs.exchange import Neighbourhood, Peer
from crds.naming import ZONE_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crds.node import LocalModelNode
    from crds.peers import AgentPeer


class Peers(Protocol):
    """The agent's exchange with other nodes: see agent.commands.peers."""

    @property
    def endpoint(self) -> AgentPeer:
        """Where the agent serves its peers."""
        ...

    def follow(self, neighbourhoods: Mapping[str, Neighbourhood]) -> None:
        """Exchange with these peers from now on, by group, and with nobody else."""
        ...


def neighbourhoods(node: LocalModelNode | None) -> Mapping[str, Neighbourhood]:
    """The peers of each group that exchanges models; none while the LocalModelNode is gone."""
    if node is None:
        return {}
    name, zone = node.metadata.name, node.metadata.labels.get(ZONE_LABEL, "")
    return {
        group.name: Neighbourhood(
            node=name,
            peers=tuple(
                Peer(one.node, one.address, one.fingerprint, one.zone, one.seed)
                for one in group.exchange.peers
                if one.node != name
            ),
            zone=zone,
            seed=group.exchange.seed,
        )
        for group in node.spec.groups
        if group.exchange is not None
    }
