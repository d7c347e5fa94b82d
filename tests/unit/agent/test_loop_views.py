"""The loop with views: what a claim of one model shows, and when."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.pod_mounts import PodMounts
from agent.disk.store import Store
from tests.faults.disk import read_tree
from tests.unit.agent import inside
from tests.unit.agent.crowded import NoPods, entry, fill, models, pod, prepare, use
from tests.unit.agent.helpers import publish
from tests.unit.agent.world import DATA, GRACE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.world import World


@pytest.fixture
def world(world: World) -> World:
    world.store.close()
    world.store = Store(world.root, makes_views=True)
    world.pods = NoPods(lambda: world.loop)
    world.begin()
    world.loop.observe_pods(())
    return world


def folder(world: World, name: str) -> Path:
    return world.root / "volumes" / world.key(name)


def shown(world: World, name: str) -> dict[str, bytes] | None:
    return read_tree(world.store.views.path(world.key(name)))


def whole(name: str) -> dict[str, bytes]:
    return {f"{name}.bin": name.encode() + DATA}


def disk_ready(world: World) -> dict[str, Any] | None:
    found = {one["type"]: one for one in world.status()["conditions"]}
    return found.get("DiskReady")


def restart(world: World) -> None:
    world.restart()
    world.loop.observe_pods(())


def test_the_folder_is_there_with_the_entry_and_the_model_before_its_report(world: World) -> None:
    world.want(world.model("a"), world.model("gone"))
    world.step()
    for name in ("a", "gone"):
        assert list((folder(world, name) / "models").iterdir()) == []
    assert world.states()["a"] != "Downloaded"
    while world.states()["a"] != "Downloaded":
        world.step()
    assert shown(world, "a") == whole("a")
    world.settle()
    assert list((folder(world, "gone") / "models").iterdir()) == []


def test_a_view_goes_with_its_copy_and_the_folder_with_its_entry(world: World) -> None:
    world.want(world.model("a"), world.model("b"))
    world.settle()
    world.want(world.model("b"))
    world.step()
    world.step(GRACE - 1)
    assert shown(world, "a") == whole("a")
    world.step(1)
    world.settle()
    assert world.tree("a") is None
    assert not folder(world, "a").exists()
    assert shown(world, "b") == whole("b")


def test_an_entry_that_flaps_leaves_the_folder_as_it_is(world: World) -> None:
    world.want(world.model("gone"))
    world.settle()
    before = folder(world, "gone").stat().st_ino
    for _ in range(3):
        world.want()
        world.step(GRACE / 2)
        world.want(world.model("gone"))
        world.step(GRACE)
    assert folder(world, "gone").stat().st_ino == before
    world.want()
    world.settle()
    world.step(GRACE)
    world.settle()
    assert not folder(world, "gone").exists()


@pytest.mark.parametrize("by", ["claim", "sub-path"])
@pytest.mark.parametrize("restarts", [False, True])
def test_no_folder_goes_under_a_pod(world: World, by: str, restarts: bool) -> None:
    """The mount of a pod leads to the folder that it had: another one is not seen there."""
    mounting = pod(world, "gone")
    if by == "claim":
        mounting = PodMounts("team", "server", frozenset({"gone-gpus"}), frozenset())
    world.want(world.model("gone"))
    world.loop.observe_pods((mounting,))
    world.settle()
    before = folder(world, "gone").stat().st_ino
    world.want()
    world.settle()
    for _ in range(3):
        if restarts:
            # Then the agent does not know any more whose folder it is.
            world.restart()
            world.want()
            world.loop.observe_pods((mounting,))
        world.step(2 * GRACE)
        world.settle()
        assert folder(world, "gone").stat().st_ino == before
    world.loop.observe_pods(())
    world.settle()
    world.step(GRACE)
    world.settle()
    assert not folder(world, "gone").exists()


def test_no_folder_goes_while_pods_are_unknown(world: World) -> None:
    world.want(world.model("gone"))
    world.settle()
    world.want()
    world.loop.observe_pods(None)
    for _ in range(5):
        world.step(GRACE)
    assert folder(world, "gone").exists()


def test_an_eviction_leaves_the_folder(world: World) -> None:
    prepare(world)
    fill(world, "ab")
    before = folder(world, "a").stat().st_ino
    world.want(*models(world, "abc"))
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}
    assert (shown(world, "a"), shown(world, "c")) == (None, whole("c"))
    assert folder(world, "a").stat().st_ino == before
    # A pod waits for it there.
    use(world, "a")
    world.settle()
    assert world.states()["a"] == "Downloaded"
    assert shown(world, "a") == whole("a")
    assert folder(world, "a").stat().st_ino == before


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV])
def test_without_hard_links_the_node_says_so_and_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, "link", refuses)
        world.want(world.model("a"), world.model("b"))
        world.settle()
        asked = len(world.server.seen)
        world.step(15)
        world.settle()
        for name in ("a", "b"):
            found = entry(world, name)
            assert (found["state"], found["reason"]) == ("Failed", "NoHardLinks")
            assert not found["cached"]
            assert shown(world, name) is None
        condition = disk_ready(world)
        assert condition is not None
        assert (condition["status"], condition["reason"]) == ("False", "NoHardLinks")
        assert "LOCALMODEL_VOLUMES=root" in condition["message"]
        # Nothing else stops: what nobody wants goes.
        world.want(world.model("a"))
        world.settle()
        world.step(GRACE)
        world.settle()
        assert world.states() == {"a": "Failed"}
        restart(world)
        world.want(world.model("a"))
        world.settle()
        assert entry(world, "a")["reason"] == "NoHardLinks"
    world.step(600)
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert shown(world, "a") == whole("a")
    assert disk_ready(world) is None
    # No byte was fetched for that.
    assert len(world.server.seen) == asked


def test_a_copy_that_cannot_be_shown_gives_way_like_any_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    prepare(world)
    monkeypatch.setattr(os, "link", refuses)
    fill(world, "ab")
    world.want(*models(world, "abc"))
    world.settle()
    states = world.states()
    assert sorted(states.values()) == ["Evicted", "Failed", "Failed"]
    assert states["c"] == "Failed"
    for _ in range(3):
        world.step(60)
        world.settle()
    assert world.states() == states


def test_a_view_that_somebody_changed_is_mended_without_a_download(world: World) -> None:
    prepare(world)
    fill(world, "ab")
    asked = len(world.server.seen)
    before = inside.inventory(world.loop).copy(world.key("a")).usage
    (world.store.views.path(world.key("a")) / "a.bin").unlink()
    world.step(61)
    assert world.states()["a"] != "Downloaded"
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Downloaded"}
    assert shown(world, "a") == whole("a")
    assert len(world.server.seen) == asked
    assert inside.inventory(world.loop).copy(world.key("a")).usage == before


def test_views_are_there_before_the_first_report_of_an_agent_that_begins_with_them(
    world: World,
) -> None:
    world.store.close()
    world.store = Store(world.root)
    world.begin()
    publish(world.store, f"{world.url}/a.bin", whole("a"))
    world.store.close()
    world.store = Store(world.root, makes_views=True)
    world.begin()
    world.loop.observe_pods(())
    world.want(world.model("a"))
    world.step()
    assert [write["models"][0]["state"] for write in world.api.writes] == ["Downloaded"]
    assert shown(world, "a") == whole("a")


def test_a_repair_under_a_pod_reaches_its_view(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    use(world, "a")
    world.settle()
    before = world.store.views.path(world.key("a")).stat().st_ino
    os.truncate(world.store.path(world.key("a")) / "a.bin", 3)
    world.step(61)
    assert entry(world, "a")["reason"] == "Corrupt"
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert shown(world, "a") == whole("a")
    assert world.store.views.path(world.key("a")).stat().st_ino == before
