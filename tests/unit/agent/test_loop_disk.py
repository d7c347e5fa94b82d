"""A disk that can only be read, or that is away."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.disk.root import StoreError
from agent.disk.store import Store
from tests.unit.agent.world import GRACE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.world import World


def _fail(number: int) -> Any:
    def fails(self: Store) -> None:
        raise OSError(number, os.strerror(number), str(self.root))

    return fails


def _conditions(world: World) -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in world.status()["conditions"]}


def test_a_read_only_disk_is_told_and_heals(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.want(world.model("a"))
    world.settle()
    with monkeypatch.context() as broken:
        broken.setattr(Store, "probe", _fail(errno.EROFS))
        world.step(60)
        world.want(world.model("b"))
        assert world.step() <= world.seconds + 10
        world.step(GRACE)
        world.step(1)
        condition = _conditions(world)["DiskReady"]
        assert (condition["status"], condition["reason"]) == ("False", "ReadOnly")
        # What is no longer wanted stays, and nothing is begun.
        assert world.tree("a")
        models = {m["name"]: m for m in world.status()["models"]}
        assert (models["b"]["state"], models["b"]["reason"]) == ("Failed", "ReadOnly")
        world.want(world.model("a"), world.model("b"))
        world.step(1)
        assert world.states() == {"a": "Downloaded", "b": "Failed"}
    world.step(10)
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Downloaded"}
    assert "DiskReady" not in _conditions(world)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ESTALE])
def test_a_disk_that_is_away_is_told_and_heals(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    world.want(world.model("a"))
    world.settle()
    asked = len(world.server.seen)
    with monkeypatch.context() as broken:
        for name in ("probe", "scan", "disk"):
            broken.setattr(Store, name, _fail(number))
        world.step(60)
        world.step(10)
        assert _conditions(world)["DiskReady"]["reason"] == "Unavailable"
        assert world.states() == {"a": "Downloaded"}
    world.step(10)
    assert "DiskReady" not in _conditions(world)
    assert len(world.server.seen) == asked


def test_a_download_that_meets_it_fails_with_the_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Store, *_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self.root))

    with monkeypatch.context() as broken:
        broken.setattr(Store, "publish", fails)
        world.want(world.model("a"))
        world.settle_until(lambda: world.states().get("a") == "Failed")
        assert world.status()["models"][0]["reason"] == "ReadOnly"


def test_a_disk_that_cannot_be_read_at_the_start_is_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path / "node")
    with pytest.raises(StoreError, match="check the node's disk"):
        store.recover()
