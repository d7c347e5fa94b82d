"""The report against a server that speaks the part of the Kubernetes API that it uses."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster import kube_watch
from agent.cluster.connection import ConfigError, connect
from agent.cluster.node_api import ApiUnavailableError
from agent.cluster.report import NodeReport
from tests.unit.agent.api_server import PATH, FakeServer, write_kubeconfig
from tests.unit.agent.helpers import node_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.agent.servers import Server


def event(kind: str, version: int, **fields: Any) -> dict[str, Any]:
    found = node_object(**fields)
    found["metadata"]["resourceVersion"] = str(version)
    return {"type": kind, "object": found}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    # What is meant for the models' sources must not get between agent and API server.
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/does/not/exist")
    monkeypatch.setattr(kube_watch, "MAX_RETRY_SECONDS", 0.01)
    # So that those of the server, which end at once, end when they should.
    monkeypatch.setattr(kube_watch, "WATCH_SECONDS", 0)
    return FakeServer()


@pytest.fixture
def node(server: Server, tmp_path: Path) -> NodeReport:
    return NodeReport("node-1", connect(write_kubeconfig(tmp_path / "config", server.url)))


def test_read(fake: FakeServer, node: NodeReport, server: Server) -> None:
    assert node.read() is None
    fake.node = node_object()
    assert node.read() == fake.node
    assert server.seen[-1][1] == f"{PATH}/node-1"
    assert server.seen[-1][2]["authorization"] == "Bearer t0ken"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_refusal_is_not_absence(fake: FakeServer, node: NodeReport, status: int) -> None:
    fake.refuse = status
    with pytest.raises(ApiUnavailableError, match=str(status)):
        node.read()
    with pytest.raises(ApiUnavailableError, match=str(status)):
        node.write_status("12", {})


def test_unreachable_server_is_not_absence(tmp_path: Path) -> None:
    node = NodeReport("n", connect(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))
    with pytest.raises(ApiUnavailableError, match="connection refused"):
        node.read()
    with pytest.raises(ApiUnavailableError, match="connection refused"):
        node.write_status("12", {})


def test_status_is_applied_to_one_version(
    fake: FakeServer, node: NodeReport, server: Server
) -> None:
    stored = node.write_status("12", {"observedGeneration": 3})
    assert stored is not None
    assert stored["stored"] is True
    ((query, content_type, body),) = fake.patches
    assert query == {"fieldManager": "localmodel-agent", "force": "true"}
    assert content_type == "application/apply-patch+yaml"
    assert body["metadata"] == {"name": "node-1", "resourceVersion": "12"}
    assert body["status"] == {"observedGeneration": 3}
    assert server.seen[-1][1] == f"{PATH}/node-1/status"


@pytest.mark.parametrize("status", [404, 409])
def test_status_of_an_object_that_changed_or_is_gone(
    fake: FakeServer, node: NodeReport, status: int
) -> None:
    fake.patch_status = status
    assert node.write_status("12", {}) is None


class Watching:
    """A watch in a thread, and what it told."""

    def __init__(self, node: NodeReport) -> None:
        self.told: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.thread = threading.Thread(
            target=node.watch, args=(self.told.put, self.stopped), daemon=True
        )
        self.thread.start()

    def generation(self) -> int | None:
        found = self.told.get(timeout=30)
        return None if found is None else int(found["metadata"]["generation"])


@pytest.fixture
def watching(node: NodeReport, fake: FakeServer) -> Iterator[Watching]:
    watching = Watching(node)
    yield watching
    watching.stopped.set()
    fake.watches.put([])
    fake.watches.put([])
    watching.thread.join(30)
    assert not watching.thread.is_alive()


def test_watch_lists_follows_and_resumes(fake: FakeServer, watching: Watching) -> None:
    assert watching.generation() is None
    fake.watches.put([event("ADDED", 11, generation=1), event("MODIFIED", 12, generation=2)])
    assert [watching.generation(), watching.generation()] == [1, 2]
    fake.watches.put([event("BOOKMARK", 15), event("DELETED", 20)])
    assert watching.generation() is None
    fake.watches.put([event("ADDED", 21, generation=3)])
    assert watching.generation() == 3
    watches = [query for query in fake.queries if query.get("watch")]
    assert [query["resourceVersion"] for query in watches[:3]] == ["10", "12", "20"]
    assert {query["fieldSelector"] for query in fake.queries} == {"metadata.name=node-1"}
    assert watches[0]["allowWatchBookmarks"] == "true"


def test_watch_lists_anew_when_its_version_is_too_old(fake: FakeServer, watching: Watching) -> None:
    assert watching.generation() is None
    fake.node, fake.version = node_object(generation=7), 90
    gone = {"code": 410, "reason": "Expired", "message": "too old"}
    fake.watches.put([{"type": "ERROR", "object": gone}])
    assert watching.generation() == 7
    fake.watches.put(410)
    assert watching.generation() == 7


def test_a_watch_that_was_cut_off_is_not_resumed(
    fake: FakeServer, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a server that was restored, such as: its version is 4 then, and soon 13."""
    assert watching.generation() is None
    monkeypatch.setattr(kube_watch, "WATCH_SECONDS", 240)
    fake.node, fake.version = node_object(generation=1), 4
    fake.watches.put([event("ADDED", 12, generation=2)])
    assert [watching.generation(), watching.generation()] == [2, 1]
    fake.watches.put([event("MODIFIED", 5, generation=3)])
    assert watching.generation() == 3
    watches = [query for query in fake.queries if query.get("watch")]
    assert [query["resourceVersion"] for query in watches[:2]] == ["10", "4"]


