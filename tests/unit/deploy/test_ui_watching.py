"""The threads that bring the cluster to the page go on after an error, and say so."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from deploy.kubectl.details import NO_DETAILS
from deploy.kubectl.snapshot import Snapshot, snapshot_of
from deploy.kubectl.ui import watching as module
from deploy.kubectl.ui.explaining import Explaining
from deploy.kubectl.ui.facts import Place
from deploy.kubectl.ui.feed import Feed, Health
from deploy.kubectl.ui.watching import Watching
from tests.unit.deploy.ui_objects import cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.kube.client import KubeClient
    from deploy.kubectl.follow import Follower

SECONDS = 30.0


class Changes:
    """A follower whose snapshots and changes a test gives."""

    trouble = ""

    def __init__(self) -> None:
        self.current = snapshot_of(cluster(2), at=datetime.now(tz=UTC))
        self.count = 0
        self.changed = threading.Condition()

    def snapshot(self) -> Snapshot:
        return self.current

    def change(self, snapshot: Snapshot) -> None:
        with self.changed:
            self.current = snapshot
            self.count += 1
            self.changed.notify_all()

    def wait(self, seen: int, seconds: float) -> int:
        with self.changed:
            self.changed.wait_for(lambda: self.count != seen, seconds)
            return self.count

    def close(self) -> None:
        pass


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def feed(changes: Changes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(module, "server_time", lambda _: None)
    made = Feed("test")
    watching = Watching(cast("KubeClient", None), cast("Follower", changes), made, "test")
    watching.start()
    yield made
    watching.stop()


def until(feed: Feed, state: str) -> str:
    """Wait until the feed reports a state. Returns its first error."""
    reader = feed.reader()
    while True:
        events = feed.wait(reader, SECONDS)
        assert events is not None
        health = [one.data for one in events if one.name == "health"]
        if health and f'"state":"{state}"'.encode() in health[-1]:
            return health[-1].decode()


def test_an_object_that_cannot_be_shown_is_reported_and_later_changes_are_shown(
    changes: Changes, feed: Feed
) -> None:
    good = changes.current
    bad = snapshot_of(
        cluster(1)
        | {"LocalModelNode": [{"metadata": {"name": "node-1"}, "status": {"models": 5}}]},
        at=good.at,
    )
    changes.change(bad)
    assert "TypeError" in until(feed, "broken")
    assert feed.snapshot.local_model_nodes == good.local_model_nodes
    changes.change(snapshot_of(cluster(3), at=good.at))
    until(feed, "live")
    assert len(feed.snapshot.local_model_nodes) == 3


def test_an_unexpected_answer_about_the_time_is_reported(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_: object) -> None:
        raise ValueError("no date")

    monkeypatch.setattr(module, "server_time", wrong)
    assert "no date" in until(feed, "broken")
    monkeypatch.setattr(module, "server_time", lambda _: None)
    until(feed, "live")


def test_what_is_overdue_shows_although_nothing_changes() -> None:
    objects = cluster(2)
    unanswered = objects["LocalModelCache"][0]
    now = datetime.now(tz=UTC).isoformat(timespec="seconds")
    unanswered["metadata"] |= {"generation": 2, "creationTimestamp": now}
    feed = Feed("test")
    feed.publish(snapshot_of(objects, at=datetime.now(tz=UTC)))
    feed.report(Health("test", "live"))
    explaining = Explaining(cast("KubeClient", None), feed)
    name = unanswered["metadata"]["name"]

    def reason() -> str:
        links = explaining.explain({"model": name})["links"]
        return next(str(link.reason) for link in links if link.name == "controller")

    explaining._kept = (Place.of({"model": name}), float("inf"), NO_DETAILS)
    assert reason() == "NotAnswered"
    feed._ahead += timedelta(seconds=240)
    assert reason() == "ControllerSilent"
    # Objects that may be old say nothing of the present.
    feed.report(Health("test", "broken"))
    assert reason() == "NotAnswered"
