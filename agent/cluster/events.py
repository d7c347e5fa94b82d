"""The Events that the agent emits about its LocalModelNode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class NodeEvent:
    """Something that happened on the node. `reason` is a word in CamelCase for programs."""

    reason: str
    message: str
    warning: bool = False


class EventSink(Protocol):
    """Emits events. May be called from any thread."""

    def tell(self, event: NodeEvent) -> None:
        """Emit an event if possible. Never raises, and never waits."""
        ...
