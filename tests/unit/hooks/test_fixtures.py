"""What the hooks answer to the cases in tests/fixtures, compared as whole objects.

To add a case, write `from:` and what differs in the request into a new file, run
`pytest tests/unit/hooks/test_fixtures.py --update-golden`, and read the answer that it adds.
`python -m tests.fixtures --show <controller>/<hook>/<case>` prints the whole of a case.
"""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hooks.app import create_app
from hooks.settings import Settings
from tests.fixtures import CASES, Case, load
from tests.schemas import check_part, crd_schemas

NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)

# What Metacontroller decodes strictly under hook version v2.
FIELDS = {
    "customize": {"relatedResources"},
    "sync": {"status", "children", "resyncAfterSeconds"},
    "finalize": {"status", "children", "resyncAfterSeconds", "finalized"},
    "nodes/sync": {"labels", "attachments"},
}
CHILD_KINDS = {
    "nodegroups": {"LocalModelPlacement", "PersistentVolume"},
    "nodes": {"LocalModelNode"},
    "caches": {"PersistentVolume", "PersistentVolumeClaim"},
    "namespace-caches": {"PersistentVolumeClaim"},
}


def _call(case: Case, request: dict[str, Any], now: datetime = NOW) -> dict[str, Any]:
    client = create_app(Settings.from_environment(case.settings), clock=lambda: now).test_client()
    response = client.post(f"/{case.path}", json=request)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = json.loads(response.text)
    return answer


@pytest.fixture(params=CASES.names)
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)


def test_there_are_cases_for_every_hook() -> None:
    assert {load(name).path for name in CASES.names} == {
        "caches/customize",
        "caches/finalize",
        "caches/sync",
        "namespace-caches/customize",
        "namespace-caches/finalize",
        "namespace-caches/sync",
        "nodegroups/customize",
        "nodegroups/finalize",
        "nodegroups/sync",
        "nodes/customize",
        "nodes/sync",
    }


def test_the_hook_answers_as_recorded(case: Case, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--update-golden"):
        for name in (*CASES.bases(case.name), case.name):
            CASES.update(name, _call(load(name), load(name).request))
    answer = _call(case, case.request)
    assert answer == CASES.answer(case.name)


def test_the_answer_is_what_metacontroller_and_the_api_server_take(case: Case) -> None:
    controller, _, hook = case.path.partition("/")
    request = case.request
    answer = _call(case, request)
    allowed = FIELDS.get(case.path) or FIELDS[hook]
    assert set(answer) <= allowed
    if "status" in answer:
        check_part(request["parent"]["kind"], "status", answer["status"])
    for child in (*answer.get("children", ()), *answer.get("attachments", ())):
        assert child["kind"] in CHILD_KINDS[controller]
        if child["kind"] in crd_schemas():
            check_part(child["kind"], "spec", child["spec"])


def test_the_answer_to_the_answer_is_the_same(case: Case) -> None:
    """Otherwise the hook would make work for itself for ever.

    An hour later, so that an answer that holds the time would differ.
    """
    request = case.request
    answer = _call(case, request)
    again = _after(request, answer)
    if answer.get("resyncAfterSeconds") is not None:
        # It asked to be called again: for what it held back, or to see a deletion end.
        assert _call(case, again) == answer
        return
    later = _call(case, again, NOW + timedelta(hours=1))
    if any("annotations" in a["metadata"] for a in answer.get("attachments", ())):
        # What somebody changed is put right by one more answer.
        answer, later = later, _call(case, _after(again, later), NOW + timedelta(hours=2))
    assert later == answer


def _after(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The request that follows when the answer has been carried out."""
    after = copy.deepcopy(request)
    if "status" in answer:
        after["parent"]["status"] = answer["status"] | {"observedGeneration": 1}
    for attachment in answer.get("attachments", ()):
        name = attachment["metadata"]["name"]
        group = after["attachments"]["LocalModelNode.serving.kserve.io/v1alpha1"]
        seen = group.get(name, {})
        group[name] = seen | {
            "apiVersion": attachment["apiVersion"],
            "kind": attachment["kind"],
            "metadata": seen.get("metadata", {}) | attachment["metadata"],
            "spec": attachment["spec"],
        }
    return after


PLACEMENTS = "LocalModelPlacement.serving.kserve.io/v1alpha1"


PLANS = [name for name in CASES.names if name.startswith("nodegroups/sync/")]


@pytest.mark.parametrize("case", PLANS, indirect=True)
@pytest.mark.parametrize("told", [True, False], ids=["status-is-written", "status-is-not-yet"])
def test_a_plan_that_is_written_stays_as_it_is(case: Case, told: bool) -> None:
    request = case.request
    answer = _call(case, request)
    again = _after(request, answer) if told else copy.deepcopy(request)
    (plan,) = (c for c in answer["children"] if c["kind"] == "LocalModelPlacement")
    again["children"][PLACEMENTS] = {plan["metadata"]["name"]: plan}
    assert _call(case, again)["children"] == answer["children"]
