"""What the agent keeps in memory is bounded by what there is, however much has come and gone."""

from __future__ import annotations

import gc
import threading
from io import StringIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.pod_watch import _PodListener
from agent.commands.assemble import own_credentials
from agent.commands.progress import Lines
from agent.commands.standalone import Watcher
from agent.disk.staging import Staging
from agent.engine.connection_shares import Shares
from agent.engine.engine import Engine
from agent.engine.origins import MAX_REMEMBERED, Origins
from agent.jobs.adoption.adopting import Adopting
from agent.jobs.download import Download
from agent.jobs.rechecks import Rechecks
from agent.structs.options import Options
from agent.structs.requests import Requester
from tests.unit.agent import inside
from tests.unit.agent.helpers import local_model, remembered
from tests.unit.agent.memory import Memory

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.world import World

MANY = 100
assert MANY > MAX_REMEMBERED


def fetch(engine: Engine, source: Memory, folder: Path) -> None:
    staging, remote = Staging(folder), source.resolve("mem://m", own_credentials(), None)
    staging.begin("mem://m", None, remote.files)
    engine.fetch(
        remote,
        staging,
        priority=0,
        cancelled=threading.Event(),
        later=False,
        report=lambda _: None,
    )
    staging.close()


def test_origins_that_have_no_job_any_more(tmp_path: Path) -> None:
    engine = Engine(jitter=lambda: 0.0)
    for number in range(MANY):
        source = Memory({"w": b"x"}, origin=f"mem://{number}")
        fetch(engine, source, tmp_path / str(number))
    origins = engine._schedule._origins
    assert not origins.in_use
    assert len(origins._remembered) == MAX_REMEMBERED
    assert not engine._schedule._jobs
    assert not engine._schedule._hedges
    # Nothing of their models.
    assert not remembered(engine, f"mem://{MANY - 1}").active


def job(origin: str) -> Any:
    return SimpleNamespace(remote=SimpleNamespace(origin=origin))


def test_the_next_model_of_an_origin_begins_with_the_limit_of_the_last_one() -> None:
    origins = Origins(stall_seconds=1.0)
    origins.use([job("a")], 64)
    origins[job("a")].limit.now, origins[job("a")].pace.usual = 40, 1e9
    origins.use([], 64)
    origins.use([job("a")], 64)
    assert origins[job("a")].limit.now == 40
    # The limit of connections may have changed meanwhile, and so may the rate.
    assert origins[job("a")].pace.usual == 0.0
    origins.use([], 64)
    origins.use([job("a")], 8)
    assert origins[job("a")].limit.now == 8


def test_a_long_download_does_not_make_its_origin_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    origins = Origins(stall_seconds=1.0)
    origins.use([job("a")], 64)
    origins[job("a")].limit.now = 40
    monkeypatch.setattr(origins._remembered, "_clock", lambda: 1e9)
    origins.use([], 64)
    origins.use([job("a")], 64)
    assert origins[job("a")].limit.now == 40


def attempts_of(world: World) -> list[object]:
    """The attempts of a world that are still in memory, with all that they know."""
    gc.collect()
    attempts = [one for one in gc.get_objects() if isinstance(one, Download | Adopting)]
    return [one for one in attempts if one._store is world.store]


def test_nothing_of_failed_attempts_but_their_failures(world: World) -> None:
    folders = [local_model(f"a-{n}", f"{world.url}/there.bin?{n}") for n in range(3)]
    missing = [local_model(f"b-{n}", f"{world.url}/missing-{n}.bin") for n in range(3)]
    world.web.files["/there.bin"] = b"x"
    for entry in folders:
        folder = world.store.path(entry.key)
        folder.mkdir()
        (folder / "there.bin").write_bytes(b"something else")
    world.want(*folders, *missing)
    for _ in range(3):
        world.settle()
        world.step(600.0)
    world.settle()
    failures = inside.state(world.loop).retries
    assert all(failures.of(entry.key) for entry in (*folders, *missing))
    # Their threads end a moment after they have told their ends.
    for thread in threading.enumerate():
        if thread.name in {f"download-{entry.key}" for entry in (*folders, *missing)}:
            thread.join(30)
    assert attempts_of(world) == []


def test_owners_that_were_over_their_share() -> None:
    shares = Shares()
    for number in range(MANY):
        shares.excess({f"n-{number}": 7, "b": 1}, {"b"}, 8, float(number))
    assert len(shares._since) == 1


def test_requesters_that_ask_for_nothing_any_more() -> None:
    rechecks = Rechecks(Options(monotonic=lambda: 0.0, jitter=lambda: 0.0))
    for number in range(MANY):
        rechecks.at(f"key-{number}", Requester(f"n-{number}"))
    rechecks.retain({})
    assert not rechecks._asks
    assert not rechecks._looks


def pod(number: int) -> dict[str, Any]:
    claim = {"persistentVolumeClaim": {"claimName": "m-gpus"}}
    return {
        "metadata": {"namespace": "n", "name": f"p-{number}", "uid": f"uid-{number}"},
        "spec": {"volumes": [{"name": "m", **claim}]},
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize("is_told", [True, False])
def test_pods_that_are_gone(*, is_told: bool) -> None:
    listener = _PodListener(lambda _: None)
    for number in range(MANY):
        listener.changed("ADDED", pod(number))
    assert len(listener._pods) == MANY
    if is_told:
        for number in range(MANY):
            listener.changed("DELETED", pod(number))
    else:
        listener.listed([])
    assert not listener._pods


def test_models_that_are_off_the_list() -> None:
    lines = Lines(StringIO())
    watcher = Watcher(lines, SimpleNamespace(), once=False, retries=0)  # type: ignore[arg-type]
    for number in range(MANY):
        model = {"key": f"k{number}", "name": f"m{number}", "state": "Downloading", "cached": False}
        watcher.observe({"models": [model]}, ())
    assert len(watcher._last) == len(lines._due) == 1
