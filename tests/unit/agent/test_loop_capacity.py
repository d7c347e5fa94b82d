"""The loop with limits, pods and evictions, on a real disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent.disk.on_disk import Disk
from agent.disk.store import Store
from crds.eviction import EvictionPolicy, EvictionSettings
from crds.node import LocalModelNodeGroupRef
from tests.unit.agent import inside
from tests.unit.agent.crowded import (
    TAKES,
    entry,
    fill,
    limit,
    models,
    prepare,
    ready,
    told,
    use,
)
from tests.unit.agent.helpers import hash_of, node_object
from tests.unit.agent.world import DATA

if TYPE_CHECKING:
    from agent.jobs.reservations import Coming
    from tests.unit.agent.world import World

HASH = "sha256:" + "0" * 64


@pytest.fixture
def world(world: World) -> World:
    prepare(world)
    return world


def test_a_first_download_evicts_the_least_recently_used(world: World) -> None:
    fill(world, "ab")
    world.want(*models(world, "abc"))
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}
    assert world.tree("a") is None
    a = entry(world, "a")
    assert (a["reason"], a["cached"]) == ("MadeRoom", False)
    assert "684Ki were freed at 2026-08-01T00:16:4" in a["message"]
    assert "to make room for c; never used" in a["message"]
    assert world.status()["modelStatus"]["a"] == "ModelDownloadPending"
    assert (ready(world)["status"], ready(world)["reason"]) == ("True", "AllCached")
    assert ready(world)["message"] == "2 of 3 models cached, 1 evicted"
    assert [message.partition(":")[0] for message in told(world, "Evicted")] == ["a"]
    assert len(told(world, "Downloaded")) == 3
    # And so it stays.
    asked = len(world.server.seen)
    for _ in range(5):
        world.step(60)
        world.settle()
    assert len(world.server.seen) == asked
    assert world.states()["a"] == "Evicted"


def test_each_eviction_comes_after_a_fresh_look(world: World) -> None:
    fill(world, "ab")
    reads = world.api.reads
    world.want(*models(world, "abc"))
    world.api.down = True
    # Its source is asked first.
    world.settle_until(lambda: inside.making_room(world.loop) == world.key("c"))
    for _ in range(3):
        world.step(10)
    assert world.tree("a")
    world.api.down = False
    # Meanwhile it is pinned, and the watch has not told yet.
    pinned = models(world, "ab", retention="Pinned")
    world.want(*pinned, *models(world, "c"), told=False)
    for _ in range(3):
        world.step(10)
    assert world.tree("a")
    assert world.api.reads > reads
    assert entry(world, "c")["reason"] == "CapacityFull"


def test_a_mounted_model_stays_and_the_other_waits(world: World) -> None:
    fill(world, "ab")
    use(world, "a", "b")
    world.want(*models(world, "abc"))
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Downloaded", "c": "Pending"}
    c = entry(world, "c")
    assert c["reason"] == "CapacityFull"
    assert "it needs 684Ki, and 342Ki of the storageLimit of 1.7Mi" in c["message"]
    assert "delete caches" in c["message"]
    assert ready(world)["reason"] == "CapacityFull"
    world.step(60)
    assert len(told(world, "CapacityFull")) == 1
    # The pod goes, and the model with it.
    use(world, "b")
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}


def test_a_model_larger_than_declared_waits_without_a_failure(world: World) -> None:
    fill(world, "ab")
    use(world, "a", "b")
    world.want(*models(world, "ab"), world.model("c", model_size="1Ki"))
    world.settle()
    c = entry(world, "c")
    assert (c["state"], c["reason"]) == ("Pending", "CapacityFull")
    assert "attempts" not in c
    assert told(world, "DownloadFailed") == []
    asked = len(world.server.seen)
    for _ in range(3):
        world.step(60)
        world.settle()
    assert len(world.server.seen) == asked
    # Its size is known after a restart.
    world.restart()
    use(world, "a", "b")
    world.want(*models(world, "ab"), world.model("c", model_size="1Ki"))
    world.settle()
    assert entry(world, "c")["reason"] == "CapacityFull"
    assert len(world.server.seen) == asked
    use(world, "b")
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}


def test_downloads_at_once_never_take_more_than_the_limit(world: World) -> None:
    """Two that would fit alone, of which each turns out to be larger than it was said to be."""
    limit(world, 1.5)
    seen: list[int] = []
    reservations = inside.reservations(world.loop)
    grow = reservations.grow
    both = threading.Barrier(2, timeout=30)

    def watched(request: Any, size: int, coming: Coming) -> None:
        both.wait()
        try:
            grow(request, size, coming)
        finally:
            seen.append(sum(reservations.reserved.values()))

    reservations.grow = watched  # type: ignore[method-assign]
    world.want(world.model("a", model_size="1Ki"), world.model("b", model_size="1Ki"))
    world.step()
    assert len(world.active()) == 2
    world.settle_until(lambda: len(seen) == 2)
    reservations.grow = grow  # type: ignore[method-assign]
    world.settle()
    assert max(seen) <= 1.5 * TAKES
    assert sorted(world.states().values()) == ["Downloaded", "Evicted"]


def test_a_lowered_limit_lets_the_least_recently_used_go(world: World) -> None:
    fill(world, "ab")
    limit(world, 1.2)
    world.want(*models(world, "ab"))
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded"}
    a = entry(world, "a")
    assert a["reason"] == "LimitExceeded"
    assert "took more than 90% of its storageLimit" in a["message"]


def test_a_full_disk_lets_models_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, "ab")
    size = 100 * TAKES
    disk = Disk(size, 95 * TAKES, 5 * TAKES)
    monkeypatch.setattr(world.store, "disk", lambda: disk)
    world.want(*models(world, "ab"))
    world.step(60)
    world.settle()
    assert set(world.states().values()) == {"Evicted"}
    assert entry(world, "a")["reason"] == "DiskPressure"


def test_no_more_goes_than_was_measured(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that gives back late what was deleted: nothing more goes for that."""
    fill(world, "ab")
    size = 20 * TAKES
    # 18.5 are taken, and 18 are too many with the marks of the group.
    disk = Disk(size, int(18.5 * TAKES), int(1.5 * TAKES))
    monkeypatch.setattr(world.store, "disk", lambda: disk)
    settings = EvictionSettings(policy=EvictionPolicy.LRU, high_percent=90, low_percent=90)
    world.groups = (
        LocalModelNodeGroupRef(name="gpus", storage_limit=str(10 * TAKES), eviction=settings),
    )
    world.want(*models(world, "ab"))
    world.step(60)
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded"}


