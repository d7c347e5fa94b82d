"""The loop while the API server's state, or what it was told of it, is an older one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from agent.control.owners import TRUST_GRACES
from tests.unit.agent.crowded import Pods, fill, models, pod, prepare, told, use
from tests.unit.agent.world import GRACE

if TYPE_CHECKING:
    from tests.unit.agent.world import World


@pytest.fixture
def world(world: World) -> World:
    prepare(world)
    return world


def restore(world: World, *names: str, version: int) -> None:
    """The API server has a LocalModelNode of before, which lists these."""
    assert world.api.node is not None
    world.api.version = version - 1
    world.api.node["metadata"]["generation"] = 1
    world.want(*models(world, "".join(names)))
    world.settle()


def test_what_an_older_state_lacks_stays_for_a_while(world: World) -> None:
    fill(world, "ab")
    restore(world, "a", version=1)
    for _ in range(TRUST_GRACES - 1):
        world.step(GRACE)
        world.settle()
    # Somebody makes its cache again.
    assert world.tree("b")
    world.want(*models(world, "ab"))
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Downloaded"}
    assert len(told(world, "Downloaded")) == 2
    world.want(*models(world, "a"))
    world.step()
    world.step(GRACE)
    world.settle()
    assert world.tree("b") is None


def test_graces_begin_anew_with_an_older_state(world: World) -> None:
    fill(world, "ab")
    world.want(*models(world, "a"))
    world.step()
    world.step(GRACE - 1)
    restore(world, "a", version=1)
    world.step(2)
    world.settle()
    assert world.tree("b")
    world.step(TRUST_GRACES * GRACE)
    world.settle()
    assert world.tree("b") is None


def test_nothing_is_evicted_for_what_an_older_state_wants(world: World) -> None:
    fill(world, "ab")
    restore(world, "abc", version=1)
    for _ in range(TRUST_GRACES - 1):
        world.step(GRACE)
        world.settle()
    assert world.tree("a")
    assert world.tree("b")
    world.step(GRACE)
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}


def test_an_older_state_is_also_seen_before_something_goes(world: World) -> None:
    """The watch has not told it yet."""
    fill(world, "ab")
    world.want(*models(world, "a"))
    world.step()
    assert world.api.node is not None
    stored = copy.deepcopy(world.api.node)
    stored["metadata"]["resourceVersion"] = "1"
    world.api.node = stored
    world.step(GRACE)
    world.settle()
    assert world.tree("b")


def test_a_status_is_written_again_to_an_older_state(world: World) -> None:
    fill(world, "ab")
    assert world.api.node is not None
    old = copy.deepcopy(world.api.node)
    old["status"] = {}
    old["metadata"]["resourceVersion"] = "1"
    world.api.node, world.api.version = copy.deepcopy(old), 1
    world.loop.observe(copy.deepcopy(old))
    world.step(15)
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Downloaded"}


@pytest.mark.parametrize("down", [False, True])
def test_nothing_goes_on_the_word_of_old_pods(world: World, down: bool) -> None:
    """Their watch may be silent, and the connection dead, for a minute and a half."""
    fill(world, "ab")
    pods = world.pods = Pods(lambda: world.loop)
    world.restart()
    use(world)
    pods.now = None if down else (pod(world, "a"), pod(world, "b", pod_name="other"))
    world.want(*models(world, "bc"))
    for _ in range(3):
        world.step(GRACE)
        world.settle()
    assert world.tree("a")
    assert world.tree("b")
    pods.now = (pod(world, "b"),)
    use(world, "b")
    for _ in range(3):
        world.step(GRACE)
        world.settle()
    assert world.tree("a") is None
    assert world.tree("b")
