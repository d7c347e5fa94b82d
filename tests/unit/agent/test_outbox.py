"""What becomes of writes that the API server refuses, or does not answer."""

from __future__ import annotations

import json
import queue
import threading

import pytest
import urllib3
from kubernetes.client.exceptions import ApiException
from structlog.testing import capture_logs

from agent.cluster import outbox
from agent.cluster.outbox import QUEUE_ITEMS, TRIES, Outbox
from tests.unit.agent.helpers import dropped_line

RIGHT = 'pods "bad" is forbidden: User "agent" cannot patch resource "pods" in API group ""'
WEBHOOK = 'admission webhook "team.example.com" denied the request: no annotations here'


class Api:
    """Takes writes one by one: those of an item with errors fail with the next of them."""

    def __init__(self, **errors: list[Exception]) -> None:
        self.errors = errors
        self.tried: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.is_open = threading.Event()
        self.is_open.set()

    def write(self, item: str) -> None:
        self.tried.put(item)
        assert self.is_open.wait(30)
        if self.errors.get(item):
            raise self.errors[item].pop(0)

    def next(self, count: int) -> list[str]:
        return [self.tried.get(timeout=30) for _ in range(count)]


def refused(status: int, message: str = "") -> ApiException:
    error = ApiException(status=status, reason="Refused")
    if message:
        error.body = json.dumps({"kind": "Status", "message": message})
    return error


def outbox_of(api: Api) -> Outbox[str]:
    return Outbox("test", api.write, forbidden="It needs a right", failed="Could not write")


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_refused_item_holds_up_no_other(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 600.0)
    api = Api(bad=[refused(status)])
    box = outbox_of(api)
    for item in ("bad", "a", "b"):
        box.put(item)
    assert api.next(3) == ["bad", "a", "b"]


@pytest.mark.parametrize("status", [403, 422, 429, 500])
def test_a_refused_item_is_dropped_alone(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.01)
    tries = 1 if status == 422 else TRIES
    api = Api(bad=[refused(status) for _ in range(tries)])
    api.is_open.clear()
    box = outbox_of(api)
    with capture_logs() as logs:
        for item in ("bad", *map(str, range(50))):
            box.put(item)
        api.is_open.set()
        tried = api.next(50 + tries)
        line = dropped_line(logs)
    assert tried.count("bad") == tries
    assert [item for item in tried if item != "bad"] == list(map(str, range(50)))
    assert (line["dropped"], line["firstDropped"]) == (1, "bad")


@pytest.mark.parametrize(
    ("message", "event"),
    [("", "It needs a right"), (RIGHT, "It needs a right"), (WEBHOOK, "Could not write")],
)
def test_a_403_is_reported_with_its_cause(
    message: str, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.01)
    api = Api(bad=[refused(403, message) for _ in range(TRIES)])
    with capture_logs() as logs:
        outbox_of(api).put("bad")
        line = dropped_line(logs)
    assert (line["event"], line["firstDropped"]) == (event, "bad")
    assert line.get("message", "") == message


def test_the_queue_is_dropped_if_the_api_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.01)
    api = Api(bad=[urllib3.exceptions.HTTPError() for _ in range(TRIES)])
    api.is_open.clear()
    box = outbox_of(api)
    with capture_logs() as logs:
        for item in ("bad", "a", "b"):
            box.put(item)
        api.is_open.set()
        assert dropped_line(logs)["dropped"] == 3
    box.put("c")
    assert api.next(TRIES + 1) == [*["bad"] * TRIES, "c"]


def test_a_full_queue_is_reported_once() -> None:
    api = Api()
    api.is_open.clear()
    box = outbox_of(api)
    box.put("first")
    assert api.next(1) == ["first"]
    with capture_logs() as logs:
        for number in range(QUEUE_ITEMS + 3):
            box.put(str(number))
    (line,) = logs
    assert line["log_level"] == "warning"
    assert (line["queue"], line["firstDropped"]) == ("test", str(QUEUE_ITEMS))
    api.is_open.set()
    assert api.next(QUEUE_ITEMS) == list(map(str, range(QUEUE_ITEMS)))
