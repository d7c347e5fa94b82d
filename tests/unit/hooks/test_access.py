"""The token that the hooks ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hooks.access import TOKEN_FILE_VARIABLE, Access
from hooks.app import create_app
from hooks.settings import Settings
from tests.fixtures import load

if TYPE_CHECKING:
    from pathlib import Path

    from flask.testing import FlaskClient

REQUEST = load("nodes/sync/warm-labels").request
PATH = "/nodes/sync"
RIGHT = "Bearer 7d3f"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("7d3f\n")
    return file


@pytest.fixture
def client(token: Path) -> FlaskClient:
    access = Access.from_environment({TOKEN_FILE_VARIABLE: str(token)})
    return create_app(Settings(), access=access).test_client()


def _refused(client: FlaskClient) -> float:
    line = f'localmodel_hook_refused_total{{hook="{PATH}"}} '
    lines = client.get("/metrics").text.splitlines()
    return sum(float(one.removeprefix(line)) for one in lines if one.startswith(line))


@pytest.mark.parametrize("header", [RIGHT, "bearer 7d3f", "Bearer  7d3f "])
def test_a_call_with_the_token_is_answered(client: FlaskClient, header: str) -> None:
    assert client.post(PATH, json=REQUEST, headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "7d3f", "Bearer", "Bearer 7d3", "Bearer 7d3ff", "Basic 7d3f", "Bearer é"]
)
def test_a_call_without_the_token_is_refused_and_counted(
    client: FlaskClient, header: str | None
) -> None:
    before = _refused(client)
    headers = {} if header is None else {"Authorization": header}
    answer = client.post(PATH, json=REQUEST, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.text == f"{PATH}: the header Authorization has not the hooks' token\n"
    assert _refused(client) == before + 1


def test_no_call_is_refused_where_no_file_is_named() -> None:
    client = create_app(Settings(), access=Access.from_environment({})).test_client()
    assert client.post(PATH, json=REQUEST).status_code == 200


def test_probes_and_metrics_need_no_token(client: FlaskClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200


def test_a_new_token_counts_without_a_restart(client: FlaskClient, token: Path) -> None:
    token.write_text("new")
    old = client.post(PATH, json=REQUEST, headers={"Authorization": RIGHT})
    new = client.post(PATH, json=REQUEST, headers={"Authorization": "Bearer new"})
    assert (old.status_code, new.status_code) == (401, 200)


@pytest.mark.parametrize("content", [None, " \n", b"\xff"])
def test_the_hooks_live_and_are_not_ready_while_there_is_no_token(
    client: FlaskClient, token: Path, content: str | bytes | None
) -> None:
    if content is None:
        token.unlink()
    else:
        token.write_bytes(content.encode() if isinstance(content, str) else content)
    assert client.get("/healthz").status_code == 200
    readiness = client.get("/readyz")
    assert readiness.status_code == 503
    assert readiness.text.startswith(f"{TOKEN_FILE_VARIABLE}: ")
    answer = client.post(PATH, json=REQUEST, headers={"Authorization": "Bearer "})
    assert answer.status_code == 401
    assert TOKEN_FILE_VARIABLE in answer.text
    token.write_text("7d3f")
    assert client.get("/readyz").status_code == 200
    assert client.post(PATH, json=REQUEST, headers={"Authorization": RIGHT}).status_code == 200
