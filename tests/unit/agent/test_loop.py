from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING

from agent.sources.http import HttpSource
from agent.structs.options import Options
from tests.unit.agent.world import DATA, GRACE

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.unit.agent.world import World


def test_wanted_models_arrive_and_the_status_says_so(world: World) -> None:
    world.want(world.model("a"), world.model("b"))
    world.settle()
    assert world.tree("a") == {"a.bin": b"a" + DATA}
    assert world.states() == {"a": "Downloaded", "b": "Downloaded"}
    status = world.status()
    assert status["observedGeneration"] == 1
    assert status["conditions"][0]["message"] == "2 of 2 models cached"
    assert status["models"][0]["size"] == len(DATA) + 1


def test_two_caches_with_one_uri_share_the_copy(world: World) -> None:
    first, second = world.model("a"), world.model("a", namespace="team")
    world.want(first, second)
    world.settle()
    assert [m["state"] for m in world.status()["models"]] == ["Downloaded", "Downloaded"]
    # A listing and the content; and a listing and a byte with the other's credentials.
    assert len(world.server.seen) == 4
    world.want(second)
    for _ in range(3):
        world.step(GRACE)
    assert world.tree("a")
    # Whose it is now is on the disk, for the time after a restart.
    world.restart()
    world.want()
    world.step()
    assert [(m.get("namespace", ""), m["state"]) for m in world.status()["models"]] == [
        ("team", "Removing")
    ]


def test_failure_of_one_model_disturbs_no_other_and_is_tried_again(world: World) -> None:
    world.want(world.model("gone"), world.model("a"))
    world.settle()
    assert world.states() == {"gone": "Failed", "a": "Downloaded"}
    (failed, _) = world.status()["models"]
    assert failed["reason"] == "NotFound"
    assert failed["attempts"] == 1
    assert failed["nextRetryTime"] == "2026-08-01T00:16:45Z"
    world.web.files["/gone.bin"] = b"here"
    world.step(4.9)
    assert world.states()["gone"] == "Failed"
    world.step(0.1)
    world.settle()
    assert world.states()["gone"] == "Downloaded"
    assert "attempts" not in world.status()["models"][0]


def test_another_expected_hash_is_another_try(world: World) -> None:
    world.want(world.model("a", hash="sha256:" + "0" * 64))
    world.settle()
    assert world.status()["models"][0]["reason"] == "Corrupt"
    world.want(world.model("a"))
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_copy_with_the_wrong_hash_is_replaced_once_the_right_one_is_there(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    right = world.status()["models"][0]["hash"]
    world.web.files["/a.bin"] = b"newer"
    world.want(world.model("a", hash="sha256:" + "0" * 64))
    world.settle()
    assert world.states() == {"a": "Failed"}
    assert world.tree("a") == {"a.bin": b"a" + DATA}
    world.want(world.model("a", hash=right))
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_restart_needs_no_network(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    world.web.files.clear()
    asked = len(world.server.seen)
    world.restart()
    world.want(world.model("a"))
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert len(world.server.seen) == asked


def test_damaged_copy_is_told_and_downloaded_again(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    (world.root / "models" / world.key("a") / "a.bin").write_bytes(b"short")
    world.step(60)
    world.settle()
    assert world.tree("a") == {"a.bin": b"a" + DATA}
    downloading = [w["models"][0] for w in world.api.writes if "message" in w["models"][0]]
    assert "is damaged" in downloading[0]["message"]
    assert downloading[0]["cached"] is False


def test_fault_of_a_source_is_one_models_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: HttpSource, uri: str, *_: object) -> None:
        raise RuntimeError(f"a bug with s3cret {self} {uri}")

    monkeypatch.setattr(HttpSource, "resolve", broken)
    world.want(world.model("a"))
    world.settle()
    model = world.status()["models"][0]
    assert model["reason"] == "Internal"
    assert "s3cret" not in model["message"]


def test_it_runs_and_stops(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.want(world.model("a"), told=False)
    world.options = vars(Options())
    world.restart()
    faulty = iter([RuntimeError("a bug in a step")])
    real = world.loop.step

    def step() -> float:
        for error in faulty:
            raise error
        return real()

    monkeypatch.setattr(world.loop, "step", step)
    monkeypatch.setattr("agent.control.loop.FAULT_SECONDS", 0.01)
    thread = threading.Thread(target=world.loop.run)
    thread.start()
    deadline = time.monotonic() + 30
    while world.tree("a") is None and time.monotonic() < deadline:
        time.sleep(0.01)
    world.loop.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert world.tree("a")


def test_a_copy_that_cannot_be_read_now_is_neither_replaced_nor_unready(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.want(world.model("a"))
    world.settle()
    asked = len(world.server.seen)

    def fails(path: str | Path, *_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as broken:
        broken.setattr("os.lstat", fails)
        world.step(60)
        world.settle()
        assert world.states() == {"a": "Downloaded"}
        # An agent that never saw it whole says what it knows.
        world.restart()
        world.want(world.model("a"))
        world.settle()
        model = world.status()["models"][0]
        assert model["state"] == "Failed"
        assert "Input/output error" in model["message"]
    world.step(60)
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert len(world.server.seen) == asked


def test_a_model_that_two_groups_want_is_told_once(world: World) -> None:
    model = world.model("a")
    world.want(model, model.model_copy(update={"node_group": "other"}))
    world.settle()
    status = world.status()
    assert [m["name"] for m in status["models"]] == ["a"]
    assert status["conditions"][0]["message"] == "1 of 1 model cached"
