"""What the hooks log, and what Metacontroller logs of their errors: no value of a cache's spec.

Metacontroller logs the body of an answer that is an error.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from crds.base import API_VERSION
from crds.models import PlacedModel
from crds.node import LocalModelNode
from hooks import nodegroups
from hooks.app import create_app
from hooks.settings import Settings
from tests.fixtures import load

if TYPE_CHECKING:
    from flask.testing import FlaskClient

SECRET = "s3cr3t-of-a-tenant"
NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
CACHES = f"LocalModelCache.{API_VERSION}"
Object = dict[str, Any]

# What is wrong beside the secret, or with the secret itself.
SPECS: dict[str, Object] = {
    "nothing": {"storage": {"parameters": {"secret_access_key": SECRET}}},
    "a number beside": {"storage": {"parameters": {"a": 5, "secret_access_key": SECRET}}},
    "no map": {"storage": {"parameters": SECRET}},
    "a list": {"storage": {"parameters": [SECRET]}},
    "no storage": {"storage": SECRET},
    "too long": {"storage": {"parameters": {"token": SECRET * 2000}}},
    "a nested map": {"storage": {"parameters": {"token": {SECRET: SECRET}}}},
    "an unreadable size": {
        "modelSize": "huge",
        "storage": {"parameters": {"secret_access_key": SECRET}},
    },
}


@pytest.fixture
def client() -> FlaskClient:
    """Hooks to which each answer seems to come late, so that they log each call."""
    return create_app(Settings(), clock=lambda: NOW, sleep=lambda _: None).test_client()


@pytest.fixture(autouse=True)
def _late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "timeout", lambda *_: 0.0)


def cache(**spec: Any) -> Object:
    whole: Object = load("caches/sync/pending").request["parent"]
    return whole | {"spec": {**whole["spec"], **spec}}


def requests(spec: Object) -> dict[str, Object]:
    """A request of each hook that gets caches."""
    parent, of_group = cache(**spec), load("nodegroups/sync/all-available").request
    of_group["related"][CACHES] = {"llama": parent}
    of_cache = load("caches/sync/pending").request | {"parent": parent}
    return {
        "/caches/customize": {"parent": parent},
        "/caches/sync": of_cache,
        "/caches/finalize": of_cache | {"finalizing": True},
        "/nodegroups/sync": of_group,
    }


def check(client: FlaskClient, path: str, body: bytes, log: pytest.LogCaptureFixture) -> int:
    """Send a request. Returns the status of the answer."""
    log.clear()
    with log.at_level(logging.DEBUG):
        response = client.post(path, data=body)
    assert log.records, "the hooks log nothing: this test compares nothing"
    assert SECRET not in log.text
    if response.status_code != 200:
        assert SECRET not in response.text
    return response.status_code


@pytest.mark.parametrize("wrong", SPECS)
def test_no_value_of_a_spec_is_logged(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    for path, request in requests(SPECS[wrong]).items():
        assert check(client, path, json.dumps(request).encode(), caplog) == 200


@pytest.mark.parametrize("wrong", SPECS)
def test_no_request_that_cannot_be_parsed_is_quoted(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    """Cut off, of another kind, with parts of other types, or with bytes that are no text."""
    for path, request in requests(SPECS[wrong]).items():
        whole = json.dumps(request).encode()
        after = whole.rindex(SECRET.encode()) + len(SECRET)
        parent = request["parent"]
        broken = [
            whole[:after],
            whole[: after + 1],
            whole[:after] + b"\\x" + whole[after:],
            json.dumps(request | {"parent": [parent]}).encode(),
            json.dumps(request | {"parent": SECRET}).encode(),
            json.dumps([request]).encode(),
            json.dumps(request | {"parent": parent | {"kind": "Secret"}}).encode(),
        ]
        for body in broken:
            assert check(client, path, body, caplog) == 422
        # No hook reads more than it needs.
        for body in (
            whole[:after] + b"\xff" + whole[after:],
            json.dumps(request | {"parent": parent | {"metadata": {"uid": SECRET}}}).encode(),
        ):
            assert check(client, path, body, caplog) in {200, 422}


@pytest.mark.parametrize("model", [PlacedModel, LocalModelNode])
def test_an_error_of_ours_quotes_no_value(
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    model: Any,
) -> None:
    """The log has the whole traceback, with the messages of the errors that led there."""
    wrong = {"storage": {"parameters": SECRET}, "spec": SECRET, "metadata": SECRET}

    def fails(*_: object, **__: object) -> None:
        try:
            model.model_validate(wrong)
        except ValueError as error:
            raise RuntimeError("boom") from error

    def fails_at_once(*_: object, **__: object) -> None:
        model.model_validate(wrong)

    request = load("nodegroups/sync/all-available").request
    for function in (fails, fails_at_once):
        monkeypatch.setattr(nodegroups, "plan_group", function)
        body = json.dumps(request).encode()
        assert check(client, "/nodegroups/sync", body, caplog) == 500
        assert "Traceback" in caplog.text
