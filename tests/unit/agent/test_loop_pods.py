"""What the loop knows of pods and of evictions, and keeps."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.agent.crowded import (
    TAKES,
    entry,
    fill,
    limit,
    models,
    pod,
    prepare,
    told,
    use,
    wait,
)
from tests.unit.agent.world import GRACE

if TYPE_CHECKING:
    from agent.control.loop import Loop
    from tests.unit.agent.world import World


@pytest.fixture
def world(world: World) -> World:
    prepare(world)
    return world


def test_a_pod_brings_an_evicted_model_back(world: World) -> None:
    fill(world, "ab")
    world.want(*models(world, "abc"))
    world.settle()
    world.web.gate = threading.Event()
    use(world, "a")
    world.settle_until(lambda: world.key("a") in world.active())
    world.step()
    a = entry(world, "a")
    assert (a["state"], a["reason"]) == ("Downloading", "Referenced")
    assert "the pod team/server refers to it" in a["message"]
    world.web.gate.set()
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Evicted", "c": "Downloaded"}
    assert len(told(world, "Referenced")) == 1
    assert not (world.root / ".localmodel" / world.key("a") / "evicted.json").exists()


def test_what_a_pod_waits_for_is_first_and_comes_back_first(world: World) -> None:
    fill(world, "ab")
    world.want(*models(world, "abc"))
    world.settle()
    assert world.states()["a"] == "Evicted"
    world.web.gate = threading.Event()
    world.web.files |= dict.fromkeys(("/d.bin", "/e.bin"), b"x" * TAKES)
    limit(world, 9)
    later = models(world, "de", priority=9)
    world.want(*later, *models(world, "abc"))
    world.settle_until(lambda: len(world.active()) == 2)
    # It does not wait for the two that are more important, and takes none of their places.
    wait(world, "a")
    world.settle_until(lambda: world.key("a") in world.active())
    assert len(world.active()) == 3
    assert [world.download(name).urgent.is_set() for name in "ade"] == [True, False, False]
    # One that is downloaded already, too, as long as the pod waits.
    wait(world, "d")
    world.step()
    assert [world.download(name).urgent.is_set() for name in "ade"] == [False, True, False]
    world.web.gate.set()
    world.settle()
    assert world.states()["d"] == "Downloaded"


def test_a_waiting_pod_is_told_why_and_is_let_start(world: World) -> None:
    world.web.gate = threading.Event()
    world.want(*models(world, "a"))
    wait(world, "a")
    world.settle_until(lambda: bool(world.active()))
    assert world.pod_sink.woken == []
    assert {event.reason for event in world.pod_sink.events} == {"WaitingForModel"}
    assert entry(world, "a")["pods"] == 1
    world.web.gate.set()
    world.settle()
    last = world.pod_sink.events[-1]
    assert (last.reason, last.message) == ("ModelCached", "a: it is on this node now (683.6Ki)")
    assert world.pod_sink.woken == ["server"]
    # Kubelet has missed it while no agent ran.
    world.restart()
    world.pod_sink.woken.clear()
    world.want(*models(world, "a"))
    wait(world, "a", blocked=True)
    world.settle()
    world.step(60)
    assert world.pod_sink.woken == ["server"]


def test_how_many_pods_use_a_model_is_progress(world: World) -> None:
    fill(world, "a")
    world.step(60)
    found = [pod(world, "a", pod_name=f"server-{n}") for n in range(3)]
    written = len(world.api.writes)
    world.loop.observe_pods(tuple(found))
    world.settle()
    # Its first use is one write, and what comes and goes meanwhile is the next one.
    for count in (1, 2, 3, 2):
        world.loop.observe_pods(tuple(found[:count]))
        world.step(1)
    assert len(world.api.writes) <= written + 1
    world.step(15)
    assert entry(world, "a")["pods"] == 2
    assert len(world.api.writes) <= written + 2
    use(world)
    world.step(15)
    assert "pods" not in entry(world, "a")


def test_a_service_brings_an_evicted_model_back(world: World) -> None:
    fill(world, "ab")
    world.want(*models(world, "abc"))
    world.settle()
    world.want(*models(world, "a", referenced=True), *models(world, "bc"))
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Evicted", "c": "Downloaded"}
    assert "a service refers to it" in told(world, "Referenced")[0]


def test_what_is_known_survives_a_restart(world: World) -> None:
    fill(world, "ab")
    use(world, "b")
    world.want(*models(world, "abc"))
    world.settle()
    use(world)
    world.step(1)
    before = {name: entry(world, name) for name in "abc"}
    world.restart()
    world.want(*models(world, "abc"))
    world.settle()
    assert {name: entry(world, name) for name in "abc"} == before
    assert before["b"]["lastUsedTime"] == "2026-08-01T00:16:00Z"
    assert before["b"]["diskBytes"] == TAKES
    # The last one to be used is the last to go, although it came before the other.
    world.loop.observe_pods(())
    world.want(*models(world, "abc"))
    limit(world, 1.5)
    world.want(*models(world, "abc"))
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Evicted"}


def test_nothing_goes_before_the_pods_are_known(world: World) -> None:
    fill(world, "ab")
    world.restart()
    world.want(*models(world, "b"), *models(world, "c"))
    for _ in range(5):
        world.step(GRACE)
    assert world.tree("a")
    assert world.tree("b")
    world.loop.observe_pods((pod(world, "a"),))
    world.step()
    world.step()
    assert world.tree("a")
    # The pod that mounts it holds it, though nobody lists it.
    assert world.states()["a"] == "Removing"
    use(world)
    world.settle()
    assert world.tree("a") is None


def test_a_download_that_does_not_fit_says_so_while_the_pods_are_unknown(world: World) -> None:
    fill(world, "ab")
    world.loop.observe_pods(None)
    world.want(*models(world, "abc"))
    world.settle()
    assert entry(world, "c")["reason"] == "PodsUnknown"
    assert told(world, "CapacityFull") == []
    assert told(world, "Evicted") == []
    world.loop.observe_pods(())
    world.settle()
    assert world.states()["c"] == "Downloaded"


def test_it_is_noted_when_a_model_is_used(world: World) -> None:
    fill(world, "a")
    notes = world.root / ".localmodel" / world.key("a") / "usage.json"
    assert "lastUsedTime" not in entry(world, "a")
    use(world, "a")
    world.step(15)
    first = notes.read_text()
    assert entry(world, "a")["lastUsedTime"] == "2026-08-01T00:16:00Z"
    world.step(20)
    assert notes.read_text() == first
    assert entry(world, "a")["lastUsedTime"] == "2026-08-01T00:16:00Z"
    world.step(60)
    assert notes.read_text() != first
    assert entry(world, "a")["lastUsedTime"] == "2026-08-01T00:18:00Z"
    use(world)
    world.step(50)
    assert "00:19:06" in notes.read_text()


def test_a_note_of_an_eviction_goes_when_the_model_is_no_longer_wanted(world: World) -> None:
    fill(world, "ab")
    world.want(*models(world, "abc"))
    world.settle()
    assert (world.root / ".localmodel" / world.key("a")).exists()
    world.want(*models(world, "bc"))
    world.step()
    assert world.states().keys() == {"b", "c"}
    world.step(GRACE)
    world.settle()
    assert not (world.root / ".localmodel" / world.key("a")).exists()


def test_an_eviction_that_cannot_be_noted_stands(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, "ab")
    real = world.store.evict

    def evict(key: str, note: Any) -> None:
        real(key, note)
        (world.root / ".localmodel" / key / "evicted.json").unlink()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(world.store, "evict", evict)
    world.want(*models(world, "abc"))
    world.settle()
    world.step(60)
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}


def test_an_eviction_that_fails_is_tried_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, "ab")
    real = world.store.evict

    def broken(key: str, _note: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", key)

    monkeypatch.setattr(world.store, "evict", broken)
    # Nobody else may go for it.
    world.want(world.model("a", model_size=str(TAKES)), *models(world, "bc", retention="Pinned"))
    world.settle()
    assert entry(world, "c")["reason"] == "CapacityFull"
    assert told(world, "Evicted") == []
    monkeypatch.setattr(world.store, "evict", real)
    world.step(60)
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}


def test_the_pods_are_watched(world: World) -> None:
    watched = threading.Event()

    class Pods:
        def read(self) -> None:
            """Nobody knows."""

        def watch(self, observe: Any, stopped: threading.Event) -> None:
            observe(())
            watched.set()
            stopped.wait()

    world.pods = Pods()
    world.restart()
    loop: Loop = world.loop
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert watched.wait(30)
    loop.stop()
    thread.join(30)
    assert not thread.is_alive()
