"""What the loop publishes for other threads at the end of each step: metrics and probes. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from agent.control.rows import Table
    from crds.base import Condition
    from crds.node import NodeModelStatus
    from crds.states import ModelState


@dataclass(frozen=True)
class Snapshot:
    """The loop's knowledge after one step. Nothing in a snapshot changes, so any thread reads it.

    `models` and `conditions` are those of the status, written or not. `waiting` are the keys of the
    downloads that wait for room, for a place or for the node's turn. `is_node_read` is whether the
    API server has answered what the LocalModelNode is, or that there is none. `reported_at` is when
    a write of the status last succeeded or was not needed; None: never.
    """

    table: Table
    stepped_at: datetime
    models: tuple[NodeModelStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()
    waiting: frozenset[str] = frozenset()
    is_node_read: bool = False
    reported_at: datetime | None = None

    @property
    def is_synced(self) -> bool:
        """Whether the agent knows what its LocalModelNode lists, and the node's pods."""
        return self.is_node_read and self.table.pods_known

    @property
    def states(self) -> Counter[ModelState]:
        """How many entries of the status have each state."""
        return Counter(model.state for model in self.models)

    @property
    def models_bytes(self) -> int:
        """The bytes of the disk that the published copies take."""
        rows = self.table.rows.values()
        return sum(row.copy.tree_bytes for row in rows if row.copy.is_published)

    @property
    def active(self) -> int:
        """How many downloads run."""
        return sum(row.is_active for row in self.table.rows.values())

    @property
    def waiting_pods(self) -> int:
        """How many pods have a container that waits for a model that is not there."""
        missing = (row for row in self.table.rows.values() if not row.copy.is_whole)
        return len({pod.uid for row in missing for pod in row.pods or () if pod.waits})
