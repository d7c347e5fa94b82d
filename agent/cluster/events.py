"""What the agent tells people as Events of its LocalModelNode."""

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
    """Takes events. May be called from any thread."""

    def tell(self, event: NodeEvent) -> None:
        """Pass an event on, if that is possible. It never raises, and never waits."""
        ...
