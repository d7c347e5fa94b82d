"""A new group is not Ready before its nodes have joined, and is soon after."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from hooks.app import create_app
from hooks.group_status import FINDING_INTERVAL, SETTLE, WATCHED
from hooks.settings import Settings
from tests.fixtures import load

if TYPE_CHECKING:
    from flask.testing import FlaskClient

NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
NODES = "LocalModelNode.serving.kserve.io/v1alpha1"
PLACEMENTS = "LocalModelPlacement.serving.kserve.io/v1alpha1"
LIMIT = SETTLE + FINDING_INTERVAL


def _fixture(case: str) -> dict[str, Any]:
    return load(f"nodegroups/sync/{case}").request


@dataclass
class Group:
    """A group on a simulated cluster, whose hook is called by events and resyncs."""

    request: dict[str, Any] = field(default_factory=lambda: _fixture("new-group-without-a-plan"))
    at: timedelta = timedelta(0)
    due: timedelta | None = None
    writes: int = 0
    # How far the hooks' clock is ahead.
    skew: timedelta = timedelta(0)

    @cached_property
    def _client(self) -> FlaskClient:
        # One for all calls: to make an app takes longer than a call.
        return create_app(Settings(), clock=lambda: NOW + self.at + self.skew).test_client()

    def sync(self) -> None:
        answer = self._client.post("/nodegroups/sync", json=self.request).get_json()
        status = answer["status"] | {"observedGeneration": 1}
        self.writes += status != self.request["parent"]["status"]
        self.request["parent"]["status"] = status
        (plan,) = answer["children"]
        self.request["children"][PLACEMENTS] = {plan["metadata"]["name"]: plan}
        after = answer["resyncAfterSeconds"]
        self.due = None if after is None else self.at + timedelta(seconds=after)

    def run(self, until: timedelta) -> None:
        """Advance the clock, with the requested resyncs."""
        while self.due is not None and self.due <= until:
            self.at = self.due
            self.sync()
        self.at = until

    def join(self, *names: str) -> None:
        node = _fixture("all-available")["related"][NODES]["node-1"]
        for name in names:
            metadata = node["metadata"] | {"name": name}
            self.request["related"][NODES][name] = node | {"metadata": metadata}
        self.sync()

    def change(self, **spec: Any) -> None:
        self.request["parent"]["metadata"]["generation"] += 1
        self.request["parent"]["spec"].update(spec)
        self.sync()

    @property
    def ready(self) -> dict[str, Any]:
        (condition,) = self.request["parent"]["status"]["conditions"]
        return dict(condition)

    def run_until_ready(self) -> timedelta:
        """Time until Ready is True."""
        start = self.at
        while self.ready["status"] != "True":
            assert self.due is not None, self.ready
            self.run(self.due)
        return self.at - start


@pytest.mark.parametrize("gap", [0.0, 0.01, 0.3, 0.7, 1.9])
@pytest.mark.parametrize("skew", [timedelta(0), timedelta(hours=1), timedelta(hours=-1)])
def test_nodes_that_join_one_after_the_other(gap: float, skew: timedelta) -> None:
    group = Group(skew=skew)
    group.sync()
    assert group.ready["reason"] == "FindingNodes"
    for number in range(5):
        group.run(timedelta(seconds=0.1 + number * gap))
        group.join(f"node-{number}")
        assert group.ready["status"] == "False"
    assert SETTLE <= group.run_until_ready() <= LIMIT
    assert group.ready["message"] == "5 nodes, 1 model, 5 of 5 copies available"
    assert group.due is None


def test_many_nodes_are_few_writes() -> None:
    group = Group()
    group.sync()
    for number in range(100):
        group.run(timedelta(seconds=0.1 + number * 0.02))
        group.join(f"node-{number}")
    group.run_until_ready()
    assert group.writes <= 7


def test_a_group_whose_first_node_comes_late() -> None:
    group = Group()
    group.sync()
    group.sync()
    group.run(SETTLE + FINDING_INTERVAL)
    assert group.ready["reason"] == "NoNodes"
    assert group.due is None
    group.run(timedelta(minutes=1))
    group.join("node-1")
    assert group.ready["reason"] == "FindingNodes"
    assert group.run_until_ready() == SETTLE


def test_a_node_that_joins_later_and_a_plan_that_is_missing_take_ready_not_away() -> None:
    group = Group()
    group.sync()
    group.join("node-1")
    group.run_until_ready()
    group.join("node-2")
    group.run(group.at + SETTLE)
    assert group.ready["message"].startswith("2 nodes")
    group.request["children"][PLACEMENTS] = {}
    group.run(group.at + timedelta(minutes=1))
    group.sync()
    assert group.ready["status"] == "True"


KSERVE_FORM = _fixture("kserve-form")["parent"]["spec"]


def test_the_plan_of_kserves_form_is_known_again() -> None:
    group = Group()
    group.request["parent"]["spec"] = KSERVE_FORM
    group.sync()
    group.join("node-1")
    assert group.run_until_ready() <= LIMIT


def test_after_a_change_of_the_selector_nodes_are_found_again() -> None:
    group = Group()
    group.sync()
    group.join("node-1")
    group.run_until_ready()
    before = group.request["parent"]["status"]
    group.change(nodeSelector={"pool": "other"})
    assert group.ready["reason"] == "PlanPending"
    # Metacontroller's cache may lag: it has the plan, and not yet our status.
    group.request["parent"]["status"] = before
    group.sync()
    assert group.ready["reason"] == "FindingNodes"
    assert group.run_until_ready() <= LIMIT


def test_time_that_nobody_watched_does_not_count() -> None:
    group = Group()
    group.sync()
    group.join("node-1")
    group.run(FINDING_INTERVAL)
    group.at += WATCHED + timedelta(seconds=1)
    group.sync()
    assert group.ready["reason"] == "FindingNodes"
    assert group.run_until_ready() == SETTLE


def test_a_slow_hook_is_not_one_that_is_away() -> None:
    group = Group()
    group.sync()
    group.join("node-1")
    group.run(FINDING_INTERVAL)
    group.at += WATCHED
    group.sync()
    assert group.ready["status"] == "True"
