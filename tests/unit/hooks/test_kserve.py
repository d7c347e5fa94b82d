"""Objects of KServe's CRDs, which the hooks refuse, and the settings of the KServe overlay."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from hooks.app import create_app
from hooks.settings import (
    KSERVE_CONFIG_VARIABLE,
    SERVICE_KINDS_VARIABLE,
    ConfigMapName,
    Settings,
    WatchedKind,
)
from tests.fixtures import load

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
API = "serving.kserve.io/v1alpha1"


def _call(case: str, request: dict[str, Any]) -> TestResponse:
    settings = Settings.from_environment(load(case).settings)
    controller, hook, _ = case.split("/")
    client = create_app(settings, clock=lambda: NOW).test_client()
    return client.post(f"/{controller}/{hook}", json=request)


def _refusal(case: str, request: dict[str, Any]) -> str:
    response = _call(case, request)
    assert response.status_code == 422
    return response.text


# Objects as KServe's CRDs return them: without our fields.

KEPT = {
    "LocalModelCache": ("nodeStatus", "copies"),
    "LocalModelNamespaceCache": ("nodeStatus", "copies"),
    "LocalModelNodeGroup": ("used", "available"),
}


def _prune(obj: dict[str, Any]) -> None:
    status = obj.get("status", {})
    obj["status"] = {key: status[key] for key in KEPT[obj["kind"]] if key in status}


@pytest.mark.parametrize(
    "case",
    [
        "caches/customize/short-form",
        "caches/sync/downloaded",
        "caches/finalize/claims-are-gone",
        "namespace-caches/sync/downloaded",
        "nodegroups/sync/all-available",
        "nodegroups/finalize/all-gone",
    ],
)
def test_a_parent_that_lost_our_fields_fails_the_call(case: str) -> None:
    request = load(case).request
    _prune(request["parent"])
    told = _refusal(case, request)
    assert f"{request['parent']['kind']} 'llama'" in told or "'gpu'" in told
    assert "came without status.observedGeneration" in told
    assert "crds/manifests" in told


def test_a_related_group_that_lost_our_fields_is_told_and_claims_stay() -> None:
    case = "caches/sync/claims-are-bound"
    request = load(case).request
    _prune(request["related"][f"LocalModelNodeGroup.{API}"]["gpu"])
    answer = json.loads(_call(case, request).text)
    ready, admitted, *_ = answer["status"]["conditions"]
    assert ready["reason"] == admitted["reason"] == "NodeGroupUnreadable"
    assert "the CRD that is served for LocalModelNodeGroup" in ready["message"]
    claims = [c for c in answer["children"] if c["kind"] == "PersistentVolumeClaim"]
    assert len(claims) == len(request["children"]["PersistentVolumeClaim.v1"])


@pytest.mark.parametrize(
    ("case", "kind", "name"),
    [
        ("nodegroups/sync/all-available", "LocalModelCache", "llama"),
        (
            "nodegroups/sync/namespace-cache-gets-a-volume",
            "LocalModelNamespaceCache",
            "team-a/llama",
        ),
    ],
)
def test_a_cache_that_lost_our_fields_keeps_what_the_plan_has_of_it(
    case: str, kind: str, name: str
) -> None:
    request = load(case).request
    before = json.loads(_call(case, request).text)["children"][0]
    request["children"][f"LocalModelPlacement.{API}"] = {"gpu": before | {"apiVersion": API}}
    _prune(request["related"][f"{kind}.{API}"][name])
    answer = json.loads(_call(case, request).text)
    assert answer["children"][0]["spec"]["models"] == before["spec"]["models"]
    told = {one["name"]: one["message"] for one in answer["status"]["rejected"]}
    assert f"the CRD that is served for {kind}" in told["llama"]


def test_local_model_nodes_that_all_lost_our_fields_fail_the_call() -> None:
    """Otherwise every node would count as not Ready."""
    case = "nodegroups/sync/all-available"
    request = load(case).request
    nodes = request["related"][f"LocalModelNode.{API}"]
    for node in nodes.values():
        del node["spec"]["nodeReady"]
    assert "came without spec.nodeReady" in _refusal(case, request)
    case = "nodes/sync/warm-labels"
    request = load(case).request
    (node,) = request["attachments"][f"LocalModelNode.{API}"].values()
    del node["spec"]["nodeReady"]
    assert "came without spec.nodeReady" in _refusal(case, request)


@pytest.mark.parametrize(
    ("case", "form"),
    [
        ("caches/sync/downloaded", "nodeGroup"),
        ("nodegroups/sync/all-available", "nodeSelector"),
    ],
)
def test_a_lost_short_form_fails_the_call(case: str, form: str) -> None:
    """A watch of our schema may add our defaults to objects that another schema stored."""
    request = load(case).request
    del request["parent"]["spec"][form]
    assert f"came without spec.{form}" in _refusal(case, request)


@pytest.mark.parametrize("status", [{"observedGeneration": -1}, {"observedGeneration": 1}])
def test_our_schema_alone_is_no_reason_to_refuse(status: dict[str, int]) -> None:
    """At the first sync after a takeover or an upgrade, the status has only its defaults."""
    request = load("caches/sync/pending").request
    request["parent"]["status"] = status
    assert _call("caches/sync/pending", request).status_code == 200


# Missing and unreadable objects remove nothing.

SERVICES = "caches/sync/services-get-claims"


@pytest.mark.parametrize(
    "missing",
    [
        "InferenceService.serving.kserve.io/v1beta1",
        "LLMInferenceService.serving.kserve.io/v1alpha2",
        "PersistentVolumeClaim.v1",
    ],
)
def test_a_kind_that_was_not_sent_is_not_an_empty_one(missing: str) -> None:
    request = load(SERVICES).request
    del request["related"][missing]
    told = _refusal(SERVICES, request)
    assert f"no {missing} in the request" in told
    assert "restart it" in told


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"disableVolumeManagement": "perhaps"}'])
def test_a_configuration_that_cannot_be_read_fails_the_call(text: str) -> None:
    for case in ("caches/sync/volumes-are-not-managed", "nodegroups/sync/volumes-are-not-managed"):
        request = load(case).request
        request["related"]["ConfigMap.v1"]["kserve/inferenceservice-config"]["data"] = {
            "localModel": text
        }
        told = _refusal(case, request)
        assert "the key localModel of ConfigMap kserve/inferenceservice-config" in told


@pytest.mark.parametrize("data", [{}, {"localModel": "{}"}, None])
def test_a_configuration_that_says_nothing_has_kserves_defaults(data: dict[str, str]) -> None:
    case = "caches/sync/volumes-are-not-managed"
    request = load(case).request
    request["related"]["ConfigMap.v1"]["kserve/inferenceservice-config"]["data"] = data
    children = json.loads(_call(case, request).text)["children"]
    assert {child["kind"] for child in children} == {"PersistentVolume", "PersistentVolumeClaim"}


# Settings.


def test_service_kinds_and_the_configuration_are_settings() -> None:
    assert Settings.from_environment({}) == Settings()
    settings = Settings.from_environment(
        {
            SERVICE_KINDS_VARIABLE: "InferenceService.serving.kserve.io/v1beta1, "
            "LLMInferenceService.serving.kserve.io/v1alpha1",
            KSERVE_CONFIG_VARIABLE: "kserve/inferenceservice-config",
        }
    )
    assert settings.service_kinds == (
        WatchedKind("InferenceService", "serving.kserve.io/v1beta1"),
        WatchedKind("LLMInferenceService", "serving.kserve.io/v1alpha1"),
    )
    assert [kind.resource for kind in settings.service_kinds] == [
        "inferenceservices",
        "llminferenceservices",
    ]
    assert settings.kserve_config == ConfigMapName("kserve", "inferenceservice-config")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (SERVICE_KINDS_VARIABLE, "InferenceService"),
        (SERVICE_KINDS_VARIABLE, "InferenceGraph.serving.kserve.io/v1alpha1"),
        (SERVICE_KINDS_VARIABLE, "InferenceService.example.com/v1"),
        (
            SERVICE_KINDS_VARIABLE,
            "InferenceService.serving.kserve.io/v1beta1,InferenceService.serving.kserve.io/v1",
        ),
        (KSERVE_CONFIG_VARIABLE, "inferenceservice-config"),
        (KSERVE_CONFIG_VARIABLE, "kserve/"),
        (KSERVE_CONFIG_VARIABLE, "kserve/a/b"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=variable):
        Settings.from_environment({variable: value})


def test_entries_of_a_group_that_is_gone_wait_for_a_plan() -> None:
    """Entries that KServe's controller left: an empty plan of their group removes them."""
    case = "nodes/sync/joins-a-group"
    request = load(case).request
    (plan,) = request["related"][f"LocalModelPlacement.{API}"].values()
    (name,) = (request["object"]["metadata"]["name"],)
    entry = {"sourceModelUri": "s3://models/old", "modelName": "old", "nodeGroup": "gone"}
    request["attachments"][f"LocalModelNode.{API}"] = {
        name: {
            "apiVersion": API,
            "kind": "LocalModelNode",
            "metadata": {"name": name},
            "spec": {"localModels": [entry]},
            "status": {},
        }
    }

    def listed() -> set[str]:
        answer = _call(case, request)
        assert answer.status_code == 200, answer.text
        (node,) = json.loads(answer.text)["attachments"]
        return {model["modelName"] for model in node["spec"]["localModels"]}

    assert "old" in listed()
    empty = plan | {"metadata": {"name": "gone"}, "spec": plan["spec"] | {"models": []}}
    request["related"][f"LocalModelPlacement.{API}"]["gone"] = empty
    assert "old" not in listed()
