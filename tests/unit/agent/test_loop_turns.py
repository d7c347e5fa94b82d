"""The loop with models that other nodes of the group download first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from tests.unit.agent.crowded import entry, fill, models, prepare, ready, told, wait
from tests.unit.agent.test_loop_adoption import lay
from tests.unit.agent.world import DATA, GRACE

if TYPE_CHECKING:
    from crds.node import LocalModel
    from tests.unit.agent.world import World

HASH = "sha256:" + "0" * 64


def suspended(world: World, name: str, **fields: Any) -> LocalModel:
    return world.model(name, suspend=True, **fields)


def test_a_suspended_model_is_not_begun_and_says_why(world: World) -> None:
    world.want(suspended(world, "a"), world.model("b"))
    for _ in range(3):
        world.settle()
        world.step(60)
    assert world.states() == {"a": "Pending", "b": "Downloaded"}
    a = entry(world, "a")
    assert (a["reason"], a["cached"]) == ("AwaitingTurn", False)
    assert a["message"] == (
        "other nodes of LocalModelNodeGroup gpus download first: its download.maxConcurrentNodes "
        "is reached; this node begins by itself when its turn comes"
    )
    assert (ready(world)["status"], ready(world)["reason"]) == ("False", "Pending")
    assert ready(world)["message"] == "1 of 2 models cached, 1 pending"
    assert world.status()["modelStatus"]["a"] == "ModelDownloadPending"
    assert {path for _, path, _ in world.server.seen} == {"/b.bin"}


def test_it_begins_at_once_when_its_turn_comes(world: World) -> None:
    world.want(suspended(world, "a"))
    world.settle()
    world.want(world.model("a"))
    world.step()
    assert set(world.active()) == {world.key("a")}
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_one_entry_whose_turn_it_is_begins_for_all(world: World) -> None:
    other = world.model("a", node_group="cpus").model_copy(update={"model_name": "other"})
    world.want(suspended(world, "a"), other)
    world.settle()
    assert world.states() == {"a": "Downloaded", "other": "Downloaded"}


def test_a_refused_entry_whose_turn_it_is_begins_nothing(world: World) -> None:
    uri = "file:///models/a"
    names = {"source_model_uri": uri, "model_name": "refused", "namespace": "team"}
    refused = world.model("a").model_copy(update=names)
    world.want(refused, suspended(world, "a").model_copy(update={"source_model_uri": uri}))
    world.settle()
    assert world.states() == {"refused": "Failed", "a": "Pending"}


def test_a_copy_that_is_here_stays_and_serves(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    asked = len(world.server.seen)
    world.want(suspended(world, "a"))
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    world.restart()
    world.want(suspended(world, "a"))
    for _ in range(3):
        world.settle()
        world.step(GRACE)
    assert world.states() == {"a": "Downloaded"}
    assert ready(world)["reason"] == "AllCached"
    assert len(world.server.seen) == asked


def test_a_running_download_goes_on(world: World) -> None:
    world.web.gate = threading.Event()
    world.want(world.model("a"))
    world.step()
    world.want(suspended(world, "a"))
    world.step()
    world.step(GRACE)
    task = world.download("a")
    assert not task.cancelled.is_set()
    assert world.states() == {"a": "Downloading"}
    world.web.gate.set()
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_what_an_earlier_attempt_left_stays_and_waits_too(world: World) -> None:
    world.web.files["/a.bin"] = b"x" * (8 << 20)
    world.web.gate = threading.Event()
    world.want(world.model("a"))
    world.step()
    staging = world.root / ".localmodel" / world.key("a") / "files"
    world.settle_until(staging.exists)
    # An agent that ends takes its connections with it.
    world.web.gate.set()
    world.restart()
    assert staging.exists()
    world.web.gate = None
    world.server.seen.clear()
    world.want(suspended(world, "a"))
    for _ in range(3):
        world.settle()
        world.step(GRACE)
    assert entry(world, "a")["reason"] == "AwaitingTurn"
    assert staging.exists()
    assert world.server.seen == []
    world.want(world.model("a"))
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_nothing_goes_for_a_suspended_model(world: World) -> None:
    prepare(world)
    fill(world, "ab")
    world.want(*models(world, "ab"), *models(world, "c", suspend=True))
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Downloaded", "c": "Pending"}
    assert entry(world, "c")["reason"] == "AwaitingTurn"
    assert told(world, "CapacityFull") == []
    world.want(*models(world, "abc"))
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}


def test_a_suspended_copy_is_evicted_for_others_and_stays_away(world: World) -> None:
    prepare(world)
    fill(world, "ab")
    first = models(world, "a", suspend=True)
    world.want(*first, *models(world, "bc"))
    world.settle()
    assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}
    # A service refers to it, and it is not its turn.
    world.want(*models(world, "a", suspend=True, referenced=True), *models(world, "b"))
    world.settle()
    assert entry(world, "a")["reason"] == "AwaitingTurn"
    assert world.tree("a") is None


def test_a_damaged_copy_is_repaired_nonetheless(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    (world.root / "models" / world.key("a") / "a.bin").write_bytes(b"short")
    world.want(suspended(world, "a"))
    world.step(60)
    world.settle()
    assert world.tree("a") == {"a.bin": b"a" + DATA}
    assert world.states() == {"a": "Downloaded"}


def test_another_hash_is_another_download_and_waits(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    asked = len(world.server.seen)
    world.want(suspended(world, "a", hash=HASH))
    world.settle()
    assert entry(world, "a")["reason"] == "AwaitingTurn"
    assert world.tree("a") == {"a.bin": b"a" + DATA}
    assert len(world.server.seen) == asked


def test_a_folder_of_somebody_else_is_compared_when_its_turn_comes(world: World) -> None:
    lay(world, "a")
    world.want(suspended(world, "a"))
    world.settle()
    assert entry(world, "a")["reason"] == "AwaitingTurn"
    assert world.server.seen == []
    world.want(world.model("a"))
    world.settle()
    assert world.states() == {"a": "Downloaded"}
    assert len(told(world, "Adopted")) == 1


def test_no_source_is_asked_about_a_copy_for_a_suspended_entry(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    asked = len(world.server.seen)
    world.want(world.model("a"), suspended(world, "a", namespace="team"))
    world.settle()
    reasons = [(m["state"], m.get("reason")) for m in world.status()["models"]]
    assert reasons == [("Downloaded", None), ("Pending", "AwaitingTurn")]
    assert len(world.server.seen) == asked
    world.want(world.model("a"), world.model("a", namespace="team"))
    world.settle()
    assert [m["state"] for m in world.status()["models"]] == ["Downloaded", "Downloaded"]
    # A listing, and a byte.
    assert len(world.server.seen) == asked + 2


def test_a_failure_is_told_and_tried_again_when_its_turn_comes(world: World) -> None:
    world.want(world.model("gone"))
    world.settle()
    world.want(suspended(world, "gone"))
    asked = len(world.server.seen)
    for _ in range(3):
        world.settle()
        world.step(60)
    gone = entry(world, "gone")
    assert (gone["state"], gone["reason"], gone["attempts"]) == ("Pending", "AwaitingTurn", 1)
    assert "when its turn comes. The last try failed: NotFound: " in gone["message"]
    assert "nextRetryTime" not in gone
    assert len(world.server.seen) == asked
    world.web.files["/gone.bin"] = b"here"
    world.want(world.model("gone"))
    world.settle()
    assert world.states() == {"gone": "Downloaded"}


def test_a_waiting_pod_does_not_wait_for_the_nodes_turn(world: World) -> None:
    prepare(world)
    world.want(suspended(world, "a"), suspended(world, "b"))
    world.settle()
    wait(world, "b")
    world.settle()
    assert world.states() == {"a": "Pending", "b": "Downloaded"}
    assert entry(world, "a")["reason"] == "AwaitingTurn"
    # What has failed waits for its retry as ever, and says so.
    world.web.files.pop("/a.bin")
    wait(world, "a")
    world.settle()
    assert (entry(world, "a")["state"], entry(world, "a")["reason"]) == ("Failed", "NotFound")


def test_a_waiting_pods_entry_of_another_namespace_is_checked_before_its_turn(world: World) -> None:
    prepare(world)
    world.want(world.model("a"))
    world.settle()
    theirs = world.model("a", namespace="team", suspend=True)
    theirs = theirs.model_copy(update={"model_name": "theirs"})
    world.want(world.model("a"), theirs)
    world.settle()
    assert entry(world, "theirs")["reason"] == "AwaitingTurn"
    wait(world, "a")
    world.settle()
    assert world.states() == {"a": "Downloaded", "theirs": "Downloaded"}
