"""The Events that a person asks for: what began, what ended and how long it took, and the disk."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from agent.disk.store import Store
from agent.jobs.download import Progress
from tests.unit.agent.crowded import models, prepare, told
from tests.unit.agent.world import GRACE

if TYPE_CHECKING:
    from tests.unit.agent.world import World


@pytest.fixture
def world(world: World) -> World:
    prepare(world)
    return world


def test_a_download_is_told_at_its_begin_and_at_its_end(world: World) -> None:
    world.web.gate = threading.Event()
    world.want(*models(world, "a"))
    world.settle_until(lambda: bool(world.active()))
    task = world.download("a")
    assert told(world, "Downloading") == []
    task.progress = Progress(1024, 3 << 20)
    for _ in range(3):
        world.step(20)
    assert told(world, "Downloading") == ["a: 3Mi, of which 1Ki are on the disk"]
    world.web.gate.set()
    world.settle()
    assert told(world, "Downloaded") == ["a: 683.6Ki in 60 s, 11.4Ki/s"]
    assert len(told(world, "Downloading")) == 1


def test_a_retry_is_no_event(world: World) -> None:
    world.web.files.clear()
    world.want(*models(world, "a"))
    for _ in range(5):
        world.settle()
        world.step(300)
    assert len(told(world, "DownloadFailed")) == 1
    assert told(world, "Downloading") == []


def test_a_removal_is_told(world: World) -> None:
    world.want(*models(world, "a"))
    world.settle()
    world.want()
    world.step()
    world.step(GRACE)
    world.settle()
    assert told(world, "Removed") == ["a: 684Ki were freed: no cache wants the model on this node"]


def test_a_disk_that_fails_and_recovers_is_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(store: Store) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(store.root))

    world.want()
    world.step()
    with monkeypatch.context() as broken:
        broken.setattr(Store, "probe", fails)
        for _ in range(5):
            world.step(60)
    (message,) = told(world, "ReadOnly")
    assert "can only be read" in message
    for _ in range(3):
        world.step(60)
    assert told(world, "DiskRecovered") == ["the disk can be written again"]
