"""What the agent emits about its LocalModelNode, and about the pods that wait for models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent.cluster.pod_mounts import PodUse


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


@dataclass(frozen=True)
class PodEvent:
    """What a pod of the node waits for, or that it has it.

    An event with the pod and the `series` of an earlier one replaces the message of that one.
    """

    pod: PodUse
    series: str
    reason: str
    message: str
    warning: bool = False


class PodSink(Protocol):
    """Emits what concerns waiting pods. May be called from any thread."""

    def tell(self, event: PodEvent) -> None:
        """Emit an event if possible. Never raises, and never waits."""
        ...

    def cached(self, pod: PodUse) -> None:
        """Let kubelet start the pod's containers now: its model is cached. Never waits."""
        ...
