"""What the API server gets of waiting pods: Events, and the annotation that wakes kubelet."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from agent.cluster import core_api, event_series, outbox
from agent.cluster.connection import connect
from agent.cluster.events import PodEvent
from agent.cluster.pod_mounts import PodUse
from agent.cluster.pod_writer import PodWriter
from tests.unit.agent.api_server import write_kubeconfig
from tests.unit.agent.helpers import dropped_line
from tests.unit.agent.test_event_writer import EventServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.servers import Handler, Server

EVENTS = "/api/v1/namespaces/team/events"
POD = PodUse("team", "server", "uid-1")
HALF = PodEvent(POD, "llama downloading", "WaitingForModel", "llama: 50 %")
MORE = replace(HALF, message="llama: 75 %")
THERE = PodEvent(POD, "llama cached", "ModelCached", "llama: it is there")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> EventServer:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.01)
    return EventServer()


@pytest.fixture
def writer(server: Server, tmp_path: Path) -> PodWriter:
    return PodWriter("node-1", connect(write_kubeconfig(tmp_path / "config", server.url)))


def test_an_event_is_about_the_pod(fake: EventServer, writer: PodWriter) -> None:
    writer.tell(replace(HALF, warning=True))
    method, path, body = fake.next()
    assert (method, path) == ("POST", EVENTS)
    assert body["metadata"]["namespace"] == "team"
    assert body["metadata"]["name"].startswith("server.")
    assert body["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "team",
        "name": "server",
        "uid": "uid-1",
    }
    assert (body["type"], body["reason"], body["count"]) == ("Warning", "WaitingForModel", 1)
    assert body["message"] == "llama: 50 %"
    assert body["source"] == {"component": "localmodel.serving.kserve.io/agent", "host": "node-1"}
    assert body["firstTimestamp"] == body["lastTimestamp"]


def test_progress_is_told_by_the_same_event(fake: EventServer, writer: PodWriter) -> None:
    for event in (HALF, THERE, MORE):
        writer.tell(event)
    name = fake.next()[2]["metadata"]["name"]
    assert fake.next()[2]["reason"] == "ModelCached"
    method, path, body = fake.next()
    assert (method, path) == ("PATCH", f"{EVENTS}/{name}")
    assert (body["count"], body["message"]) == (2, "llama: 75 %")
    assert body["lastTimestamp"].endswith("Z")
    # Another pod of the name has its own.
    writer.tell(replace(HALF, pod=replace(POD, uid="uid-2")))
    assert fake.next()[0] == "POST"


def test_an_event_that_has_expired_is_written_anew(fake: EventServer, writer: PodWriter) -> None:
    writer.tell(HALF)
    assert fake.next()[0] == "POST"
    fake.answer(404)
    writer.tell(MORE)
    assert [fake.next()[0], fake.next()[0]] == ["PATCH", "POST"]


def test_a_pod_is_annotated(fake: EventServer, writer: PodWriter) -> None:
    writer.cached(POD)
    method, path, body = fake.next()
    assert (method, path) == ("PATCH", "/api/v1/namespaces/team/pods/server")
    (annotation,) = body["metadata"]["annotations"].items()
    assert annotation[0] == "localmodel.serving.kserve.io/cached-at"
    assert annotation[1].endswith("Z")
    # Another pod of the name is none that waits.
    assert body["metadata"]["uid"] == "uid-1"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(fake: EventServer, writer: PodWriter, status: int) -> None:
    fake.answer(status, status)
    writer.cached(POD)
    assert [fake.next()[0] for _ in range(3)] == ["PATCH"] * 3


def test_a_webhook_that_hangs_holds_up_no_other_pod(
    fake: EventServer, server: Server, writer: PodWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_api, "CALL_TIMEOUT", (30.0, 1.0))
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.5)
    is_over = threading.Event()

    def answer(handler: Handler, path: str) -> None:
        if path.endswith("/bad"):
            is_over.wait(30)
        fake(handler, path)

    server.answer = answer
    with capture_logs() as logs:
        for name in ("bad", "a", "b"):
            writer.cached(replace(POD, name=name))
        assert [fake.next()[1].rpartition("/")[2] for _ in range(2)] == ["a", "b"]
        line = dropped_line(logs)
    is_over.set()
    assert (line["event"], line["firstDropped"]) == ("Could not annotate pods", "team/bad")


@pytest.mark.parametrize("status", [404, 409, 410])
def test_a_pod_that_is_gone_is_left(fake: EventServer, writer: PodWriter, status: int) -> None:
    with capture_logs() as logs:
        fake.answer(status)
        writer.cached(POD)
        writer.cached(replace(POD, name="next"))
        assert [fake.next()[1].rpartition("/")[2] for _ in range(2)] == ["server", "next"]
        fake.answer(status)
        writer.tell(HALF)
        writer.tell(THERE)
        assert fake.reasons(2) == ["WaitingForModel", "ModelCached"]
    assert logs == []


def test_the_missing_right_is_named_once(fake: EventServer, writer: PodWriter) -> None:
    with capture_logs() as logs:
        fake.answer(*[403] * 6)
        writer.cached(POD)
        for _ in range(3):
            fake.next()
        line = dropped_line(logs)
        writer.cached(POD)
        for _ in range(3):
            fake.next()
    assert len(logs) == 1
    assert "needs the verb patch on pods" in line["event"]
    with capture_logs() as logs:
        fake.answer(*[403] * 3)
        writer.tell(HALF)
        for _ in range(3):
            fake.next()
        assert "on events of the core group" in dropped_line(logs)["event"]


def test_of_few_events_is_known_that_they_were_told(
    fake: EventServer, writer: PodWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_series, "MAX_SERIES", 3)
    for number in range(10):
        writer.tell(replace(HALF, series=str(number)))
        fake.next()
    assert len(writer._series) <= 3


def test_it_does_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 600.0)
    config = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    writer = PodWriter("node-1", connect(config))
    for number in range(3 * outbox.QUEUE_ITEMS):
        writer.cached(replace(POD, name=str(number)))
        writer.tell(replace(HALF, series=str(number)))
    assert writer._annotations._queue.full()
    assert writer._events._queue.full()
