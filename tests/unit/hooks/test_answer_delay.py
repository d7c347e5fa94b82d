"""A large group's answers are delayed unless urgent, and never repeat an outdated status."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from hooks.answer_delay import LARGE, SECONDS_FOR_EACH_COPY, SECONDS_MAX, delayed, is_large
from hooks.app import create_app
from hooks.envelope import CompositeResponse
from hooks.settings import Settings
from tests.unit.hooks.fleet import GROUP, Fleet, kind

if TYPE_CHECKING:
    from datetime import datetime

# The fixture lets a hundred nodes join.
pytestmark = pytest.mark.timeout(60)

NODES, MODELS = 100, 50
WAIT = NODES * MODELS * SECONDS_FOR_EACH_COPY


@pytest.fixture(scope="module")
def downloading() -> Fleet:
    """A group whose 5,000 copies are downloading."""
    fleet = Fleet({"download": {"maxConcurrentNodes": "100%"}})
    fleet.add(*(f"model-{number}" for number in range(MODELS)))
    fleet.join(*(f"node-{number:03d}" for number in range(NODES)))
    fleet.run(4, step=1)
    for name in fleet.nodes:
        fleet.report(name, **dict.fromkeys(fleet.caches, "Downloading"))
    fleet.run(4, step=1)
    return fleet


def _ask(fleet: Fleet, now: datetime, **parent: Any) -> tuple[dict[str, Any], float]:
    """The answer of the group's hook, and its delay."""
    waited: list[float] = []
    client = create_app(Settings(), clock=lambda: now, sleep=waited.append).test_client()
    request = {
        "parent": fleet.group | parent,
        "children": {kind("LocalModelPlacement"): {GROUP: fleet.plan}, "PersistentVolume.v1": {}},
        "related": {
            kind("LocalModelCache"): fleet.caches,
            kind("LocalModelNamespaceCache"): {},
            kind("LocalModelNode"): fleet.local_nodes,
        },
        "finalizing": False,
    }
    response = client.post("/nodegroups/sync", data=json.dumps(request))
    assert response.status_code == 200, response.text
    return response.get_json(), sum(waited)


def _with(fleet: Fleet, node: str, **states: str) -> Fleet:
    other = copy.copy(fleet)
    other.local_nodes = copy.deepcopy(fleet.local_nodes)
    other.stale = set()
    other.report(node, **states)
    return other


def test_waiting_grows_with_the_copies_up_to_a_bound() -> None:
    assert not is_large(LARGE - 1)
    assert is_large(LARGE)
    assert delayed(CompositeResponse(status={}), 10_000).seconds == 10_000 * SECONDS_FOR_EACH_COPY
    assert delayed(CompositeResponse(status={}), 1_000_000).seconds == SECONDS_MAX


def test_it_waits_no_longer_than_it_would_ask_to_be_called() -> None:
    answer = delayed(CompositeResponse(status={}, resync_after_seconds=0.5), 1_000_000)
    assert answer.seconds == 0.5
    assert answer.response.resync_after_seconds == 0.05
    answer = delayed(CompositeResponse(status={}, resync_after_seconds=5.0), 50_000)
    assert (answer.seconds, answer.response.resync_after_seconds) == (3.0, 2.0)


def test_an_answer_that_changes_a_count_waits(downloading: Fleet) -> None:
    _, nothing = _ask(downloading, downloading.now)
    fleet = _with(downloading, "node-007", **{"model-3": "Downloaded"})
    answer, waited = _ask(fleet, fleet.now + timedelta(seconds=0.1))
    assert nothing == waited == pytest.approx(WAIT)
    assert "1 of 5000 copies available" in answer["status"]["conditions"][0]["message"]


def test_a_small_group_does_not_wait() -> None:
    fleet = Fleet()
    fleet.add("llama")
    fleet.join("node-1")
    fleet.run(4)
    _, waited = _ask(fleet, fleet.now)
    assert waited == 0


def test_a_plan_that_changed_does_not_wait(downloading: Fleet) -> None:
    fleet = copy.copy(downloading)
    fleet.caches = dict(downloading.caches)
    fleet.add("one-more")
    answer, waited = _ask(fleet, fleet.now)
    assert waited == 0
    (plan,) = answer["children"]
    assert len(plan["spec"]["models"]) == MODELS + 1


def test_the_last_change_does_not_wait(downloading: Fleet) -> None:
    fleet = copy.copy(downloading)
    fleet.local_nodes = copy.deepcopy(downloading.local_nodes)
    for name in fleet.nodes:
        fleet.report(name, **dict.fromkeys(fleet.caches, "Downloaded"))
    answer, waited = _ask(fleet, fleet.now)
    assert waited == 0
    assert "5000 of 5000 copies" in answer["status"]["conditions"][0]["message"]


def test_pods_that_come_and_go_do_not_hurry_an_answer(downloading: Fleet) -> None:
    """Otherwise each pod of a fleet at rest would be a write, and call the hooks of all caches."""
    fleet = copy.copy(downloading)
    fleet.local_nodes = copy.deepcopy(downloading.local_nodes)
    for name in fleet.nodes:
        fleet.report(name, **dict.fromkeys(fleet.caches, "Downloaded"))
    at_rest, _ = _ask(fleet, fleet.now)
    fleet.group = fleet.group | {"status": at_rest["status"] | {"observedGeneration": 1}}
    _, unchanged = _ask(fleet, fleet.now)
    fleet.local_nodes["node-007"]["status"]["models"][3]["pods"] = 2
    answer, waited = _ask(fleet, fleet.now + timedelta(seconds=10))
    assert unchanged == waited == pytest.approx(WAIT)
    assert sum(model.get("pods", 0) for model in answer["status"]["models"]) == 2
    # With anything else that changes, it is as urgent as that.
    fleet.report("node-008", **dict.fromkeys(fleet.caches, "Failed"))
    _, waited = _ask(fleet, fleet.now + timedelta(seconds=20))
    assert waited == 0


def test_a_status_that_is_old_by_now_is_not_written_back(downloading: Fleet) -> None:
    """Metacontroller sends objects of its cache, and overwrites the stored status."""
    old = downloading.group["status"]
    fleet = _with(downloading, "node-007", **{"model-3": "Downloaded"})
    first, _ = _ask(fleet, fleet.now + timedelta(seconds=0.1), status=old)
    fleet = _with(fleet, "node-008", **{"model-3": "Downloaded"})
    second, _ = _ask(fleet, fleet.now + timedelta(seconds=0.4), status=old)
    counts = [one["status"]["conditions"][0]["message"] for one in (first, second)]
    assert "1 of 5000 copies" in counts[0]
    assert "2 of 5000 copies" in counts[1]
