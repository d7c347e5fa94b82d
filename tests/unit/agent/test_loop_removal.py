from __future__ import annotations

import copy
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agent.control.owners import TRUST_GRACES
from tests.unit.agent import inside
from tests.unit.agent.crowded import Pods
from tests.unit.agent.helpers import node_object, publish
from tests.unit.agent.world import GRACE

if TYPE_CHECKING:
    from datetime import datetime

    from tests.unit.agent.world import World


def test_unwanted_model_goes_after_the_grace_and_a_fresh_look(world: World) -> None:
    world.want(world.model("a"), world.model("b"))
    world.settle()
    world.want(world.model("b"))
    world.settle()
    assert world.states() == {"b": "Downloaded", "a": "Removing"}
    world.step(GRACE - 1)
    assert world.tree("a")
    assert world.api.reads == 0
    world.step(1)
    world.settle()
    assert world.tree("a") is None
    assert world.api.reads >= 1
    assert world.states() == {"b": "Downloaded"}


def test_label_that_flaps_costs_nothing(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    for _ in range(5):
        world.want()
        world.step(GRACE / 2)
        world.want(world.model("a"))
        world.step(GRACE)
    assert world.tree("a")
    assert len(world.server.seen) == 2


@pytest.mark.parametrize("seen_before", [True, False])
def test_missing_node_object_removes_nothing(world: World, seen_before: bool) -> None:
    publish(world.store, f"{world.url}/a.bin", {"a.bin": b"1"})
    if seen_before:
        world.want()
        world.step()
    world.vanish()
    for _ in range(10):
        world.step(GRACE)
    assert world.tree("a") == {"a.bin": b"1"}


def test_clock_starts_anew_when_the_object_comes_back(world: World) -> None:
    publish(world.store, f"{world.url}/a.bin", {"a.bin": b"1"})
    world.want()
    world.step()
    world.step(GRACE - 1)
    world.want(uid="uid-2")
    world.step()
    world.step(GRACE - 1)
    assert world.tree("a")
    world.step(1)
    assert world.tree("a") is None


def test_clock_starts_anew_after_a_restart(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    world.want()
    world.step(GRACE - 1)
    world.restart()
    world.want()
    world.step()
    world.step(GRACE - 1)
    assert world.tree("a")
    # It is told by the name that its manifest has.
    assert world.states() == {"a": "Removing"}
    world.step(1)
    assert world.tree("a") is None


def test_nothing_is_removed_while_the_api_server_is_down(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    world.want()
    world.step()
    world.api.down = True
    for _ in range(20):
        world.step(GRACE)
    assert world.tree("a")
    world.api.down = False
    world.step(GRACE)
    world.settle()
    assert world.tree("a") is None


def test_stale_list_removes_nothing(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    world.want()
    world.step()
    # Meanwhile it is wanted again, and the watch has not told yet.
    world.want(world.model("a"), told=False)
    for _ in range(5):
        world.step(GRACE)
    assert world.tree("a")
    assert world.states() == {"a": "Downloaded"}


def test_object_that_is_gone_at_the_fresh_look_removes_nothing(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    world.want()
    world.step()
    world.api.node = None
    for _ in range(5):
        world.step(GRACE)
    assert world.tree("a")


def test_object_that_is_not_understood_removes_nothing(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    broken = node_object()
    broken["spec"] = {"localModels": [{"modelName": "a"}]}
    world.api.store(broken)
    world.loop.observe(copy.deepcopy(world.api.node))
    for _ in range(5):
        world.step(GRACE)
    assert world.tree("a")


def test_foreign_directory_is_told_and_never_touched(world: World) -> None:
    theirs = world.root / "models" / world.key("a")
    theirs.mkdir()
    (theirs / "x").write_text("theirs")
    world.want(world.model("a"))
    world.settle()
    assert world.status()["models"][0]["reason"] == "ForeignDirectory"
    assert [c["type"] for c in world.status()["conditions"]] == ["Ready", "ForeignDirectories"]
    world.want()
    for _ in range(5):
        world.step(GRACE)
    assert world.tree("a") == {"x": b"theirs"}
    (theirs / "x").unlink()
    world.want(world.model("a"))
    world.step(GRACE)
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert [c["type"] for c in world.status()["conditions"]] == ["Ready"]


def test_unwanted_download_goes_on_in_the_grace_and_is_cancelled_after_it(world: World) -> None:
    world.web.gate = threading.Event()
    world.want(world.model("a"))
    world.step()
    world.want()
    world.step(1)
    assert world.states() == {"a": "Removing"}
    task = world.download("a")
    world.step(GRACE - 1)
    assert not task.cancelled.is_set()
    world.step(1)
    assert task.cancelled.is_set()
    world.web.gate.set()
    world.settle()
    assert world.tree("a") is None
    assert world.states() == {}
    assert list((world.root / ".localmodel").iterdir()) == [world.root / ".localmodel" / "lock"]


def test_download_that_is_wanted_again_after_its_cancellation_starts_anew(world: World) -> None:
    world.web.gate = threading.Event()
    world.want(world.model("a"))
    world.step()
    world.want()
    world.step()
    world.step(GRACE)
    assert world.download("a").cancelled.is_set()
    world.want(world.model("a"))
    world.web.gate.set()
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_removal_that_fails_is_tried_again_and_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.want(world.model("a"), world.model("b"))
    world.settle()
    real, broken = world.store.remove, min(world.key("a"), world.key("b"))

    def remove(key: str) -> None:
        if key == broken:
            raise OSError(30, "Read-only file system")
        real(key)

    monkeypatch.setattr(world.store, "remove", remove)
    world.want()
    world.step()
    world.step(GRACE)
    world.settle()
    assert len(list((world.root / "models").iterdir())) == 1
    monkeypatch.setattr(world.store, "remove", real)
    world.step(30)
    world.settle()
    assert list((world.root / "models").iterdir()) == []


def _recreated(world: World, *groups: str, created: datetime) -> None:
    """The LocalModelNode is made anew, from the plans of these groups, without any model."""
    obj = node_object(uid="uid-2")
    # Of a node whose clock is a day ahead of the API server's.
    skew = timedelta(days=1)
    obj["metadata"]["creationTimestamp"] = (created - skew).isoformat()
    obj["metadata"]["managedFields"] = [
        {"manager": "metacontroller", "time": (world.now() - skew).isoformat()},
        {"manager": "somebody"},
    ]
    obj["spec"]["groups"] = [{"name": group, "storageLimit": "1Gi"} for group in groups]
    world.api.store(obj)
    world.loop.observe(copy.deepcopy(world.api.node))


def test_a_new_object_that_never_listed_a_group_is_not_believed_about_its_models(
    world: World,
) -> None:
    world.want(world.model("a"))
    world.settle()
    _recreated(world, "others", created=world.now())
    for _ in range(TRUST_GRACES - 1):
        world.step(GRACE)
        assert world.tree("a")
    world.step(GRACE)
    world.step(GRACE)
    assert world.tree("a") is None


def test_a_new_object_that_lists_the_group_is_believed(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    _recreated(world, "gpus", created=world.now())
    world.step()
    world.step(GRACE)
    assert world.tree("a") is None


def test_a_node_that_leaves_a_group_soon_is_cleaned_up_soon(world: World) -> None:
    created = world.now()
    _recreated(world, "gpus", created=created)
    world.want(world.model("a"), uid="uid-2")
    world.settle()
    _recreated(world, "gpus", created=created)
    world.step()
    _recreated(world, created=created)
    world.step()
    world.step(GRACE)
    assert world.tree("a") is None


def test_an_old_object_is_believed_after_a_restart(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    created = world.now() - timedelta(seconds=TRUST_GRACES * GRACE)
    world.restart()
    _recreated(world, created=created)
    world.step()
    world.step(GRACE)
    assert world.tree("a") is None


def test_a_download_that_is_no_longer_listed_when_that_is_read_anew_does_not_start(
    world: World,
) -> None:
    world.pods = pods = Pods(lambda: world.loop)
    world.restart()
    world.loop.observe_pods(())
    world.want(world.model("a"))
    world.settle()
    world.want()
    world.step()
    world.want(world.model("b"))
    world.want(told=False)
    pods.now = None
    world.step(GRACE)
    assert world.tree("a")
    assert world.active() == []
    assert inside.reservations(world.loop).reserved == {}
