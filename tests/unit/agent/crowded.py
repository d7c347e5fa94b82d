"""A node with pods, in a group whose limit is smaller than its models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.cluster.node_api import ApiUnavailableError
from agent.cluster.pod_mounts import PodMounts, WaitingMount
from crds.eviction import EvictionPolicy, EvictionSettings
from crds.node import LocalModelNodeGroupRef
from tests.unit.agent import inside
from tests.unit.agent.world import DATA

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from agent.control.loop import Loop
    from crds.node import LocalModel
    from tests.unit.agent.world import World

# The disk space of one model, which the tests also declare as its size.
TAKES = -(-(len(DATA) + 1) // 4096) * 4096


class NoPods:
    """A PodSource without a watch: tests pass the pods to the loop themselves."""

    def __init__(self, loop: Callable[[], Loop]) -> None:
        self._loop = loop

    def read(self) -> tuple[PodMounts, ...] | None:
        """The pods that the loop observed last."""
        return inside.pods(self._loop())

    def watch(self, observe: object, stopped: threading.Event) -> None:
        """Report nothing."""


class Pods(NoPods):
    """A PodSource whose `read` returns `now`; None: the API server is down."""

    now: tuple[PodMounts, ...] | None = ()

    def read(self) -> tuple[PodMounts, ...] | None:
        """The pods in `now`. Raises ApiUnavailableError if it is None."""
        if self.now is None:
            raise ApiUnavailableError("connection refused")
        return self.now


def prepare(world: World) -> None:
    """Put the node into a group with room for 2.5 models; the node has no pods."""
    world.pods = NoPods(lambda: world.loop)
    world.restart()
    world.loop.observe_pods(())
    limit(world, 2.5)


def limit(world: World, models: float, policy: EvictionPolicy = EvictionPolicy.LRU) -> None:
    """Set the group's limit to the size of this many models."""
    settings = EvictionSettings(policy=policy)
    group = LocalModelNodeGroupRef(
        name="gpus", storage_limit=str(int(models * TAKES)), eviction=settings
    )
    world.groups = (group,)


def models(world: World, names: str, **fields: Any) -> list[LocalModel]:
    return [world.model(name, model_size=str(TAKES), **fields) for name in names]


def pod(world: World, *names: str, pod_name: str = "server") -> PodMounts:
    return PodMounts("team", pod_name, frozenset(), frozenset(map(world.key, names)))


def wait(world: World, *names: str, blocked: bool = False) -> None:
    """The node's only pod waits for these models."""
    waiting = {WaitingMount(f"{name}-gpus", world.key(name), blocked) for name in names}
    found = replace(pod(world, *names), uid="uid-of-server", waiting=frozenset(waiting))
    world.loop.observe_pods((found,))


def use(world: World, *names: str) -> None:
    world.loop.observe_pods((pod(world, *names),) if names else ())


def entry(world: World, name: str) -> dict[str, Any]:
    return next(model for model in world.status()["models"] if model["name"] == name)


def told(world: World, reason: str) -> list[str]:
    return [event.message for event in world.events if event.reason == reason]


def ready(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.status()["conditions"][0]
    return found


def fill(world: World, names: str) -> None:
    """Download these models one after the other, so that the first is the oldest."""
    for n in range(len(names)):
        world.want(*models(world, names[: n + 1]))
        world.settle()
        world.step(1)
