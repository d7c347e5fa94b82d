from __future__ import annotations

import json
import queue
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from agent.cluster import event_series, outbox
from agent.cluster.connection import connect
from agent.cluster.event_writer import EventWriter
from agent.cluster.events import NodeEvent
from tests.unit.agent.api_server import write_kubeconfig
from tests.unit.agent.helpers import dropped_line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.servers import Handler, Server

PATH = "/apis/events.k8s.io/v1/namespaces/default/events"
GONE = NodeEvent("Evicted", "llama made room")
FAILED = NodeEvent("DownloadFailed", "llama: denied", warning=True)


class EventServer:
    """Events. Each request is answered with the next of `statuses`, or with 200."""

    def __init__(self) -> None:
        self.statuses: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.requests: queue.SimpleQueue[tuple[str, str, dict[str, Any]]] = queue.SimpleQueue()

    def __call__(self, handler: Handler, path: str) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        status = 200 if self.statuses.empty() else self.statuses.get()
        headers = {"Content-Type": "application/json"}
        handler.reply(status, json.dumps(body).encode(), headers)
        self.requests.put((handler.command, path, body))

    def next(self) -> tuple[str, str, dict[str, Any]]:
        return self.requests.get(timeout=30)

    def reasons(self, count: int) -> list[str]:
        return [self.next()[2]["reason"] for _ in range(count)]

    def answer(self, *statuses: int) -> None:
        for status in statuses:
            self.statuses.put(status)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> EventServer:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.01)
    return EventServer()


@pytest.fixture
def writer(server: Server, tmp_path: Path) -> EventWriter:
    return EventWriter("node-1", connect(write_kubeconfig(tmp_path / "config", server.url)))


def test_an_event_is_about_the_local_model_node(fake: EventServer, writer: EventWriter) -> None:
    writer.about("uid-1")
    writer.tell(FAILED)
    method, path, body = fake.next()
    assert (method, path) == ("POST", PATH)
    assert body["metadata"]["namespace"] == "default"
    assert body["metadata"]["name"].startswith("node-1.")
    assert body["regarding"] == {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelNode",
        "name": "node-1",
        "uid": "uid-1",
    }
    assert (body["type"], body["reason"]) == ("Warning", "DownloadFailed")
    assert body["note"] == "llama: denied"
    assert body["reportingController"] == "localmodel.serving.kserve.io/agent"
    assert body["reportingInstance"] == "node-1"
    assert body["action"]
    writer.tell(GONE)
    assert fake.next()[2]["type"] == "Normal"


def test_the_same_again_is_counted_in_the_first(fake: EventServer, writer: EventWriter) -> None:
    for event in (FAILED, GONE, FAILED, FAILED):
        writer.tell(event)
    name = fake.next()[2]["metadata"]["name"]
    fake.next()
    for count in (2, 3):
        method, path, body = fake.next()
        assert (method, path) == ("PATCH", f"{PATH}/{name}")
        assert body["series"]["count"] == count
        assert body["series"]["lastObservedTime"].endswith("Z")


def test_a_series_ends(
    fake: EventServer, writer: EventWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.tell(FAILED)
    assert fake.next()[0] == "POST"
    # Another object.
    writer.about("uid-2")
    writer.tell(FAILED)
    assert fake.next()[0] == "POST"
    # The first Event has expired on the server.
    fake.answer(404)
    writer.tell(FAILED)
    assert [fake.next()[0], fake.next()[0]] == ["PATCH", "POST"]
    monkeypatch.setattr(event_series, "SERIES_SECONDS", 0.0)
    writer.tell(FAILED)
    assert fake.next()[0] == "POST"


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_what_may_pass_is_tried_again_under_one_name(
    fake: EventServer, writer: EventWriter, status: int
) -> None:
    fake.answer(status, status)
    writer.tell(FAILED)
    first, _, third = (fake.next()[2]["metadata"]["name"] for _ in range(3))
    assert first == third
    # Its answer was lost, and it had been written.
    fake.answer(status, 409)
    writer.tell(GONE)
    assert fake.reasons(2) == ["Evicted"] * 2
    writer.tell(GONE)
    assert fake.next()[0] == "PATCH"


def test_what_the_server_does_not_like_is_not_tried_again(
    fake: EventServer, writer: EventWriter
) -> None:
    fake.answer(422)
    writer.tell(FAILED)
    writer.tell(GONE)
    assert fake.reasons(2) == ["DownloadFailed", "Evicted"]


def test_it_gives_up_with_one_line_and_begins_again(fake: EventServer, writer: EventWriter) -> None:
    with capture_logs() as logs:
        fake.answer(403, 403, 403)
        writer.tell(FAILED)
        assert fake.reasons(3) == ["DownloadFailed"] * 3
        dropped_line(logs)
        fake.answer(403, 403, 403)
        writer.tell(FAILED)
        assert fake.reasons(3) == ["DownloadFailed"] * 3
        writer.tell(GONE)
        assert fake.reasons(1) == ["Evicted"]
    (line,) = logs
    assert line["log_level"] == "warning"
    assert "needs the verbs create and patch on events of events.k8s.io" in line["event"]
    assert line["reason"].startswith("403")


def test_events_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 600.0)
    config = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    writer = EventWriter("node-1", connect(config))
    for number in range(3 * outbox.QUEUE_ITEMS):
        writer.tell(NodeEvent("Evicted", str(number)))
    assert writer._outbox._queue.full()


@pytest.mark.parametrize("letter", ["a", "ä", "模"])
def test_a_note_is_no_longer_than_the_server_takes(
    fake: EventServer, writer: EventWriter, letter: str
) -> None:
    writer.tell(NodeEvent("Evicted", letter * 1024))
    note = fake.next()[2]["note"]
    assert 1020 <= len(note.encode()) <= 1024
    assert note.endswith(f"{letter}...") or note == letter * 1024


def test_the_names_of_a_long_node_are_what_the_server_takes(
    fake: EventServer, server: Server, tmp_path: Path
) -> None:
    config = write_kubeconfig(tmp_path / "config", server.url)
    writer = EventWriter("a." * 126 + "z", connect(config))
    writer.tell(GONE)
    body = fake.next()[2]
    assert len(body["metadata"]["name"]) <= 253
    assert ".." not in body["metadata"]["name"]
    assert len(body["reportingInstance"]) <= 128


def test_it_is_known_of_few_events_that_they_were_told(
    fake: EventServer, writer: EventWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_series, "MAX_SERIES", 3)
    for number in range(10):
        writer.tell(NodeEvent("DownloadFailed", f"team-{number}: denied"))
        fake.next()
    assert len(writer._series) <= 3
    writer.tell(NodeEvent("DownloadFailed", "team-9: denied"))
    # The last ones are still counted.
    assert fake.next()[0] == "PATCH"
