"""What a benchmark of the control plane runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Sizes and limits. `timeout` is that of each wait; `progress` counts reports on the way."""

    nodes: int
    models: int
    rounds: int
    timeout: float
    quiet: float
    progress: int
    connections: int
    work: Path

    @property
    def size(self) -> tuple[int, int]:
        """Nodes and models."""
        return (self.nodes, self.models)
