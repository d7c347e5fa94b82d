from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from crds.version import __version__
from hooks import nodegroups
from hooks.app import create_app
from hooks.settings import (
    DEFAULT_HOST_PATH,
    HOST_PATH_VARIABLE,
    VOLUMES_VARIABLE,
    Settings,
)
from tests.fixtures import load

if TYPE_CHECKING:
    from flask.testing import FlaskClient

NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)


@pytest.fixture
def client() -> FlaskClient:
    return create_app(Settings(), clock=lambda: NOW).test_client()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_unknown_controllers_and_hooks_are_not_found(client: FlaskClient) -> None:
    assert client.post("/nodes/finalize", json={}).status_code == 404
    assert client.post("/pods/sync", json={}).status_code == 404


def test_a_hook_takes_post_only(client: FlaskClient) -> None:
    assert client.get("/nodes/sync").status_code == 405


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"{}", b'{"parent": 1}'])
def test_a_body_that_is_no_request_is_refused_with_the_reason(
    client: FlaskClient, body: bytes
) -> None:
    response = client.post("/caches/sync", data=body)
    assert response.status_code == 422
    assert response.text.startswith("/caches/sync: not a request of this hook: ")


def test_a_parent_of_another_kind_is_refused(client: FlaskClient) -> None:
    request = load("caches/sync/pending").request
    request["parent"]["kind"] = "LocalModelNodeGroup"
    response = client.post("/caches/sync", json=request)
    assert response.status_code == 422
    assert "expected a LocalModelCache" in response.text


@pytest.mark.parametrize(
    ("case", "part", "missing"),
    [
        ("nodegroups/sync/all-available", "related", "LocalModelCache.serving.kserve.io/v1alpha1"),
        ("nodegroups/sync/all-available", "related", "LocalModelNode.serving.kserve.io/v1alpha1"),
        ("nodegroups/sync/all-available", "children", "PersistentVolume.v1"),
        (
            "nodegroups/sync/all-available",
            "children",
            "LocalModelPlacement.serving.kserve.io/v1alpha1",
        ),
        ("nodes/sync/joins-a-group", "related", "LocalModelPlacement.serving.kserve.io/v1alpha1"),
        ("nodes/sync/joins-a-group", "attachments", "LocalModelNode.serving.kserve.io/v1alpha1"),
        ("caches/sync/pending", "related", "LocalModelNodeGroup.serving.kserve.io/v1alpha1"),
        ("caches/sync/claims-for-namespaces", "related", "Namespace.v1"),
    ],
)
def test_a_kind_that_is_not_in_the_request_is_not_taken_for_no_objects(
    client: FlaskClient, case: str, part: str, missing: str
) -> None:
    request = load(case).request
    del request[part][missing]
    response = client.post("/" + case.rsplit("/", 1)[0], json=request)
    assert response.status_code == 422
    assert missing in response.text


def test_an_error_of_ours_is_a_500_and_changes_nothing(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boom(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(nodegroups, "plan_group", boom)
    response = client.post("/nodegroups/sync", json=load("nodegroups/sync/all-available").request)
    assert response.status_code == 500
    assert "RuntimeError: boom" in response.text


def test_settings_come_from_the_environment() -> None:
    assert Settings.from_environment({}).host_path == DEFAULT_HOST_PATH
    assert Settings.from_environment({HOST_PATH_VARIABLE: "/models/"}).host_path == "/models"
    with pytest.raises(ValueError, match="absolute"):
        Settings.from_environment({HOST_PATH_VARIABLE: "models"})


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({}, "/var/lib/localmodel"),
        ({VOLUMES_VARIABLE: "root"}, "/var/lib/localmodel"),
        ({VOLUMES_VARIABLE: "model"}, "/var/lib/localmodel/volumes/62e3fee9e06f072c"),
        ({VOLUMES_VARIABLE: "model", HOST_PATH_VARIABLE: "/"}, "/volumes/62e3fee9e06f072c"),
    ],
)
def test_a_setting_says_what_new_volumes_show(environment: dict[str, str], path: str) -> None:
    assert Settings.from_environment(environment).volume_path("62e3fee9e06f072c") == path


@pytest.mark.parametrize("text", ["Model", "models", " root"])
def test_an_unknown_scope_of_volumes_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="LOCALMODEL_VOLUMES must be model or root, not "):
        Settings.from_environment({VOLUMES_VARIABLE: text})


def _counted(client: FlaskClient, name: str, **labels: str) -> float:
    pairs = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    line = f"{name}{{{pairs}}} "
    found = [one for one in client.get("/metrics").text.splitlines() if one.startswith(line)]
    return float(found[0].removeprefix(line)) if found else 0.0


def test_calls_are_counted_with_their_bytes_and_failures(client: FlaskClient) -> None:
    body = json.dumps(load("nodes/sync/warm-labels").request).encode()
    calls = {"hook": "/nodes/sync", "code": "200"}
    refused = {"hook": "/nodes/sync", "code": "422"}
    before = [
        _counted(client, "localmodel_hook_calls_total", **calls),
        _counted(client, "localmodel_hook_calls_total", **refused),
        _counted(client, "localmodel_hook_request_size_bytes_sum", hook="/nodes/sync"),
        _counted(client, "localmodel_hook_response_size_bytes_sum", hook="/nodes/sync"),
    ]
    answers = [client.post("/nodes/sync", data=one).data for one in (body, b"{}")]
    assert _counted(client, "localmodel_hook_calls_total", **calls) == before[0] + 1
    assert _counted(client, "localmodel_hook_calls_total", **refused) == before[1] + 1
    sent = _counted(client, "localmodel_hook_request_size_bytes_sum", hook="/nodes/sync")
    assert sent == before[2] + len(body) + 2
    received = _counted(client, "localmodel_hook_response_size_bytes_sum", hook="/nodes/sync")
    assert received == before[3] + sum(map(len, answers))


def test_metrics_name_the_version(client: FlaskClient) -> None:
    assert _counted(client, "localmodel_hook_build_info", version=__version__) == 1


def test_a_hook_that_comes_near_its_timeout_says_so(caplog: pytest.LogCaptureFixture) -> None:
    hasty = Settings(group_hook_timeout=1e-9)
    client = create_app(hasty, clock=lambda: NOW).test_client()
    before = _counted(client, "localmodel_hook_late_total", hook="/nodegroups/sync")
    client.post("/nodegroups/sync", json=load("nodegroups/sync/all-available").request)
    assert _counted(client, "localmodel_hook_late_total", hook="/nodegroups/sync") == before + 1
    (said,) = caplog.messages
    assert said.startswith("/nodegroups/sync took ")
    assert "LocalModelNodeGroup gpu" in said
    assert "webhook.timeout" in said
    client.post("/nodes/sync", json=load("nodes/sync/warm-labels").request)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_timeout_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="LOCALMODEL_GROUP_HOOK_TIMEOUT"):
        Settings.from_environment({"LOCALMODEL_GROUP_HOOK_TIMEOUT": text})
    made = Settings.from_environment({"LOCALMODEL_GROUP_HOOK_TIMEOUT": "60"})
    assert (made.timeout("/nodegroups/sync"), made.timeout("/nodes/sync")) == (60.0, 10.0)
