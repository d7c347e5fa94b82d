"""Every folder of tests/fixtures is a case: a request, and what the hook answers to it.

tests/fixtures/<controller>/<hook>/<case>/{request,response}.json, and settings.json where the
hooks' environment has more than its defaults. To add one, add the request and run
`pytest --update-golden`, then read the response.
"""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from localmodel.hooks.app import create_app
from localmodel.hooks.settings import Settings
from tests.schemas import check_part, crd_schemas

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"
CASES = sorted(request.parent for request in FIXTURES.glob("*/*/*/request.json"))
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


def _call(case: Path, request: dict[str, Any], now: datetime = NOW) -> dict[str, Any]:
    controller, hook, _ = case.relative_to(FIXTURES).parts
    client = create_app(_settings(case), clock=lambda: now).test_client()
    response = client.post(f"/{controller}/{hook}", json=request)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = json.loads(response.text)
    return answer


def _settings(case: Path) -> Settings:
    file = case / "settings.json"
    return Settings.from_environment(json.loads(file.read_text()) if file.exists() else {})


def _request(case: Path) -> dict[str, Any]:
    request: dict[str, Any] = json.loads((case / "request.json").read_text())
    return request


@pytest.fixture(params=CASES, ids=lambda case: "/".join(case.parts[-3:]))
def case(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_are_cases_for_every_hook() -> None:
    assert {"/".join(case.parts[-3:-1]) for case in CASES} == {
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


def test_the_hook_answers_as_recorded(case: Path, pytestconfig: pytest.Config) -> None:
    answer = _call(case, _request(case))
    file = case / "response.json"
    if pytestconfig.getoption("--update-golden"):
        file.write_text(json.dumps(answer, indent=2) + "\n")
    assert answer == json.loads(file.read_text())


def test_the_answer_is_what_metacontroller_and_the_api_server_take(case: Path) -> None:
    controller, hook, _ = case.relative_to(FIXTURES).parts
    request = _request(case)
    answer = _call(case, request)
    allowed = FIELDS.get(f"{controller}/{hook}") or FIELDS[hook]
    assert set(answer) <= allowed
    if "status" in answer:
        check_part(request["parent"]["kind"], "status", answer["status"])
    for child in (*answer.get("children", ()), *answer.get("attachments", ())):
        assert child["kind"] in CHILD_KINDS[controller]
        if child["kind"] in crd_schemas():
            check_part(child["kind"], "spec", child["spec"])


def test_the_answer_to_the_answer_is_the_same(case: Path) -> None:
    """Otherwise the hook would make work for itself for ever.

    An hour later, so that an answer that holds the time would differ.
    """
    request = _request(case)
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


PLANS = [case for case in CASES if case.match("nodegroups/sync/*")]


@pytest.mark.parametrize("case", PLANS, ids=lambda case: case.name)
@pytest.mark.parametrize("told", [True, False], ids=["status-is-written", "status-is-not-yet"])
def test_a_plan_that_is_written_stays_as_it_is(case: Path, told: bool) -> None:
    request = _request(case)
    answer = _call(case, request)
    again = _after(request, answer) if told else copy.deepcopy(request)
    (plan,) = (c for c in answer["children"] if c["kind"] == "LocalModelPlacement")
    again["children"][PLACEMENTS] = {plan["metadata"]["name"]: plan}
    assert _call(case, again)["children"] == answer["children"]
