"""The objects that the benchmark writes, and the requests that it makes of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from crds.node import LocalModelNodeSpec, LocalModelNodeStatus
from hooks.app import create_app
from hooks.settings import Settings
from tests.bench.control import objects
from tests.bench.control.hook_process import settled
from tests.bench.control.hook_requests import nodegroups_sync, nodes_sync
from tests.bench.control.reporter import Done, Job
from tests.bench.control.tracking import Version

NOW = datetime(2026, 11, 24, 3, 30, tzinfo=UTC)


def answer(path: str, request: dict[str, Any]) -> dict[str, Any]:
    client = create_app(Settings(), lambda: NOW).test_client()
    response = client.post(path, json=request)
    assert response.status_code == 200, response.text
    return json.loads(response.data)  # type: ignore[no-any-return]


def test_a_report_is_an_agents() -> None:
    status = LocalModelNodeStatus.model_validate(objects.node_status(3, 2, NOW))
    assert status.observed_generation == 2
    assert [model.state for model in status.models] == ["Downloaded"] * 3
    assert all(model.cached and model.size and model.hash for model in status.models)
    assert all(model.disk_bytes for model in status.models)
    assert status.model_status is not None
    assert set(status.model_status) == {"model-001", "model-002", "model-003"}
    assert status.conditions[0].message == "3 of 3 models cached"
    assert status.disk is not None


def test_a_report_of_progress() -> None:
    status = LocalModelNodeStatus.model_validate(objects.node_status(2, 1, NOW, share=0.5))
    assert {model.state for model in status.models} == {"Downloading"}
    for model in status.models:
        assert model.downloaded_bytes is not None
        assert model.size is not None
        assert model.downloaded_bytes == pytest.approx(model.size / 2, abs=1)


def test_bodies_are_whole_objects() -> None:
    spec = json.loads(objects.spec_body("node-1", objects.spec_text(2)))
    assert spec["metadata"]["labels"] == {"nodegroup.serving.kserve.io/gpu": ""}
    assert len(LocalModelNodeSpec.model_validate(spec["spec"]).local_models) == 2
    status = json.loads(objects.status_body("node-1", "12", '{"models": []}'))
    assert status == {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelNode",
        "metadata": {"name": "node-1", "resourceVersion": "12"},
        "status": {"models": []},
    }


def test_the_hooks_write_the_spec_that_the_floor_writes() -> None:
    request = nodes_sync(3)
    (kind,) = request["attachments"]
    first = answer("/nodes/sync", {**request, "attachments": {kind: {}}})
    assert first["attachments"][0]["spec"] == objects.node_spec(3)


def test_a_group_whose_nodes_have_everything() -> None:
    request = nodegroups_sync(4, 3)
    after = settled(request, answer("/nodegroups/sync", request))
    again = answer("/nodegroups/sync", after)
    assert {model["states"] for model in again["status"]["models"]} == {"AAAA"}
    assert again["children"][0]["spec"]["models"]
    # What was asked is left as it was.
    assert request["parent"]["status"] == {"observedGeneration": -1}


def test_a_node_that_has_everything_is_left_as_it_is() -> None:
    request = nodes_sync(3)
    first = answer("/nodes/sync", request)
    (kind,) = request["attachments"]
    after = settled(request, first)
    assert after["attachments"][kind]["node-1"]["spec"] == objects.node_spec(3)
    assert after["attachments"][kind]["node-1"]["status"]["models"]
    assert answer("/nodes/sync", after) == first
    labels = request["object"]["metadata"]["labels"]
    assert first["labels"].items() <= labels.items()


def test_a_job_travels_as_json() -> None:
    versions = {"node-1": Version("7", 2)}
    job = Job("statuses", "/kubeconfig", 3, versions, connections=2, limit=10.0)
    assert Job.from_json(json.dumps(job.to_json())) == job
    done = {"began": 1.0, "seconds": 2.0, "versions": {"node-1": {**vars(versions["node-1"])}}}
    assert Done.from_json(done).versions == versions
