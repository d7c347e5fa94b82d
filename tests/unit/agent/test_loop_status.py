from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.unit.agent.world import World


def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    written = len(world.api.writes)
    for _ in range(10):
        world.loop.observe(copy.deepcopy(world.api.node))
        world.step(20)
    # The disk is shared with other programs, and its figures may change once or twice.
    changes = world.api.writes[written:]
    assert all(
        {**status, "disk": None} == {**world.api.writes[written - 1], "disk": None}
        for status in changes
    )
    assert len(world.server.seen) == 2


def test_status_of_another_version_is_replaced(world: World) -> None:
    world.want(world.model("a"))
    assert world.api.node is not None
    world.api.node["status"] = {"models": [{"state": "Dreaming"}]}
    world.loop.observe(copy.deepcopy(world.api.node))
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_retries_are_no_news_but_their_count_is_told_in_time(world: World) -> None:
    world.want(world.model("gone"))
    world.settle()
    written = len(world.api.writes)
    world.step(5)
    world.settle()
    assert len(world.api.writes) == written
    world.step(10)
    world.settle()
    assert len(world.api.writes) == written + 1
    assert world.status()["models"][0]["attempts"] >= 2


def test_progress_is_written_now_and_then(world: World) -> None:
    world.web.gate = threading.Event()
    world.web.files["/a.bin"] = b"x" * (8 << 20)
    world.want(world.model("a"))
    world.step()
    task = world.download("a")
    deadline = time.monotonic() + 30
    while (task.progress is None or task.progress.done < 3 << 20) and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.5)
    done = task.progress.done if task.progress else 0
    before = len(world.api.writes)
    world.step(2)
    # That the source has answered is news at once.
    assert len(world.api.writes) == before + 1
    model = world.status()["models"][0]
    assert (model["size"], model["downloadedBytes"]) == (8 << 20, done)
    assert model["bytesPerSecond"] == done // 2
    world.step(14)
    assert len(world.api.writes) == before + 1
    world.step(1)
    assert len(world.api.writes) == before + 2
    assert world.status()["models"][0]["bytesPerSecond"] == 0
    world.web.gate.set()
    world.settle()


def test_status_is_written_again_after_the_api_server_was_down(world: World) -> None:
    world.api.down = True
    world.want(world.model("a"))
    world.settle()
    assert world.api.writes == []
    world.api.down = False
    world.step(10)
    assert world.states() == {"a": "Downloaded"}


def test_status_that_somebody_else_wrote_is_put_right(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    assert world.api.node is not None
    world.api.store({**world.api.node, "status": {"modelStatus": {"a": "ModelDownloadPending"}}})
    world.loop.observe(copy.deepcopy(world.api.node))
    world.step()
    world.step(15)
    assert world.states() == {"a": "Downloaded"}


def test_status_is_never_written_to_an_object_that_was_not_seen(world: World) -> None:
    world.want(world.model("a"))
    world.step()
    written = len(world.api.writes)
    world.want(world.model("b"), uid="uid-2", told=False)
    world.settle()
    assert len(world.api.writes) == written
    world.loop.observe(copy.deepcopy(world.api.node))
    world.settle()
    assert world.states() == {"b": "Downloaded", "a": "Removing"}


def test_recreated_object_gets_its_status(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    world.vanish()
    world.step()
    world.want(world.model("a"), uid="uid-2")
    world.step()
    assert world.states() == {"a": "Downloaded"}
