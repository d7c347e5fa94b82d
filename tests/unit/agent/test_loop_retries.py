"""What failed is remembered over a restart, so that no origin is asked more often by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.disk.on_disk import Disk
from agent.disk.store import Store
from agent.disk.watch import RESCAN_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.servers import Handler
    from tests.unit.agent.world import World


def refuse(handler: Handler, _: str) -> None:
    handler.reply(403)


def entry(world: World) -> dict[str, Any]:
    (found,) = world.status()["models"]
    return dict(found)


def fail_often(world: World, times: int = 5) -> None:
    world.server.answer = refuse
    world.want(world.model("a"))
    for _ in range(times):
        world.settle()
        world.step(400)
    world.settle()
    # The number of attempts is told with the progress.
    world.step(16)
    world.settle()


def test_a_restart_begins_no_new_series_of_attempts(world: World) -> None:
    fail_often(world)
    before, asked = entry(world), len(world.server.seen)
    assert before["attempts"] > 4
    world.restart()
    world.want(world.model("a"))
    world.settle()
    world.step(16)
    world.settle()
    after = entry(world)
    assert len(world.server.seen) == asked
    names = ("state", "reason", "message", "attempts", "nextRetryTime")
    assert {name: after[name] for name in names} == {name: before[name] for name in names}
    world.server.answer = world.web
    world.step(400)
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert not list(world.root.rglob("failed.json"))


def test_a_clock_that_was_set_keeps_nothing_waiting(world: World) -> None:
    fail_often(world)
    world.clock_set = -1e6
    world.restart()
    world.server.answer = world.web
    world.want(world.model("a"))
    world.step()
    world.step(301)
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_another_hash_or_another_cache_is_another_try(world: World) -> None:
    fail_often(world)
    world.restart()
    asked = len(world.server.seen)
    world.want(world.model("a", hash="sha256:" + "0" * 64))
    world.settle()
    assert len(world.server.seen) > asked
    assert entry(world)["attempts"] == 1
    world.restart()
    world.want()
    world.step()
    assert not list(world.root.rglob("failed.json"))


def test_a_copy_of_another_hash_ends_no_wait_for_space(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.want(world.model("a"))
    world.settle()
    monkeypatch.setattr(world.store, "disk", lambda: Disk(2000, 1999, 1))
    wanted = world.model("a", hash="sha256:" + "0" * 64)
    world.want(wanted)
    world.settle()
    assert entry(world)["reason"] == "NoSpace"
    asked = len(world.server.seen)
    world.step(RESCAN_SECONDS / 3)
    world.settle()
    assert len(world.server.seen) == asked
    assert world.tree("a")


def test_what_cannot_be_noted_or_read_is_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_often(world)
    for path in world.root.rglob("failed.json"):
        path.write_text("no note")
    world.restart()

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "note_failed", broken)
    asked = len(world.server.seen)
    world.want(world.model("a"))
    world.settle()
    assert len(world.server.seen) > asked
    assert entry(world)["attempts"] == 1


@pytest.mark.parametrize("restarts", [False, True])
def test_an_error_in_the_last_steps_of_a_publication_is_forgotten_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    complete = Store._complete

    def fail_late(store: Store, meta: Path) -> None:
        if restarts:
            # The next start completes it.
            raise OSError(28, "No space left on device", str(meta))
        complete(store, meta)
        raise OSError(28, "No space left on device", str(meta))

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_complete", fail_late)
        world.want(world.model("a"))
        world.settle()
    if restarts:
        assert list(world.root.rglob("failed.json"))
        world.restart()
        world.want(world.model("a"))
        world.step()
        world.step(61)
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert "reason" not in entry(world)
    assert not list(world.root.rglob("failed.json"))