def test_a_group_that_does_not_evict_has_no_limit_here(world: World) -> None:
    limit(world, 1.5, EvictionPolicy.NONE)
    world.want(*models(world, "abc"))
    world.settle()
    assert set(world.states().values()) == {"Downloaded"}


def test_a_failure_is_told_once_for_each_kind(world: World) -> None:
    world.want(world.model("gone", model_size="1Ki"))
    for _ in range(4):
        world.settle()
        world.step(30)
    assert len(told(world, "DownloadFailed")) == 1
    assert told(world, "DownloadFailed")[0].startswith("gone: NotFound: ")


def test_an_object_without_groups_has_no_limits(world: World) -> None:
    world.api.store(node_object(*models(world, "ab")))
    world.loop.observe(world.api.node)
    world.settle()
    assert set(world.states().values()) == {"Downloaded"}


def test_a_copy_with_another_hash_is_replaced_within_the_limit(world: World) -> None:
    limit(world, 1.2)
    fill(world, "a")
    right = entry(world, "a")["hash"]
    world.want(*models(world, "a", hash=HASH))
    world.settle()
    assert entry(world, "a")["reason"] == "Corrupt"
    world.want(*models(world, "a", hash=right))
    world.settle()
    assert world.states() == {"a": "Downloaded"}


NEWER = {"a.bin": b"n" + DATA}
FREED = "a: 684Ki were freed: another version is requested, and does not fit beside this one"


def ask_for_a_newer_one(world: World) -> None:
    world.web.files["/a.bin"] = NEWER["a.bin"]
    world.want(*models(world, "a", hash=hash_of(NEWER)))
    world.settle()


@pytest.fixture
def small(world: World) -> World:
    """A disk with room for one copy and a half, and one on it."""
    world.store.close()
    world.store = Store(world.root, TAKES * 3 // 2)
    world.begin()
    world.loop.observe_pods(())
    fill(world, "a")
    return world


def test_a_copy_of_another_hash_goes_first_where_the_disk_has_no_room_for_both(
    small: World,
) -> None:
    ask_for_a_newer_one(small)
    assert small.states() == {"a": "Downloaded"}
    assert small.tree("a") == NEWER
    assert told(small, "Removed") == [FREED]
    assert told(small, "Evicted") == []


def test_it_goes_first_for_a_service_and_after_a_restart(small: World) -> None:
    small.restart()
    small.loop.observe_pods(())
    small.web.files["/a.bin"] = NEWER["a.bin"]
    small.want(*models(small, "a", hash=hash_of(NEWER), referenced=True))
    small.settle()
    assert small.tree("a") == NEWER


def test_it_stays_where_the_disk_has_room_for_both(world: World) -> None:
    fill(world, "a")
    ask_for_a_newer_one(world)
    assert world.tree("a") == NEWER
    assert told(world, "Removed") == []


def test_it_stays_while_a_pod_mounts_it(small: World) -> None:
    use(small, "a")
    ask_for_a_newer_one(small)
    assert entry(small, "a")["reason"] == "CapacityFull"
    assert small.tree("a") == {"a.bin": b"a" + DATA}
    use(small)
    small.settle()
    assert small.states() == {"a": "Downloaded"}
    assert small.tree("a") == NEWER


def test_it_stays_while_the_source_does_not_have_the_model(small: World) -> None:
    del small.web.files["/a.bin"]
    small.want(*models(small, "a", hash=HASH))
    small.settle()
    assert entry(small, "a")["reason"] == "NotFound"
    assert small.tree("a") == {"a.bin": b"a" + DATA}
