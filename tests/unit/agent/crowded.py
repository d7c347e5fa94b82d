"""A node whose group has less room than its models take, and its pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localmodel.agent.cluster.node_api import ApiUnavailableError
from localmodel.agent.cluster.pods import PodMounts
from localmodel.crds.eviction import EvictionPolicy, EvictionSettings
from localmodel.crds.node import LocalModelNodeGroupRef
from tests.unit.agent import inside
from tests.unit.agent.world import DATA

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from localmodel.agent.control.loop import Loop
    from localmodel.crds.node import LocalModel
    from tests.unit.agent.world import World

# What one model takes of the disk, and about as much as is declared.
TAKES = -(-(len(DATA) + 1) // 4096) * 4096


class NoPods:
    """A source of pods; the tests tell them themselves."""

    def __init__(self, loop: Callable[[], Loop]) -> None:
        self._loop = loop

    def read(self) -> tuple[PodMounts, ...] | None:
        """As they were told."""
        return inside.pods(self._loop())

    def watch(self, observe: object, stopped: threading.Event) -> None:
        """Tell nothing."""


class Pods(NoPods):
    """What is read of the pods is `now`, whatever was told; None: the API server is down."""

    now: tuple[PodMounts, ...] | None = ()

    def read(self) -> tuple[PodMounts, ...] | None:
        """These, or nothing."""
        if self.now is None:
            raise ApiUnavailableError("connection refused")
        return self.now


def prepare(world: World) -> None:
    """A node in a group for two and a half models, whose pods are known to be none."""
    world.pods = NoPods(lambda: world.loop)
    world.restart()
    world.loop.observe_pods(())
    limit(world, 2.5)


def limit(world: World, models: float, policy: EvictionPolicy = EvictionPolicy.LRU) -> None:
    """So many models fit in the group."""
    settings = EvictionSettings(policy=policy)
    group = LocalModelNodeGroupRef(
        name="gpus", storage_limit=str(int(models * TAKES)), eviction=settings
    )
    world.groups = (group,)


def models(world: World, names: str, **fields: Any) -> list[LocalModel]:
    return [world.model(name, model_size=str(TAKES), **fields) for name in names]


def pod(world: World, *names: str, pod_name: str = "server") -> PodMounts:
    return PodMounts("team", pod_name, frozenset(), frozenset(map(world.key, names)))


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
    """These are there, the first one for the longest time."""
    for n in range(len(names)):
        world.want(*models(world, names[: n + 1]))
        world.settle()
        world.step(1)
