"""Many agents start at once, and their origin wants to hear from none of them."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from agent.disk.store import Store
from tests.unit.agent.helpers import publish
from tests.unit.agent.servers import Handler, WebFiles, serving
from tests.unit.agent.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.agent.servers import Server

AGENTS = 32
MODELS = tuple(f"model-{number}" for number in range(20))
MINUTES = 10
STEP_SECONDS = 30


@pytest.fixture
def throttling() -> Iterator[Server]:
    def refuse(handler: Handler, _path: str) -> None:
        handler.reply(429)

    with serving(refuse) as server:
        yield server


def _disks(folder: Path, url: str) -> list[Path]:
    """A disk for each agent, with all models on it."""
    first = folder / "0"
    first.mkdir()
    store = Store(first)
    store.open()
    for name in MODELS:
        publish(store, f"{url}/{name}.bin", {f"{name}.bin": name.encode()})
    store.close()
    disks = [first, *(folder / str(number) for number in range(1, AGENTS))]
    for disk in disks[1:]:
        shutil.copytree(first, disk)
    return disks


@pytest.mark.timeout(120)  # 32 agents, each with twenty models
def test_a_throttling_origin_is_left_alone_and_keeps_no_model_from_being_ready(
    tmp_path: Path, throttling: Server
) -> None:
    worlds = [World(disk, WebFiles({}), throttling) for disk in _disks(tmp_path, throttling.url)]
    for number, world in enumerate(worlds):
        # One that is not there, so that there is something to ask the origin for.
        world.want(world.model(f"missing-{number}"), *map(world.model, MODELS))
    total: Counter[str] = Counter()
    for minute in range(MINUTES):
        for _ in range(60 // STEP_SECONDS):
            for world in worlds:
                world.settle()
                world.seconds += STEP_SECONDS
        asked = Counter(path for _, path, _ in throttling.seen)
        assert max((asked - total).values(), default=0) <= 1, f"in minute {minute}"
        total = asked

    # Each has tried, and tried again; and nobody asked for what is there.
    assert set(total) == {f"/missing-{number}.bin" for number in range(AGENTS)}
    assert all(2 <= count <= MINUTES for count in total.values())
    for number, world in enumerate(worlds):
        assert world.api.writes
        for status in world.api.writes:
            cached = {model["name"] for model in status["models"] if model["cached"]}
            assert cached == set(MODELS)
        missing = next(m for m in world.status()["models"] if m["name"] == f"missing-{number}")
        assert (missing["state"], missing["reason"]) == ("Failed", "Throttled")
        world.store.close()
