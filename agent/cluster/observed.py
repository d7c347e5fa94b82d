"""The observations that watches of the API server pass to the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.cluster.node_api import NodeObject
    from agent.cluster.pod_mounts import PodMounts


@dataclass(frozen=True)
class Observed:
    """The LocalModelNode was observed in this state; None: it is gone."""

    node: NodeObject | None


@dataclass(frozen=True)
class PodsSeen:
    """The pods of the node that may use models; None: not known."""

    pods: tuple[PodMounts, ...] | None
