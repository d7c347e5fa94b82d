from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from agent.cluster import kube_watch, pod_watch
from agent.cluster.connection import connect
from agent.cluster.node_api import ApiUnavailableError
from agent.cluster.pod_watch import PodWatch
from tests.unit.agent.api_server import FakeServer, write_kubeconfig
from tests.unit.agent.servers import Handler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.cluster.pod_mounts import PodMounts


class PodServer(FakeServer):
    """Pods, in pages of one. `refuse` answers each list so."""

    def __init__(self) -> None:
        super().__init__()
        self.pods: list[dict[str, Any]] = []

    def __call__(self, handler: Handler, path: str) -> None:
        assert path == "/api/v1/pods"
        query = {k: v[0] for k, v in parse_qs(urlsplit(handler.path).query).items()}
        self.queries.append(query)
        if query.get("watch"):
            return self.watch(handler)
        if self.refuse is not None:
            return self.send(handler, self.refuse, {"kind": "Status"})
        if int(query.get("resourceVersion", 0)) > self.version:
            return self.send(handler, 504, {"kind": "Status", "message": "Too large"})
        first = int(query.get("continue", 0))
        meta = {"resourceVersion": str(self.version)}
        if first + 1 < len(self.pods):
            meta["continue"] = str(first + 1)
        page = {"metadata": meta, "items": self.pods[first : first + 1]}
        return self.send(handler, 200, page)


def pod(name: str, claim: str = "llama-gpus", version: int = 11, **status: Any) -> dict[str, Any]:
    volume = {"name": "m", "persistentVolumeClaim": {"claimName": claim}}
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-of-{name}",
            "resourceVersion": str(version),
        },
        "spec": {"volumes": [volume], "containers": [{"name": "c"}]},
        "status": status,
    }


class Watching:
    """A watch in a thread, and what it told."""

    def __init__(self, url: str, folder: Path) -> None:
        self.told: queue.SimpleQueue[tuple[PodMounts, ...] | None] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.pods = PodWatch("node-1", connect(write_kubeconfig(folder / "config", url)))
        self.thread = threading.Thread(
            target=self.pods.watch, args=(self.told.put, self.stopped), daemon=True
        )

    def names(self) -> list[str] | None:
        found = self.told.get(timeout=30)
        return None if found is None else [one.name for one in found]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> PodServer:
    monkeypatch.setattr(kube_watch, "MAX_RETRY_SECONDS", 0.01)
    # So that those of the server, which end at once, end when they should.
    monkeypatch.setattr(kube_watch, "WATCH_SECONDS", 0)
    return PodServer()


@pytest.fixture
def watching(fake: PodServer, tmp_path: Path) -> Iterator[Watching]:
    with serving(fake) as server:
        watching = Watching(server.url, tmp_path)
        yield watching
        watching.stopped.set()
        fake.watches.put([])
        fake.watches.put([])
        watching.thread.join(30)
        assert not watching.thread.is_alive()


def test_it_lists_all_pages_and_follows(fake: PodServer, watching: Watching) -> None:
    fake.pods = [pod("b"), pod("done", phase="Succeeded"), pod("a")]
    watching.thread.start()
    assert watching.names() == ["a", "b"]
    fake.watches.put([{"type": "ADDED", "object": pod("c", version=12)}])
    assert watching.names() == ["a", "b", "c"]
    ended = pod("a", version=14, phase="Failed")
    fake.watches.put(
        [{"type": "DELETED", "object": pod("b", version=13)}, {"type": "MODIFIED", "object": ended}]
    )
    assert watching.names() == ["a", "c"]
    assert watching.names() == ["c"]
    fake.watches.put([{"type": "DELETED", "object": pod("c", version=15)}])
    assert watching.names() == []
    lists = [query for query in fake.queries if not query.get("watch")]
    assert [query.get("continue") for query in lists] == [None, "1", "2"]
    assert {query["limit"] for query in lists} == {str(kube_watch.PAGE_OBJECTS)}
    watches = [query for query in fake.queries if query.get("watch")]
    assert [query["resourceVersion"] for query in watches[:3]] == ["10", "12", "14"]
    assert {query["fieldSelector"] for query in fake.queries} == {"spec.nodeName=node-1"}


