"""How far a rollout is, from the events of watches."""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING, Any, cast

from deploy.kube.errors import UnansweredError, UnreachableError
from deploy.kube.kinds import LOCAL_MODEL_NODES
from tests.bench.control.follower import Follower
from tests.bench.control.tracking import Copies, Specs, Version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import Kind, KubeObject


def local_model_node(name: str, models: int, version: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": str(version), "generation": version},
        "spec": {"localModels": [{}] * models},
    }


def local_model_cache(name: str, available: int | None) -> dict[str, Any]:
    status = {} if available is None else {"copies": {"available": available}}
    return {"metadata": {"name": name}, "status": status}


def test_specs() -> None:
    specs = Specs()
    specs.see("ADDED", local_model_node("a", 0))
    specs.see("ADDED", local_model_node("b", 2, 5))
    specs.see("MODIFIED", local_model_node("a", 1, 3))
    assert specs.total == 3
    assert specs.complete(2) == {"b": Version("5", 5)}
    specs.see("DELETED", local_model_node("b", 2, 6))
    assert specs.total == 1
    assert specs.complete(1) == {"a": Version("3", 3)}


def test_copies() -> None:
    copies = Copies(nodes=10)
    copies.see("ADDED", local_model_cache("a", None))
    copies.see("ADDED", local_model_cache("b", 4))
    copies.see("MODIFIED", local_model_cache("a", 9))
    assert copies.total == 13
    # A node that joined since counts for nobody.
    copies.see("MODIFIED", local_model_cache("b", 11))
    assert copies.total == 19
    copies.see("DELETED", local_model_cache("a", 9))
    assert copies.total == 10


class Api:
    """Lists one node; its first watch breaks, and the second goes on after the last event."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        self.go_on = Event()

    def snapshot(self, _resource: Kind) -> tuple[tuple[KubeObject, ...], str]:
        return (local_model_node("a", 1, 7),), "7"

    def watch(
        self, _resource: Kind, version: str, *, seconds: int
    ) -> Iterator[tuple[str, KubeObject]]:
        assert seconds > 0
        self.versions.append(version)
        if len(self.versions) == 1:
            yield "ADDED", local_model_node("b", 1, 8)
            yield "BOOKMARK", {"metadata": {"resourceVersion": "9"}}
            raise UnansweredError("watching", "the answer broke off")
        self.go_on.wait(10)
        yield "MODIFIED", local_model_node("a", 2, 10)
        raise UnreachableError("watching", "the API server does not answer")


def test_a_follower_tells_when_a_goal_is_reached() -> None:
    api, specs = Api(), Specs()
    follower = Follower(cast("KubeClient", api), LOCAL_MODEL_NODES, specs)
    assert follower.expect(lambda: specs.total >= 1).wait(time.monotonic()) is not None
    goal = follower.expect(lambda: specs.total >= 3)
    assert goal.wait(time.monotonic()) is None
    before = time.monotonic()
    api.go_on.set()
    reached = goal.wait(before + 10)
    assert reached is not None
    assert reached >= before
    assert api.versions == ["7", "9"]
    assert follower.look(lambda: specs.total) == 3
