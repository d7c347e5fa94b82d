"""Kubelet's probes: what makes the agent unready, and what makes kubelet restart it."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from agent.commands import disk_probe, serve
from agent.commands.disk_probe import FRESH_SECONDS, OPENING_SECONDS, DiskProbe
from agent.commands.flags import parse
from agent.commands.health import LIVE_SECONDS, READY_SECONDS, START_SECONDS, Health
from agent.commands.observation import Observation
from agent.disk.store import Store
from tests.unit.agent import inside
from tests.unit.agent.api_server import write_kubeconfig
from tests.unit.agent.crowded import models, prepare
from tests.unit.agent.scrape import Scrape
from tests.unit.agent.world import GRACE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.agent.world import World


def health_of(world: World) -> Health:
    probe = DiskProbe(world.store, lambda: world.seconds)
    health = Health(probe, lambda: world.seconds)
    health.follow(world.loop)
    return health


@pytest.fixture
def health(world: World) -> Health:
    prepare(world)
    return health_of(world)


def fails(*_: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/secret/path")


def test_an_agent_that_starts_lives_and_is_not_ready(world: World) -> None:
    health = Health(DiskProbe(world.store))
    assert health.live() == []
    assert health.ready() == ["start: the agent is opening its disk"]


def test_a_first_step_has_more_time_than_a_later_one(world: World) -> None:
    """It reads the whole disk; an agent that is restarted meanwhile would never come to an end."""
    prepare(world)
    world.restart()
    health = health_of(world)
    world.loop.wait(world.seconds)
    world.seconds += START_SECONDS
    assert health.live() == []
    world.seconds += 1
    assert health.live() == ["start: the first step is not complete after 901 s"]
    world.step()
    assert health.live() == []
    world.seconds += LIVE_SECONDS + 1
    assert health.live() == ["loop: no step for 301 s"]


def test_first_steps_that_fail_are_no_reason_to_restart(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(world)
    world.restart()
    health = health_of(world)

    def broken() -> None:
        raise RuntimeError("a bug in a step")

    monkeypatch.setattr(inside.state(world.loop), "make_folders", broken)
    for _ in range(3):
        world.seconds += START_SECONDS
        world.loop.wait(world.seconds)
        with pytest.raises(RuntimeError):
            world.loop.step()
        assert health.live() == []


def test_a_disk_that_hangs_while_the_agent_starts_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without these series no alert would fire, and those that fire would end."""
    gate, opening = threading.Event(), threading.Event()
    made: list[tuple[Observation, Store]] = []
    opens = Store.open

    def hangs(store: Store) -> None:
        opening.set()
        gate.wait(60)
        opens(store)

    def observes(options: argparse.Namespace, store: Store) -> Observation:
        made.append((Observation(options.http_bind_address, store), store))
        return made[0][0]

    monkeypatch.setattr(Store, "open", hangs)
    monkeypatch.setattr(Store, "probe", lambda _: gate.wait(60))
    monkeypatch.setattr(disk_probe, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(serve, "observe", observes)
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    flags = ["--node-name", "n", "--root", tmp_path / "root", "--kubeconfig", kubeconfig]
    options = parse(["run", *map(str, flags), "--http-bind-address", "127.0.0.1:0"])
    with ThreadPoolExecutor() as pool:
        try:
            start = pool.submit(serve._make_loop, options)
            assert opening.wait(30)
            ((observation, store),) = made
            get = ask(observation)
            found = Scrape(get("/metrics")[1])
            assert (found.value("synced"), found.value("disk_writable")) == (0, 0)
            # LocalModelAgentStuck and LocalModelAgentNotReporting count from the start.
            started = found.value("last_step_timestamp_seconds")
            assert started <= time.time()
            assert found.value("last_report_timestamp_seconds") == started
            assert Scrape(get("/metrics")[1]).value("last_step_timestamp_seconds") == started
            assert get("/healthz") == (200, "ok\n")
            status, text = get("/readyz")
            assert status == 503
            assert "\ndisk: the disk has not answered for" in text
        finally:
            gate.set()
        start.result(30)
    assert get("/readyz") == (503, "start: the first step is not complete\n")
    close(observation)
    store.close()


def test_a_disk_on_which_the_store_cannot_be_opened_hangs(world: World) -> None:
    """The calls that hang may be others than those of the probe."""
    store = Store(world.root)
    world.store.close()
    probe = DiskProbe(store, lambda: world.seconds)
    world.seconds += OPENING_SECONDS
    assert (probe.problem(), probe.is_slow) == ("", False)
    world.seconds += 1
    assert probe.problem() == "the disk could not be opened for 61 s"
    assert probe.is_slow
    store.open()
    assert (probe.problem(), probe.is_slow) == ("", False)
    store.close()


def test_it_is_ready_when_it_has_read_its_node_and_the_pods(world: World) -> None:
    prepare(world)
    world.restart()
    health = health_of(world)
    assert health.ready() == ["start: the first step is not complete"]
    world.step()
    assert [line.split(":")[0] for line in health.ready()] == ["sync", "sync"]
    world.want(*models(world, "a"))
    world.step()
    (failure,) = health.ready()
    assert failure.startswith("sync: the pods of the node are not known")
    world.loop.observe_pods(())
    world.settle()
    assert health.ready() == []


def test_a_node_without_models_is_ready(world: World, health: Health) -> None:
    """No group selects the node, so that it has no LocalModelNode: the API server said so."""
    world.loop.observe(None)
    world.step()
    assert health.ready() == []


def test_a_read_only_disk_is_unready_and_no_reason_to_restart(
    world: World, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.want()
    world.step()
    assert health.ready() == []
    with monkeypatch.context() as broken:
        broken.setattr(Store, "probe", fails)
        # The loop looks once a minute; the probe knows earlier.
        world.step(FRESH_SECONDS)
        assert health.ready() == ["disk: the disk cannot be written: Read-only file system"]
        world.step(GRACE)
        assert health.ready() == ["disk: the disk cannot be written: Read-only file system"]
        assert health.live() == []
    world.step(GRACE)
    assert health.ready() == []


def test_the_disk_is_probed_every_few_seconds_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes: list[float] = []
    monkeypatch.setattr(Store, "probe", lambda _: probes.append(world.seconds))
    probe = DiskProbe(world.store, lambda: world.seconds)
    for _ in range(20):
        world.seconds += 1
        assert probe.problem() == ""
    assert len(probes) == 20 // FRESH_SECONDS


class Hanging:
    """A disk that answers nothing until it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.probes = 0

    def probe(self) -> None:
        self.probes += 1
        self.gate.wait(30)


def hang(monkeypatch: pytest.MonkeyPatch) -> Hanging:
    disk = Hanging()
    monkeypatch.setattr(Store, "probe", lambda _: disk.probe())
    monkeypatch.setattr(disk_probe, "PATIENCE_SECONDS", 0.05)
    return disk


def test_a_hung_disk_hangs_no_probe_and_is_no_reason_to_restart(
    world: World, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.want()
    world.step()
    disk = hang(monkeypatch)
    for _ in range(5):
        assert health.ready()[0].startswith("disk: the disk has not answered for")
        world.seconds += FRESH_SECONDS
    # One thread waits for the disk, however often kubelet asks.
    assert disk.probes == 1
    # The loop hangs at the same disk: a restart would not mend it.
    world.seconds += LIVE_SECONDS
    assert health.live() == []
    assert len(health.ready()) == 2
    disk.gate.set()
    world.step()


def test_a_loop_that_does_not_move_is_restarted(world: World, health: Health) -> None:
    world.want()
    world.step()
    world.seconds += READY_SECONDS + 1
    assert health.live() == []
    assert health.ready() == ["loop: no step was completed for 151 s"]
    world.seconds += LIVE_SECONDS
    assert health.live() == ["loop: no step for 451 s"]


def test_a_loop_whose_steps_fail_lives_and_is_not_ready(
    world: World, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart does not mend a fault that each step meets, and would interrupt downloads."""
    world.want()
    world.step()

    steps = iter(range(3))

    def broken() -> None:
        world.seconds += LIVE_SECONDS
        if next(steps) == 2:
            world.loop.stop()
        raise RuntimeError("a bug in a step")

    monkeypatch.setattr(inside.state(world.loop), "make_folders", broken)
    monkeypatch.setattr("agent.control.loop.FAULT_SECONDS", 0.01)
    world.loop.run()
    assert health.live() == []
    assert health.ready() == ["loop: no step was completed for 900 s"]
    monkeypatch.undo()


def test_the_api_server_is_no_reason_to_restart(world: World, health: Health) -> None:
    world.want()
    world.step()
    world.api.down = True
    world.loop.observe_pods(None)
    for _ in range(10):
        world.step(60)
    assert health.live() == []
    assert [line.split(":")[0] for line in health.ready()] == ["sync"]


def ask(observation: Observation) -> Callable[[str], tuple[int, str]]:
    def get(path: str) -> tuple[int, str]:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"http://127.0.0.1:{observation.port}{path}", timeout=30)
        return answer.status_code, answer.text

    return get


def close(observation: Observation) -> None:
    observation._server.shutdown()
    observation._server.server_close()


def test_what_kubelet_and_prometheus_read(world: World) -> None:
    observation = Observation(("127.0.0.1", 0), world.store)
    get = ask(observation)
    assert get("/healthz") == (200, "ok\n")
    assert get("/readyz") == (503, "start: the agent is opening its disk\n")
    assert "localmodel_agent_build_info" in get("/metrics")[1]
    world.options = {"counts": observation.counts, "monotonic": time.monotonic}
    world.restart()
    observation.follow(world.loop)
    world.want(*models(world, "a"))
    world.settle()
    assert get("/readyz") == (200, "ok\n")
    status, text = get("/metrics")
    assert status == 200
    assert "localmodel_agent_synced 1.0" in text
    for name in ("team", "a.bin", world.key("a"), str(world.root)):
        assert name not in text
    close(observation)