def test_only_what_changes_the_mounts_is_told(fake: PodServer, watching: Watching) -> None:
    fake.pods = [pod("a", phase="Pending")]
    watching.thread.start()
    assert watching.names() == ["a"]
    running, plain = pod("a", version=12, phase="Pending"), pod("other", version=13)
    running["status"]["podIP"] = "10.0.0.1"
    del plain["spec"]["volumes"]
    fake.watches.put(
        [
            {"type": "MODIFIED", "object": running},
            {"type": "ADDED", "object": plain},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "14"}}},
            {"type": "ADDED", "object": pod("last", version=15)},
        ]
    )
    assert watching.names() == ["a", "last"]


def test_without_the_right_it_knows_nothing_and_says_once_what_to_grant(
    fake: PodServer, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_watch, "REFUSED_SECONDS", 0.1)
    fake.refuse = 403
    with capture_logs() as logs:
        watching.thread.start()
        assert watching.names() is None
        while not logs:
            threading.Event().wait(0.01)
        asked = len(fake.queries)
        while len(fake.queries) < asked + 5:
            threading.Event().wait(0.01)
    (warning,) = logs
    assert "needs the verbs list and watch on pods" in warning["event"]
    fake.pods, fake.refuse = [pod("a")], None
    assert watching.names() == ["a"]


def test_a_server_that_has_just_started_is_no_lack_of_rights(
    fake: PodServer, watching: Watching
) -> None:
    fake.refuse = 403
    with capture_logs() as logs:
        watching.thread.start()
        assert watching.names() is None
        fake.refuse = None
        assert watching.names() == []
    assert logs == []


def test_what_it_told_last_is_believed_for_a_while(
    fake: PodServer, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.pods = [pod("a")]
    watching.thread.start()
    assert watching.names() == ["a"]
    fake.refuse = 503
    fake.watches.put(503)
    asked = len(fake.queries)
    while len(fake.queries) < asked + 5:
        threading.Event().wait(0.01)
    assert watching.told.empty()
    monkeypatch.setattr(pod_watch, "TRUSTED_SECONDS", 0.0)
    assert watching.names() is None
    fake.refuse = None
    assert watching.names() == ["a"]


def test_a_pod_that_cannot_be_read_is_not_passed_over(
    fake: PodServer, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_watch, "TRUSTED_SECONDS", 0.0)
    watching.thread.start()
    assert watching.names() == []
    broken = pod("a", version=12)
    del broken["spec"]["volumes"][0]["name"]
    fake.watches.put([{"type": "ADDED", "object": broken}])
    assert watching.names() is None
    assert watching.names() == []


def test_pods_are_read_afresh_and_never_older_than_they_were_told(
    fake: PodServer, watching: Watching
) -> None:
    fake.pods = [pod("b"), pod("done", phase="Succeeded")]
    assert [one.name for one in watching.pods.read() or ()] == ["b"]
    watching.thread.start()
    assert watching.names() == ["b"]
    fake.watches.put([{"type": "ADDED", "object": pod("c", version=12)}])
    assert watching.names() == ["b", "c"]
    # Another server of the cluster, or one that was restored.
    with pytest.raises(ApiUnavailableError, match="504"):
        watching.pods.read()
    fake.version = 13
    fake.pods = [pod("d")]
    assert [one.name for one in watching.pods.read() or ()] == ["d"]
    fake.refuse = 403
    assert watching.pods.read() is None
    fake.refuse = 503
    with pytest.raises(ApiUnavailableError, match="503"):
        watching.pods.read()
