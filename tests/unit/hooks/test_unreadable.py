"""An unreadable object stops no other; its conditions say so, and its copies and claims stay."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crds.base import API_VERSION
from hooks.app import create_app
from hooks.settings import Settings
from tests.fixtures import load

NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
Object = dict[str, Any]

CLIENT = create_app(Settings(), clock=lambda: NOW, sleep=lambda _: None).test_client()


def _kind(name: str) -> str:
    return f"{name}.{API_VERSION}"


def _call(path: str, request: Object) -> Object:
    response = CLIENT.post(path, json=request)
    assert response.status_code == 200, response.text
    answer: Object = json.loads(response.text)
    return answer


def _cache(name: str, namespace: str = "", **spec: Any) -> Object:
    kind = "LocalModelNamespaceCache" if namespace else "LocalModelCache"
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name,
            "uid": f"uid-{namespace}-{name}",
            "generation": 3,
            "creationTimestamp": "2026-11-24T03:00:00Z",
            **({"namespace": namespace} if namespace else {}),
        },
        "spec": {
            "sourceModelUri": f"s3://models/{namespace}/{name}",
            "modelSize": "1Gi",
            "nodeGroup": "gpu",
            **spec,
        },
        "status": {"observedGeneration": -1},
    }


def _group_request(*caches: Object, plan: Object | None = None) -> Object:
    request = load("nodegroups/sync/all-available").request
    for kind in ("LocalModelCache", "LocalModelNamespaceCache"):
        request["related"].setdefault(_kind(kind), {})
    for cache in caches:
        metadata = cache["metadata"]
        key = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        request["related"][_kind(cache["kind"])][key] = cache
    if plan is not None:
        request["children"][_kind("LocalModelPlacement")] = {"gpu": plan}
    return request


def _plan_of(answer: Object) -> Object:
    plan: Object = next(c for c in answer["children"] if c["kind"] == "LocalModelPlacement")
    return plan


# Specs that were stored before our CRD had bounds, or by KServe's CRD.
BAD_SPECS = [
    {"modelSize": "1e100"},
    {"modelSize": "-1Gi"},
    {"modelSize": -1},
    {"modelSize": "huge"},
    {"sourceModelUri": "s3://" + "m" * 3000},
    {"sourceModelUri": 5},
    {"priority": "high"},
    {"priority": 2_000_000},
    {"hash": "md5:1"},
    {"serviceAccountName": "s" * 254},
    {"storage": {"parameters": {"a": 5}}},
    {"storage": "x"},
    {"retention": 1},
]


@pytest.mark.parametrize("spec", BAD_SPECS, ids=lambda spec: next(iter(spec)))
@pytest.mark.parametrize("namespace", ["", "team-a"])
def test_a_cache_that_cannot_be_read_is_left_out_and_told_of(spec: Object, namespace: str) -> None:
    good = _call("/nodegroups/sync", _group_request())
    bad = _cache("bad", namespace, **spec)
    answer = _call("/nodegroups/sync", _group_request(bad))
    assert _plan_of(answer) == _plan_of(good)
    assert answer["status"]["models"] == good["status"]["models"]
    (told,) = answer["status"]["rejected"]
    assert (told["name"], told.get("namespace", ""), told["reason"]) == (
        "bad",
        namespace,
        "InvalidSpec",
    )
    (field,) = spec
    assert field in told["message"]

    path = "/namespace-caches" if namespace else "/caches"
    request = {"parent": bad, "children": {}, "related": {}, "finalizing": False}
    assert _call(f"{path}/customize", {"parent": bad})["relatedResources"] == []
    conditions = _call(f"{path}/sync", request)["status"]["conditions"]
    assert {one["type"]: one["reason"] for one in conditions} == {
        "Ready": "InvalidSpec",
        "Admitted": "InvalidSpec",
    }
    assert all(field in one["message"] for one in conditions)


@pytest.mark.parametrize(
    "spec",
    [
        {"nodeGroup": "g" * 69},
        {"nodeGroup": None, "nodeGroups": ["gpu", "g" * 69]},
        {"nodeGroup": None, "pvcRef": "shared-models"},
    ],
)
def test_what_kserve_stores_stops_no_group(spec: Object) -> None:
    good = _plan_of(_call("/nodegroups/sync", _group_request()))["spec"]["models"]
    plan = _plan_of(_call("/nodegroups/sync", _group_request(_cache("odd", **spec))))
    assert [m for m in plan["spec"]["models"] if m["modelName"] != "odd"] == good


def test_a_cache_that_cannot_be_read_keeps_what_the_plan_has_of_it() -> None:
    bad = _cache("bad", "team-a")
    before = _plan_of(_call("/nodegroups/sync", _group_request(bad)))
    assert "bad" in {model["modelName"] for model in before["spec"]["models"]}
    bad["spec"]["modelSize"] = "1e100"
    answer = _call("/nodegroups/sync", _group_request(bad, plan=before))
    assert _plan_of(answer)["spec"] == before["spec"]
    (told,) = answer["status"]["rejected"]
    assert "what the nodes have of it stays" in told["message"]
    # The entry goes with the cache, with another group in the spec, or with another URI.
    assert "bad" not in json.dumps(_plan_of(_call("/nodegroups/sync", _group_request(plan=before))))
    for change in ({"nodeGroup": "other"}, {"sourceModelUri": "s3://other"}):
        other = copy.deepcopy(bad)
        other["spec"] |= change
        plan = _plan_of(_call("/nodegroups/sync", _group_request(other, plan=before)))
        assert "bad" not in {model["modelName"] for model in plan["spec"]["models"]}


def test_a_cache_that_cannot_be_read_keeps_its_claims_and_can_be_deleted() -> None:
    request = load("caches/sync/claims-are-bound").request
    request["parent"]["spec"]["modelSize"] = "huge"
    answer = _call("/caches/sync", request)
    there = {
        (obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace"))
        for objects in request["children"].values()
        for obj in objects.values()
    }
    assert there
    assert {
        (c["kind"], c["metadata"]["name"], c["metadata"].get("namespace"))
        for c in answer["children"]
    } == there
    going = _call("/caches/finalize", request | {"finalizing": True})
    assert (going["children"], going["finalized"]) == ([], False)
    nothing: Object = {kind: {} for kind in request["children"]}
    gone = _call("/caches/finalize", request | {"finalizing": True, "children": nothing})
    assert gone["finalized"] is True


def test_what_is_said_of_an_unreadable_cache_is_written_once() -> None:
    bad = _cache("bad", modelSize="huge")
    request = {"parent": bad, "children": {}, "related": {}, "finalizing": False}
    first = _call("/caches/sync", request)["status"]
    bad["status"] = first | {"observedGeneration": 3}
    later = create_app(Settings(), clock=lambda: NOW + timedelta(hours=1)).test_client()
    assert json.loads(later.post("/caches/sync", json=request).text)["status"] == first


def test_a_status_that_cannot_be_read_is_told_anew() -> None:
    odd = _cache("odd") | {
        "status": {
            "observedGeneration": 3,
            "size": -5,
            "progress": "all",
            "conditions": [{"type": "Ready"}, 5],
            "copies": {"available": 1 << 40},
        }
    }
    plan = _plan_of(_call("/nodegroups/sync", _group_request(odd)))
    assert "odd" in {model["modelName"] for model in plan["spec"]["models"]}
    request = load("caches/sync/pending").request
    request["parent"]["status"] = odd["status"]
    assert _call("/caches/sync", request)["status"]["copies"]["total"] > 0


def _finalize_at(now: datetime, request: Object) -> Object:
    client = create_app(Settings(), clock=lambda: now).test_client()
    answer: Object = client.post(
        "/nodegroups/finalize", json=request | {"finalizing": True}
    ).get_json()
    return answer


def test_a_group_that_cannot_be_read_is_told_and_can_be_deleted() -> None:
    request = _group_request()
    request["parent"]["spec"]["storageLimit"] = "1e100"
    before = _plan_of(_call("/nodegroups/sync", _group_request()))
    request["children"][_kind("LocalModelPlacement")] = {"gpu": before}
    answer = _call("/nodegroups/sync", request)
    (ready,) = answer["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "storageLimit" in ready["message"]
    assert _plan_of(answer)["spec"] == before["spec"]
    assert _call("/nodegroups/customize", {"parent": request["parent"]})["relatedResources"]

    request["parent"]["metadata"]["deletionTimestamp"] = "2026-11-24T03:59:00Z"
    for node in request["related"][_kind("LocalModelNode")].values():
        node["spec"]["localModels"] = []
    going = _call("/nodegroups/finalize", request | {"finalizing": True})
    empty = _plan_of(going)
    assert (empty["spec"]["models"], going["finalized"]) == ([], False)
    assert empty["spec"]["nodeSelectorTerms"] == before["spec"]["nodeSelectorTerms"]
    request["children"][_kind("LocalModelPlacement")] = {"gpu": empty}
    request["parent"]["status"] = going["status"] | {"observedGeneration": 3}
    for seconds in (0, 4):
        body = _finalize_at(NOW + timedelta(seconds=seconds), request)
        request["parent"]["status"] = body["status"] | {"observedGeneration": 3}
    assert body["finalized"] is True


def test_a_cache_goes_on_with_the_groups_that_can_be_read() -> None:
    request = load("caches/sync/node-in-two-groups").request
    groups = request["related"][_kind("LocalModelNodeGroup")]
    name = min(groups)
    groups[name]["spec"]["storageLimit"] = "huge"
    status = _call("/caches/sync", request)["status"]
    assert status["conditions"][0]["reason"] == "NodeGroupUnreadable"
    assert (
        f"LocalModelNodeGroup {name} cannot be read: spec.storageLimit"
        in (status["conditions"][0]["message"])
    )
    assert status["copies"]["total"] > 0


def test_a_plan_that_cannot_be_read_is_one_that_is_missing() -> None:
    request = load("nodes/sync/two-groups-by-priority").request
    before = _call("/nodes/sync", request)
    (node,) = before["attachments"]
    request["attachments"][_kind("LocalModelNode")] = {
        node["metadata"]["name"]: node | {"status": {}}
    }
    plans = request["related"][_kind("LocalModelPlacement")]
    for plan in plans.values():
        plan["spec"]["models"] = [*plan["spec"]["models"], {"modelName": 5}]
        break
    (after,) = _call("/nodes/sync", request)["attachments"]
    assert after["spec"]["groups"] == node["spec"]["groups"]
    names = [model["modelName"] for model in node["spec"]["localModels"]]
    assert sorted(m["modelName"] for m in after["spec"]["localModels"]) == sorted(names)


def test_a_group_of_any_name_keeps_its_nodes() -> None:
    long = "g" * 69
    request = load("nodes/sync/joins-a-group").request
    plans = request["related"][_kind("LocalModelPlacement")]
    (name,) = plans
    plan = plans.pop(name)
    plan["metadata"]["name"] = long
    plans[long] = plan
    (node,) = _call("/nodes/sync", request)["attachments"]
    assert [group["name"] for group in node["spec"]["groups"]] == [long]
    (label,) = node["metadata"]["labels"]
    assert len(label.partition("/")[2]) <= 63


def test_a_report_that_cannot_be_read_hides_no_other() -> None:
    request = _group_request()
    nodes = request["related"][_kind("LocalModelNode")]
    before = _call("/nodegroups/sync", request)["status"]["models"]
    for node in nodes.values():
        node["status"]["models"] = [
            {"name": 5},
            *node["status"]["models"],
            {"name": "x", "key": "k", "state": "Failed", "cached": False, "reason": "r" * 99},
        ]
    assert _call("/nodegroups/sync", request)["status"]["models"] == before


# Any JSON value.

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
LONG = st.sampled_from(["x" * 3000, "1e100", "9" * 70, "a" * 69, "-1", "0", ""])


@st.composite
def damaged(draw: st.DrawFn, whole: Object) -> Object:
    """The object with some fields absent, of the wrong type, too long or unknown."""
    obj = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(sorted(_paths(obj)) or [()]))
        if not path:
            continue
        *parents, last = path
        place: Any = obj
        for step in parents:
            place = place[step]
        change = draw(st.sampled_from(["absent", "any", "long", "unknown"]))
        if change == "absent":
            del place[last]
        elif change == "unknown" and isinstance(place, dict):
            place[draw(st.text(min_size=1, max_size=8))] = draw(JSON)
        else:
            place[last] = draw(LONG if change == "long" else JSON)
    return obj


def _paths(value: Any, *path: Any) -> set[tuple[Any, ...]]:
    steps = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    found = {path} if path else set()
    for step, part in steps:
        found |= _paths(part, *path, step)
    return {p for p in found if all(isinstance(step, str) for step in p) or len(p) > 1}


CACHE = _cache(
    "bad",
    "team-a",
    priority=5,
    retention="Pinned",
    hash="sha256:" + "a" * 64,
    serviceAccountName="reader",
    storage={"key": "k", "parameters": {"endpoint": "e"}},
    nodeGroup="gpu",
) | {
    "status": {
        "observedGeneration": 1,
        "size": 5,
        "progress": 3,
        "key": "k",
        "hash": "h",
        "nodeStatus": {"node-1": "NodeDownloaded"},
        "copies": {"available": 1, "total": 2, "failed": 0},
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "R",
                "message": "m",
                "lastTransitionTime": "2026-11-24T03:00:00Z",
            }
        ],
    }
}
CLUSTER_CACHE = _cache(
    "bad", namespaceSelector={"matchExpressions": [{"key": "a", "operator": "Exists"}]}
)
PLACEMENT = _plan_of(_call("/nodegroups/sync", _group_request(_cache("more", priority=3))))
NODE = copy.deepcopy(next(iter(_group_request()["related"][_kind("LocalModelNode")].values())))
NODE["metadata"]["name"] = "node-9"
ANYTHING = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


GOOD = _call("/nodegroups/sync", _group_request())
GOOD_NAMES = {model["modelName"] for model in _plan_of(GOOD)["spec"]["models"]}


def _good_plan(answer: Object) -> list[Object]:
    models: list[Object] = _plan_of(answer)["spec"]["models"]
    return [model for model in models if model["modelName"] in GOOD_NAMES]


def _letters(answer: Object) -> dict[tuple[str, str], str]:
    """The state of each good model on each node."""
    status = answer["status"]
    return {
        (model["name"], node): letter
        for model in status["models"]
        if model["name"] in GOOD_NAMES
        for node, letter in zip(status["nodes"], model["states"], strict=True)
    }


@ANYTHING
@given(damaged(CACHE), damaged(CLUSTER_CACHE), damaged(NODE), st.none() | damaged(PLACEMENT))
def test_whatever_is_stored_beside_them_the_good_ones_plan_is_the_same(
    cache: Object, cluster_cache: Object, node: Object, plan: Object | None
) -> None:
    request = _group_request()
    related = request["related"]
    related[_kind("LocalModelNamespaceCache")]["team-a/bad"] = cache
    related[_kind("LocalModelCache")]["bad"] = cluster_cache
    related[_kind("LocalModelNode")]["node-9"] = node
    if plan is not None:
        request["children"][_kind("LocalModelPlacement")] = {"gpu": plan}
    answer = _call("/nodegroups/sync", request)
    assert _good_plan(answer) == _good_plan(GOOD)
    assert _letters(GOOD).items() <= _letters(answer).items()


@ANYTHING
@given(damaged(CACHE), damaged(CLUSTER_CACHE))
@example(CACHE, CLUSTER_CACHE | {"metadata": CLUSTER_CACHE["metadata"] | {"generation": -1}})
def test_whatever_a_cache_is_it_can_be_told_and_deleted(
    cache: Object, cluster_cache: Object
) -> None:
    for path, parent in (("/namespace-caches", cache), ("/caches", cluster_cache)):
        gone = {
            "parent": parent,
            "children": {"PersistentVolume.v1": {}, "PersistentVolumeClaim.v1": {}},
            "related": {_kind("LocalModelNodeGroup"): {}, "Namespace.v1": {}},
            "finalizing": False,
        }
        for hook, request in (
            ("customize", {"parent": parent}),
            ("sync", gone),
            ("finalize", gone | {"finalizing": True}),
        ):
            response = CLIENT.post(f"{path}/{hook}", json=request)
            # An object of another kind or of another CRD: the call is refused.
            ours = response.status_code == 422 and (
                "expected a LocalModelCache" in response.text or "came without" in response.text
            )
            assert response.status_code == 200 or ours, response.text
            if hook == "finalize" and not ours:
                assert json.loads(response.text)["finalized"] is True


@ANYTHING
@given(damaged(NODE), damaged(PLACEMENT | {"metadata": {"name": "bad"}}))
def test_whatever_is_stored_of_one_group_a_node_keeps_the_others(
    node: Object, plan: Object
) -> None:
    request = load("nodes/sync/joins-a-group").request
    good = _call("/nodes/sync", request)["attachments"][0]["spec"]["localModels"]
    request["related"][_kind("LocalModelPlacement")]["bad"] = plan
    (made,) = _call("/nodes/sync", request)["attachments"]
    listed = made["spec"]["localModels"]
    assert [m for m in listed if m["nodeGroup"] == "gpu"] == good
    request["attachments"][_kind("LocalModelNode")] = {request["object"]["metadata"]["name"]: node}
    response = CLIENT.post("/nodes/sync", json=request)
    assert response.status_code in {200, 422}, response.text


def test_a_node_of_many_groups_lists_what_its_object_has_room_for() -> None:
    request = load("nodes/sync/joins-a-group").request
    plans = request["related"][_kind("LocalModelPlacement")]
    ((name, plan),) = plans.items()
    (model,) = plan["spec"]["models"]
    for number in range(3):
        models = [
            model
            | {"modelName": f"m{number}-{index}", "priority": number}
            | {"storage": {"key": "k", "parameters": {"prefix": "x" * 16_000}}}
            for index in range(25)
        ]
        plans[f"{name}{number}"] = plan | {
            "metadata": {"name": f"{name}{number}"},
            "spec": plan["spec"] | {"models": models},
        }
    (made,) = _call("/nodes/sync", request)["attachments"]
    listed = [one["modelName"] for one in made["spec"]["localModels"]]
    assert made["spec"]["leftOut"] == 76 - len(listed)
    assert 600_000 - 17_000 < len(json.dumps(made["spec"])) < 620_000
    # Models of the highest priority; listed ones stay listed.
    assert {one.partition("-")[0] for one in listed} == {"m2", "m1", model["modelName"]}
    request["attachments"][_kind("LocalModelNode")] = {
        made["metadata"]["name"]: made | {"status": {}}
    }
    for one in plans.values():
        for entry in one["spec"]["models"]:
            entry["priority"] = -entry.get("priority", 0)
    (again,) = _call("/nodes/sync", request)["attachments"]
    assert {one["modelName"] for one in again["spec"]["localModels"]} == set(listed)
