from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.disk.store import Store
from tests.unit.agent.servers import WebFiles, serving
from tests.unit.agent.world import DATA, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.agent.servers import Handler, Server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "node")
    store.open()
    yield store
    store.close()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that failed is asked for again at once."""
    monkeypatch.setattr("agent.engine.range_retries._BASE_SECONDS", {})
    monkeypatch.setattr("agent.engine.range_retries._DEFAULT_BASE_SECONDS", 0.001)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    web = WebFiles({f"/{name}.bin": name.encode() + DATA for name in "abc"})
    with serving(web) as server:
        world = World(tmp_path / "node", web, server)
        yield world
        world.loop.stop()
        world.loop.step()
        world.store.close()


@pytest.fixture
def server(fake: Callable[[Handler, str], None]) -> Iterator[Server]:
    """A running server that answers as the module's `fake` does."""
    with serving(fake) as server:
        yield server
