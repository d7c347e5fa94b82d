"""The loop on a node whose models were there before it, as KServe leaves them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from agent.disk import verify
from agent.disk.on_disk import Disk
from crds.eviction import EvictionPolicy
from tests.unit.agent import inside
from tests.unit.agent.crowded import TAKES, entry, fill, limit, models, prepare, told
from tests.unit.agent.helpers import hash_of
from tests.unit.agent.world import DATA, GRACE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.agent.world import World


@pytest.fixture
def world(world: World) -> World:
    prepare(world)
    return world


def lay(world: World, name: str, data: bytes | None = None) -> Path:
    """A folder that somebody else filled. Returns its file."""
    file = world.store.path(world.key(name)) / f"{name}.bin"
    file.parent.mkdir()
    file.write_bytes(name.encode() + DATA if data is None else data)
    os.utime(file, (1000, 1000))
    return file


def fetched(world: World) -> list[str]:
    """The paths of which more was asked for than the first byte."""
    return [p for _, p, headers in world.server.seen if headers.get("Range") != "bytes=0-0"]


def conditions(world: World) -> list[str]:
    return [condition["type"] for condition in world.status()["conditions"]]


def test_a_wanted_folder_is_adopted_and_then_a_model_like_any_other(world: World) -> None:
    file = lay(world, "a")
    before = file.stat()
    world.want(world.model("a"))
    world.settle()
    # The digest that its source did not tell comes from the file.
    world.settle_until(lambda: entry(world, "a").get("hash") is not None)
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert fetched(world) == []
    a = entry(world, "a")
    assert (a["state"], a["size"]) == ("Downloaded", len(DATA) + 1)
    assert a["hash"] == hash_of({"a.bin": b"a" + DATA})
    assert conditions(world) == ["Ready"]
    assert told(world, "Adopted") == [
        "a: 683.6Ki were there already and are the model's, 0 were added"
    ]
    assert told(world, "Downloaded") == []
    world.restart()
    world.loop.observe_pods(())
    world.server.seen.clear()
    world.want(world.model("a"))
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert world.server.seen == []
    world.want()
    world.step()
    world.step(GRACE)
    world.settle()
    assert world.tree("a") is None


def test_a_folder_that_nobody_wants_is_told_and_left_alone(world: World) -> None:
    lay(world, "a")
    world.want()
    for _ in range(5):
        world.step(GRACE)
    assert world.tree("a") == {"a.bin": b"a" + DATA}
    assert conditions(world) == ["Ready", "ForeignDirectories"]


def test_an_adoption_waits_for_no_room_and_evicts_nobody_to_begin(world: World) -> None:
    limit(world, 2.2)
    world.want(*models(world, "ab", retention="Pinned"))
    world.settle()
    lay(world, "c")
    world.step(60)
    world.want(*models(world, "ab", retention="Pinned"), *models(world, "c", retention="Pinned"))
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Downloaded", "c": "Downloaded"}
    assert told(world, "CapacityFull") == []
    assert [path for path in fetched(world) if "c" in path] == []


def test_without_eviction_a_full_disk_does_not_keep_an_adoption_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(world, 0.5, EvictionPolicy.NONE)
    lay(world, "a")
    monkeypatch.setattr(world.store, "disk", lambda: Disk(10 * TAKES, 10 * TAKES, 0))
    world.want(*models(world, "a"))
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_a_folder_counts_for_its_group_when_it_is_adopted_and_for_the_disk_once(
    world: World,
) -> None:
    lay(world, "a")
    world.want()
    world.step()
    before = inside.inventory(world.loop).space
    world.want(*models(world, "a"))
    world.settle_until(lambda: world.states() == {"a": "Downloaded"})
    ledger = inside.ledger(world.loop)
    assert ledger.space
    assert ledger.space.others == before.others - TAKES
    of_group, of_disk = ledger.accounts()
    assert ledger.taken(of_group) == TAKES
    assert ledger.taken(of_disk) == before.others


def test_a_folder_that_is_not_the_model_evicts_nobody_and_heals(world: World) -> None:
    fill(world, "ab")
    file = lay(world, "c", b"other")
    world.step(60)
    world.want(*models(world, "abc"))
    world.settle()
    states = {"a": "Downloaded", "b": "Downloaded", "c": "Failed"}
    for _ in range(3):
        assert world.states() == states
        c = entry(world, "c")
        assert c["reason"] == "ForeignDirectory"
        assert "'c.bin' has 5 bytes there, and 700001 at the source" in c["message"]
        world.step(60)
        world.settle()
    assert conditions(world) == ["Ready", "ForeignDirectories"]
    assert told(world, "Evicted") == []
    assert len(told(world, "DownloadFailed")) == 1
    file.write_bytes(b"c" + DATA)
    world.step(300)
    world.settle()
    assert entry(world, "c")["state"] == "Downloaded"
    assert "ForeignDirectories" not in conditions(world)


def test_the_status_says_that_a_folder_is_compared_and_does_not_flap(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, reading = threading.Event(), threading.Event()

    def slow(descriptor: int) -> Iterator[memoryview]:
        reading.set()
        gate.wait(10)
        yield from read_pieces(descriptor)

    read_pieces = verify.read_pieces
    monkeypatch.setattr(verify, "read_pieces", slow)
    file = lay(world, "a", b"b" + DATA)
    wanted = world.model("a", hash=hash_of({"a.bin": b"a" + DATA}))
    world.want(wanted)
    world.step()
    assert reading.wait(10)
    world.step(1)
    a = entry(world, "a")
    assert (a["state"], a["reason"]) == ("Downloading", "Adopting")
    assert world.status()["modelStatus"] == {"a": "ModelDownloading"}
    gate.set()
    world.settle()
    assert entry(world, "a")["reason"] == "ForeignDirectory"
    # A further comparison changes nothing before it has come to another end.
    gate.clear()
    reading.clear()
    file.write_bytes(b"a" + DATA)
    world.step(60)
    assert reading.wait(10)
    world.step(1)
    assert entry(world, "a")["state"] == "Failed"
    gate.set()
    world.settle()
    assert entry(world, "a")["state"] == "Downloaded"


def test_a_folder_is_adopted_before_downloads_begin(world: World) -> None:
    limit(world, 4)
    lay(world, "c")
    world.options = {"max_downloads": 1}
    world.restart()
    world.loop.observe_pods(())
    world.step()
    world.want(*models(world, "ab", priority=5), *models(world, "c"))
    world.step()
    assert world.active() == [world.key("c")]
    world.settle()
    assert set(world.states().values()) == {"Downloaded"}
