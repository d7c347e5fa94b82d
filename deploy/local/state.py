"""The options with which a local cluster was started, in a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from deploy.local.overlay import STANDALONE
from deploy.local.ports import Ports
from deploy.local.process import write_atomically
from deploy.local.product import AgentOptions

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class State:
    """Ports, Metacontroller's program (None for the stand-in), options of agents, overlay.

    real_nodes: whether real nodes can join.
    pod_policies: whether the policies of deploy/pods are installed.
    """

    ports: Ports
    metacontroller: str | None
    agents: AgentOptions
    overlay: str = STANDALONE
    real_nodes: bool = False
    pod_policies: bool = False

    def save(self, path: Path) -> None:
        """Write the state to a file."""
        write_atomically(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the state from a file."""
        raw = json.loads(path.read_text())
        agents = raw["agents"]
        return cls(
            Ports(**raw["ports"]),
            raw["metacontroller"],
            AgentOptions(**{**agents, "args": tuple(agents["args"])}),
            raw["overlay"],
            raw["real_nodes"],
            raw["pod_policies"],
        )
