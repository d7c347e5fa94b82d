"""A cache with pvcRef belongs to KServe: localmodel makes nothing, and KServe's status stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hooks.app import create_app
from hooks.settings import Settings
from tests.unit.hooks.test_unreadable import _cache, _group_request, _plan_of

NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
Object = dict[str, Any]
CLIENT = create_app(Settings(), clock=lambda: NOW, sleep=lambda _: None).test_client()

# What services, and programs that wait, rely on: KServe's pkg/apis/serving/v1alpha1.
CONTRACT = (
    ("False", "PVCNotFound"),
    ("False", "UnsupportedVolumeMode"),
    ("False", "UnsupportedAccessMode"),
    ("False", "InsufficientCapacity"),
    ("False", "DestinationConflict"),
    ("False", "ImportPending"),
    ("False", "ImportRunning"),
    ("False", "ImportFailed"),
    ("False", "ImportJobConflict"),
    ("False", "ImportCredentialError"),
    ("False", "ReimportBlocked"),
    ("True", "ImportSucceeded"),
    ("Unknown", "WordOfANewerVersion"),
)


def _shared(name: str = "shared", namespace: str = "team-a", **spec: Any) -> Object:
    return _cache(name, namespace, **{"nodeGroup": None, "pvcRef": "shared-models"} | spec)


def _call(path: str, request: Object) -> Object:
    response = CLIENT.post(path, json=request)
    assert response.status_code == 200, response.text
    answer: Object = json.loads(response.text)
    return answer


def _sync(parent: Object, children: Object | None = None) -> Object:
    made = {"PersistentVolumeClaim.v1": children or {}}
    request = {"parent": parent, "children": made, "related": {}, "finalizing": False}
    return _call("/namespace-caches/sync", request)


def _conditions(answer: Object) -> dict[str, Object]:
    return {one["type"]: one for one in answer["status"]["conditions"]}


@pytest.mark.parametrize(("status", "reason"), CONTRACT)
@pytest.mark.parametrize("ours_first", [True, False])
def test_what_kserve_says_stays_as_it_is(status: str, reason: str, ours_first: bool) -> None:
    ready = {
        "type": "Ready",
        "status": status,
        "observedGeneration": 2,
        "lastTransitionTime": "2026-11-24T03:40:00Z",
        "reason": reason,
        "message": "KServe's own words",
    }
    other = ready | {"type": "ImportedFromMirror", "extra": {"of": "a newer version"}}
    admitted = _conditions(_sync(_shared()))["Admitted"]
    listed = [admitted, ready, other] if ours_first else [other, ready]
    stored = {
        "observedGeneration": -1,
        "conditions": listed,
        "copies": {"total": 1},
        "inferenceServices": [{"namespace": "team-a", "name": "chat"}],
        "sharedPVCImport": {"pvcUID": "u", "completionTime": "2026-11-24T03:40:00Z", "bytes": 5},
        "ofANewerVersion": [1, {"a": None}],
    }
    answer = _sync(_shared() | {"status": stored})
    told = answer["status"]
    assert told["conditions"] == ([*listed] if ours_first else [*listed, admitted])
    rest = {name: value for name, value in stored.items() if name != "observedGeneration"}
    assert told | {"conditions": listed} == rest
    assert answer["children"] == []


def test_localmodel_alone_says_what_to_do() -> None:
    told = _conditions(_sync(_shared()))
    assert set(told) == {"Admitted", "Ready"}
    for one in told.values():
        assert (one["status"], one["reason"]) == ("False", "ImportedByKServe")
        for word in ("KServe", "'shared-models'", "nodeGroups", "pvc://shared-models/"):
            assert word in one["message"]


def test_what_localmodel_says_is_written_once_and_gives_way() -> None:
    parent = _shared()
    first = _sync(parent)["status"]
    parent["status"] = first | {"observedGeneration": 3}
    later = create_app(Settings(), clock=lambda: NOW + timedelta(hours=1)).test_client()
    request = {"parent": parent, "children": {}, "related": {}, "finalizing": False}
    assert json.loads(later.post("/namespace-caches/sync", json=request).text)["status"] == first
    # KServe's controller updates conditions by type, in place.
    for one in first["conditions"]:
        if one["type"] == "Ready":
            one |= {"status": "True", "reason": "ImportSucceeded", "message": "done"}
    parent["status"] = first
    assert _sync(parent)["status"] == first


def test_a_cache_that_cannot_be_read_is_kserves_all_the_same() -> None:
    parent = _shared(modelSize="1e100", priority="high")
    parent["metadata"].pop("generation")
    parent["status"] = {"conditions": "none"}
    assert set(_conditions(_sync(parent))) == {"Admitted", "Ready"}
    assert _call("/namespace-caches/customize", {"parent": parent})["relatedResources"] == []
    parent["spec"]["pvcRef"] = {"name": "c" * 50_000}
    for one in _conditions(_sync(parent)).values():
        assert len(one["message"]) < 1024


def test_its_deletion_waits_for_claims_of_its_own_alone() -> None:
    parent = _shared()
    parent["metadata"]["deletionTimestamp"] = "2026-11-24T03:59:00Z"
    request = {"parent": parent, "related": {}, "finalizing": True}
    claims: Object = {"team-a/shared-gpu": {"metadata": {"name": "shared-gpu"}}}
    for made, done in (({}, True), ({"PersistentVolumeClaim.v1": claims}, False)):
        answer = _call("/namespace-caches/finalize", request | {"children": made})
        assert (answer["finalized"], answer["children"]) == (done, [])


@pytest.mark.parametrize(
    "spec",
    [{}, {"modelSize": "1e100"}, {"nodeGroup": "gpu"}, {"nodeGroups": ["gpu"], "priority": "high"}],
    ids=["good", "unreadable", "both", "both-unreadable"],
)
def test_no_group_counts_it(spec: Object) -> None:
    """The plan, its room, the volumes and the owners of the folder do not include such a cache."""
    of_others = _cache("llama", "team-b", sourceModelUri="s3://models/same")
    before = _call("/nodegroups/sync", _group_request(of_others))
    shared = _shared(sourceModelUri="s3://models/same", **spec)
    # Nor does a stored entry from a time when the cache named the group stay.
    plan = _plan_of(
        _call("/nodegroups/sync", _group_request(of_others, _cache("shared", "team-a")))
    )
    assert {m["modelName"] for m in plan["spec"]["models"]} >= {"llama", "shared"}
    answer = _call("/nodegroups/sync", _group_request(of_others, shared))
    assert answer == before
    after = _call("/nodegroups/sync", _group_request(of_others, shared, plan=plan))
    assert "shared" not in json.dumps(after)


def test_the_field_counts_for_caches_of_namespaces_alone() -> None:
    """The API server drops the field from a LocalModelCache, as with KServe's CRD."""
    plain = _call("/nodegroups/sync", _group_request(_cache("odd")))
    odd = _cache("odd", pvcRef="shared-models")
    assert _call("/nodegroups/sync", _group_request(odd)) == plain
    related = _call("/caches/customize", {"parent": odd})["relatedResources"]
    assert related[0]["names"] == ["gpu"]
