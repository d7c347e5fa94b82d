"""The startup taint: when the loop decides that it goes, and its removal from the Node."""

from __future__ import annotations

import copy
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from agent.cluster import startup_taint
from agent.cluster.connection import connect
from agent.cluster.event_writer import NODE, EventWriter
from agent.cluster.startup_taint import KEYS, NodeTaint, removal_of
from agent.control.startup_taint import (
    ABSENT_SECONDS,
    CONFIRM_SECONDS,
    REPEAT_SECONDS,
    StartupTaint,
)
from tests.unit.agent.api_server import write_kubeconfig
from tests.unit.agent.helpers import local_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.agent.servers import Handler, Server
    from tests.unit.agent.world import World

KEY = "localmodel.serving.kserve.io/not-ready"
OURS = {"key": KEY, "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


class Remover:
    """Notes what it is told. `is_done` as if the Node had no taint."""

    def __init__(self) -> None:
        self.is_done = False
        self.kept: list[str] = []
        self.removed: list[str] = []

    def keep(self, why: str) -> None:
        assert not self.removed
        self.kept.append(why)

    def remove(self, why: str) -> None:
        self.removed.append(why)


@pytest.fixture
def remover(world: World) -> Remover:
    """The taint of the world's node, for models of priority 10."""
    remover = Remover()
    world.startup_taint = StartupTaint(remover, 10)
    world.restart()
    return remover


# The decision


def test_the_taint_goes_when_the_important_models_are_there(world: World, remover: Remover) -> None:
    world.want(world.model("a", priority=10), world.model("b"))
    world.step()
    assert len(remover.kept) == 1
    assert remover.kept[0].startswith("0 of 1 model of priority 10 or higher is cached; on the way")
    assert remover.removed == []
    world.settle_until(lambda: world.states().get("a") == "Downloaded")
    world.step()
    assert remover.removed == ["1 of 1 model of priority 10 or higher is cached"]
    # It was decided once and for all.
    world.want(world.model("a", priority=10), world.model("c", priority=10))
    world.settle()
    assert len(remover.removed) == 1


def test_a_node_without_important_models_is_ready_at_once(world: World, remover: Remover) -> None:
    world.want(world.model("a"), world.model("b", suspend=True))
    world.step()
    assert remover.removed == ["no model of priority 10 or higher is listed for this node"]


def test_a_suspended_model_is_waited_for(world: World, remover: Remover) -> None:
    world.want(world.model("a", priority=10, suspend=True))
    for _ in range(3):
        world.settle()
        world.step(60)
    assert remover.removed == []
    assert len(remover.kept) == 1
    assert "a (Pending: AwaitingTurn)" in remover.kept[0]
    world.step(REPEAT_SECONDS)
    assert len(remover.kept) == 2
    world.want(world.model("a", priority=10))
    world.settle()
    assert remover.removed


def test_a_failed_model_does_not_keep_the_node_out(world: World, remover: Remover) -> None:
    world.want(world.model("a", priority=10), world.model("none", priority=20))
    world.settle()
    (why,) = remover.removed
    assert why == (
        "1 of 2 models of priority 10 or higher are cached; not waited for: none (Failed: NotFound)"
    )


def test_an_origin_that_is_down_keeps_the_node_out(world: World, remover: Remover) -> None:
    # Nothing listens there.
    world.want(local_model("a", "http://127.0.0.1:1/a.bin", priority=10))
    world.settle()
    world.step(600)
    world.settle()
    assert world.states() == {"a": "Failed"}
    assert remover.removed == []
    assert "a (Failed: Unreachable)" in remover.kept[-1]


def test_a_copy_of_an_earlier_start_counts(world: World) -> None:
    world.want(world.model("a", priority=10))
    world.settle()
    again = Remover()
    world.startup_taint = StartupTaint(again, 10)
    world.restart()
    # What the object's status says of the time before is not taken on trust.
    world.step()
    assert again.removed == []
    world.loop.observe(copy.deepcopy(world.api.node))
    world.step()
    assert again.kept == ["the node has no readable LocalModelNode yet, which lists its models"]
    assert again.removed == ["1 of 1 model of priority 10 or higher is cached"]


def test_a_node_in_no_group_is_ready_after_a_minute(world: World, remover: Remover) -> None:
    start = world.seconds
    assert world.step() <= start + ABSENT_SECONDS
    assert remover.kept == ["the node has no readable LocalModelNode yet, which lists its models"]
    world.step(ABSENT_SECONDS - 1)
    assert remover.removed == []
    # By a read anew, not by the silence of a watch.
    world.api.down = True
    assert world.step(1) <= world.seconds + CONFIRM_SECONDS
    assert remover.removed == []
    world.api.down = False
    world.step(CONFIRM_SECONDS)
    (why,) = remover.removed
    assert "it is in no LocalModelNodeGroup" in why


def test_an_object_that_the_watch_has_not_brought_yet_counts(
    world: World, remover: Remover
) -> None:
    world.step()
    world.want(world.model("a", priority=10), told=False)
    world.step(ABSENT_SECONDS)
    assert remover.removed == []
    world.loop.observe(copy.deepcopy(world.api.node))
    world.settle()
    assert remover.removed == ["1 of 1 model of priority 10 or higher is cached"]


def test_without_a_taint_nothing_is_decided(world: World, remover: Remover) -> None:
    remover.is_done = True
    world.want(world.model("a", priority=10))
    world.settle()
    assert (remover.kept, remover.removed) == ([], [])


# The Node


class Nodes:
    """One Node, and Events. A JSON patch is applied as by the API server."""

    def __init__(self) -> None:
        self.taints: list[dict[str, Any]] | None = [copy.deepcopy(GPU), copy.deepcopy(OURS)]
        self.statuses: list[int] = []
        self.gets = 0
        self.patches: list[list[dict[str, Any]]] = []
        self.events: list[dict[str, Any]] = []
        # Called between the read for a removal and its patch.
        self.before_patch: Callable[[], None] = lambda: None
        self.changed = threading.Condition()

    def __call__(self, handler: Handler, path: str) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        with self.changed:
            status, answer = self.answer(handler, path, body)
            self.changed.notify_all()
        handler.reply(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def answer(self, handler: Handler, path: str, body: Any) -> tuple[int, Any]:
        if path.startswith("/apis/events.k8s.io"):
            self.events.append(body)
            return 200, body
        assert path == "/api/v1/nodes/node-1"
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            return status, {"kind": "Status", "message": "no"}
        if handler.command == "GET":
            self.gets += 1
        else:
            assert handler.headers["Content-Type"] == "application/json-patch+json"
            self.before_patch()
            self.patches.append(body)
            if not self.apply(body):
                return 422, {"kind": "Status", "message": "the test failed"}
        spec = {} if self.taints is None else {"taints": self.taints}
        return 200, {"metadata": {"name": "node-1", "uid": "uid-of-node"}, "spec": spec}

    def apply(self, patch: list[dict[str, Any]]) -> bool:
        taints = list(self.taints or ())
        for step in patch:
            place = int(step["path"].removeprefix("/spec/taints/"))
            if step["op"] == "test" and (place >= len(taints) or taints[place] != step["value"]):
                return False
            if step["op"] == "remove":
                del taints[place]
        self.taints = taints
        return True

    def wait(self, done: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(done, 30)

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.events]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    monkeypatch.setattr(startup_taint, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(startup_taint, "MAX_RETRY_SECONDS", 0.02)
    return Nodes()


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Callable[[], NodeTaint]:
    api = connect(write_kubeconfig(tmp_path / "config", server.url))
    return lambda: NodeTaint("node-1", api, EventWriter("node-1", api, NODE))


def wait_done(taint: NodeTaint) -> None:
    until = time.monotonic() + 30
    while not taint.is_done:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_the_taint_is_removed_and_no_other(fake: Nodes, make: Callable[[], NodeTaint]) -> None:
    taint = make()
    taint.keep("llama is on the way")
    fake.wait(lambda: fake.reasons() == ["StartupTaintKept"])
    assert not taint.is_done
    taint.remove("llama is cached")
    wait_done(taint)
    assert fake.taints == [GPU]
    fake.wait(lambda: len(fake.events) == 2)
    event = fake.events[1]
    assert event["reason"] == "StartupTaintRemoved"
    assert (event["note"], event["type"]) == ("llama is cached", "Normal")
    # kubectl describe node finds Events by these.
    assert event["regarding"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "node-1",
        "uid": "uid-of-node",
    }
    # Once at the start, once for the removal.
    assert fake.gets == 2


@pytest.mark.parametrize("taints", [None, [], [GPU]])
def test_a_node_without_the_taint_is_read_once(
    fake: Nodes, make: Callable[[], NodeTaint], taints: list[dict[str, Any]] | None
) -> None:
    fake.taints = taints
    taint = make()
    taint.keep("llama is on the way")
    wait_done(taint)
    taint.keep("still")
    taint.remove("llama is cached")
    assert (fake.gets, fake.patches, fake.events) == (1, [], [])
    assert "startup-taint" not in {thread.name for thread in threading.enumerate()}


def test_every_effect_and_both_keys_are_removed() -> None:
    taints = [
        {"key": key, "effect": e} for key in sorted(KEYS) for e in ("NoSchedule", "NoExecute")
    ]
    taints.insert(2, GPU)
    nodes = Nodes()
    nodes.taints = copy.deepcopy(taints)
    patch = removal_of({"spec": {"taints": taints}})
    assert nodes.apply(patch)
    assert nodes.taints == [GPU]
    # Each removal has its test.
    assert [step["op"] for step in patch] == ["test", "remove"] * 4


def test_a_change_at_the_same_time_is_not_lost(fake: Nodes, make: Callable[[], NodeTaint]) -> None:
    other = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}

    def change() -> None:
        fake.before_patch = lambda: None
        fake.taints = [other, *(fake.taints or ())]

    fake.before_patch = change
    taint = make()
    taint.remove("llama is cached")
    wait_done(taint)
    assert fake.taints == [other, GPU]
    assert len(fake.patches) == 2


def test_a_taint_that_somebody_else_removes_has_no_event(
    fake: Nodes, make: Callable[[], NodeTaint]
) -> None:
    taint = make()
    fake.wait(lambda: fake.gets == 1)
    fake.taints = [GPU]
    taint.remove("llama is cached")
    wait_done(taint)
    assert (fake.patches, fake.events) == ([], [])


def test_errors_are_tried_again(fake: Nodes, make: Callable[[], NodeTaint]) -> None:
    fake.statuses = [500, 404, 200, 503, 200, 409, 200, 200]
    taint = make()
    taint.remove("llama is cached")
    wait_done(taint)
    assert fake.taints == [GPU]


def test_a_missing_right_is_logged_once(
    fake: Nodes, make: Callable[[], NodeTaint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup_taint, "WARN_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(startup_taint, "MAX_REFUSED_SECONDS", 0.02)
    fake.statuses = [403] * 8
    with capture_logs() as logs:
        taint = make()
        taint.remove("llama is cached")
        wait_done(taint)
    (warning,) = (entry for entry in logs if entry["log_level"] == "warning")
    assert "get and patch on nodes, see deploy/components/startup-taint" in warning["event"]
    # The right was given: no restart was needed.
    assert fake.taints == [GPU]
