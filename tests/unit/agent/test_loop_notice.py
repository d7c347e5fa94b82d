"""An eviction is reported before it happens, and called off if a pod comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.node_api import ApiUnavailableError
from agent.control.eviction_notice import EVICTION_NOTICE_SECONDS, MAX_NOTICE_SECONDS
from agent.control.removals import _message
from tests.unit.agent import inside
from tests.unit.agent.crowded import entry, fill, limit, models, prepare, told, use

if TYPE_CHECKING:
    from agent.capacity.download_queue import Victim
    from tests.unit.agent.world import World


@pytest.fixture
def world(world: World) -> World:
    prepare(world)
    return world


def begin(world: World) -> None:
    """Until the first of two copies has its notice: its source has listed the third model."""
    fill(world, "ab")
    world.want(*models(world, "abc"))
    notices = inside.state(world.loop).notices
    while notices.of(world.key("a")) is None:
        world.step()
    assert world.tree("a")


def test_a_copy_goes_some_time_after_its_report(world: World) -> None:
    begin(world)
    found = entry(world, "a")
    assert (found["state"], found["reason"], found["cached"]) == ("Evicted", "MadeRoom", False)
    assert "to make room for c" in found["message"]
    assert world.status()["modelStatus"]["a"] == "ModelDownloadPending"
    assert told(world, "Evicted") == []
    reads = world.api.reads
    assert world.step(EVICTION_NOTICE_SECONDS - 0.5) == world.seconds + 0.5
    assert world.tree("a")
    # Nothing is asked meanwhile.
    assert world.api.reads == reads
    world.step(0.5)
    assert world.tree("a") is None
    assert len(told(world, "Evicted")) == 1
    # The report stays as it was.
    assert entry(world, "a")["message"] == found["message"]
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}


@pytest.mark.parametrize("seen", [True, False])
def test_a_pod_that_comes_meanwhile_keeps_the_copy(world: World, seen: bool) -> None:
    begin(world)
    use(world, "a")
    # Seen by the watch, or only by the fresh look before the copy would go.
    world.step(1.0 if seen else EVICTION_NOTICE_SECONDS)
    if seen:
        assert world.states()["a"] == "Downloaded"
    world.settle()
    assert world.tree("a")
    # Another one goes for it, with a notice of its own.
    assert world.states() == {"a": "Downloaded", "b": "Evicted", "c": "Downloaded"}
    assert [message[0] for message in told(world, "Evicted")] == ["b"]


def test_a_copy_that_is_no_longer_to_go_is_reported_as_before(world: World) -> None:
    begin(world)
    limit(world, 4)
    world.want(*models(world, "abc"))
    world.step()
    assert world.states()["a"] == "Downloaded"
    world.settle()
    assert set(world.states().values()) == {"Downloaded"}
    assert told(world, "Evicted") == []


def test_a_report_that_cannot_be_written_holds_up_an_eviction_for_seconds_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, "ab")

    def fails(*_: object) -> None:
        raise ApiUnavailableError("timeout")

    monkeypatch.setattr(world.api, "write_status", fails)
    world.want(*models(world, "abc"))
    notices = inside.state(world.loop).notices
    while notices.of(world.key("a")) is None:
        world.step()
    world.step(MAX_NOTICE_SECONDS - 0.5)
    assert world.tree("a")
    world.step(0.5)
    assert world.tree("a") is None


def test_several_copies_wait_at_the_same_time(world: World) -> None:
    fill(world, "ab")
    limit(world, 0.1)
    world.want(*models(world, "ab", referenced=False))
    world.step()
    notices = inside.state(world.loop).notices
    noticed = [name for name in "ab" if notices.of(world.key(name))]
    began = world.seconds
    world.settle()
    assert all(world.tree(name) is None for name in noticed)
    assert world.seconds <= began + EVICTION_NOTICE_SECONDS
    assert noticed


def test_the_report_of_an_eviction_is_made_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(world, 9)
    fill(world, "abc")
    limit(world, 0.1)
    made: list[str] = []

    def message(victim: Victim, *arguments: Any) -> str:
        made.append(victim.key)
        return _message(victim, *arguments)

    monkeypatch.setattr("agent.control.removals._message", message)
    world.want(*models(world, "abc", referenced=False))
    world.settle()
    # One copy goes in each step, while the others wait.
    assert len(made) == len(set(made)) == len(told(world, "Evicted")) == 3


def test_a_restart_in_between_evicts_nothing_at_once(world: World) -> None:
    begin(world)
    world.restart()
    world.loop.observe_pods(())
    world.want(*models(world, "abc"))
    world.step()
    assert world.tree("a")
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}


def test_a_full_disk_waits_no_longer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, "ab")
    disk = world.store.disk()
    full = type(disk)(disk.capacity, disk.capacity, 0)
    monkeypatch.setattr(world.store, "disk", lambda: full)
    world.step(60)
    assert entry(world, "a")["reason"] == "DiskPressure"
    assert world.tree("a")
    world.step(EVICTION_NOTICE_SECONDS)
    assert world.tree("a") is None