def test_a_watch_that_said_nothing_is_not_resumed(fake: FakeServer, watching: Watching) -> None:
    """A proxy has ended it in good order, before the server would have said anything."""
    assert watching.generation() is None
    fake.node, fake.version = node_object(generation=1), 4
    fake.watches.put([])
    assert watching.generation() == 1


def test_silence_for_longer_than_a_server_is_silent_is_no_life(
    fake: FakeServer, node: NodeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection of which only this end is left, or a version that is still to come."""
    monkeypatch.setattr(kube_watch, "WATCH_TIMEOUT", (3.0, 0.2))
    silence = threading.Event()
    fake.watches.put(silence)
    watching = Watching(node)
    try:
        assert watching.generation() is None
        fake.node, fake.version = node_object(generation=1), 4
        while watching.generation() != 1:
            pass
    finally:
        silence.set()
        watching.stopped.set()
        fake.watches.put([])
        watching.thread.join(30)


def test_kind_that_is_not_there_is_absence_and_other_refusals_are_not(
    fake: FakeServer, watching: Watching
) -> None:
    assert watching.generation() is None
    fake.node = node_object(generation=1)
    fake.refuse = 503
    fake.watches.put(503)
    threading.Event().wait(0.1)
    assert watching.told.empty()
    fake.refuse = 404
    assert watching.generation() is None
    fake.refuse = None
    while (generation := watching.generation()) is None:
        pass
    assert generation == 1


def test_watch_survives_answers_that_make_no_sense(fake: FakeServer, watching: Watching) -> None:
    assert watching.generation() is None
    fake.watches.put([{"type": "ADDED", "object": {"metadata": {}}}])
    assert watching.generation() is None


def test_kubeconfig_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot use the kubeconfig"):
        connect(tmp_path / "missing")
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match="cannot use the kubeconfig"):
        connect(tmp_path / "empty")
    (tmp_path / "broken").write_text(": [")
    with pytest.raises(ConfigError, match="cannot use the kubeconfig"):
        connect(tmp_path / "broken")


def test_without_kubeconfig_it_must_be_in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="not in a cluster"):
        connect(None)
