"""The reader of secrets against a server that speaks the part of the Kubernetes API it uses."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.connection import connect
from agent.cluster.core_api import CoreApi
from agent.credentials.secret_reader import SecretReader
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.api_server import write_kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.servers import Handler, Server

SECRET = "/api/v1/namespaces/jobs/secrets/s"
ACCOUNT = "/api/v1/namespaces/jobs/serviceaccounts/a"
CONFIG_MAP = "/api/v1/namespaces/jobs/configmaps/c"


class FakeServer:
    """Objects by path."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.refuse: int | None = None
        self.raw: bytes | None = None

    def __call__(self, handler: Handler, path: str) -> None:
        found = self.objects.get(path)
        status = self.refuse or (200 if found is not None else 404)
        body = found if status == 200 else {"kind": "Status", "message": "s3cret"}
        content = self.raw if self.raw is not None else json.dumps(body).encode()
        handler.reply(status, content, {"Content-Type": "application/json"})


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def reader(server: Server, tmp_path: Path) -> SecretReader:
    return SecretReader(CoreApi(connect(write_kubeconfig(tmp_path / "config", server.url))))


def failure(reader: SecretReader, name: str = "s") -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        reader.secret("jobs", name)
    assert "s3cret" not in caught.value.message
    return caught.value


def test_a_secret_is_decoded_and_not_logged(
    fake: FakeServer, reader: SecretReader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    encoded = base64.b64encode(b"s3cret\xff").decode()
    fake.objects[SECRET] = {
        "metadata": {"name": "s", "annotations": {"a": "b"}},
        "data": {"KEY": encoded},
    }
    found = reader.secret("jobs", "s")
    assert found.data == {"KEY": b"s3cret\xff"}
    assert found.annotations == {"a": "b"}
    assert found.where == "the secret jobs/s"
    assert "s3cret" not in repr(found)
    assert encoded not in caplog.text


def test_an_empty_secret(fake: FakeServer, reader: SecretReader) -> None:
    fake.objects[SECRET] = {"metadata": {"name": "s"}}
    assert reader.secret("jobs", "s").data == {}
    assert reader.secret("jobs", "s").annotations == {}


def test_a_service_account(fake: FakeServer, reader: SecretReader) -> None:
    fake.objects[ACCOUNT] = {
        "metadata": {"name": "a", "annotations": {"a": "b"}},
        "secrets": [{"name": "one"}, {}, {"name": "two"}],
    }
    found = reader.service_account("jobs", "a")
    assert found.secrets == ("one", "two")
    assert found.annotations == {"a": "b"}
    fake.objects[ACCOUNT] = {"metadata": {"name": "a"}}
    assert reader.service_account("jobs", "a").secrets == ()


def test_a_config_map(fake: FakeServer, reader: SecretReader) -> None:
    fake.objects[CONFIG_MAP] = {"metadata": {"name": "c"}, "data": {"k": "v"}}
    assert reader.config_map("jobs", "c") == {"k": "v"}


def test_only_that_object_is_asked_for(
    fake: FakeServer, reader: SecretReader, server: Server
) -> None:
    fake.objects[SECRET] = {}
    reader.secret("jobs", "s")
    assert [(method, path) for method, path, _ in server.seen] == [("GET", SECRET)]


@pytest.mark.parametrize("name", ["..", "a/b", "", "A", "x" * 254, "a\n"])
def test_names_that_are_none_are_not_asked_for(
    reader: SecretReader, server: Server, name: str
) -> None:
    error = failure(reader, name)
    assert error.kind is FailureKind.DENIED
    assert "can be no name of a secret" in error.message
    assert server.seen == []


def test_what_is_not_there(reader: SecretReader) -> None:
    error = failure(reader)
    assert error.kind is FailureKind.DENIED
    assert "there is no secret jobs/s: create it there" in error.message
    with pytest.raises(DownloadError, match="there is no ServiceAccount jobs/a: create it"):
        reader.service_account("jobs", "a")
    with pytest.raises(DownloadError, match="there is no ConfigMap jobs/c: create it"):
        reader.config_map("jobs", "c")


def test_what_may_not_be_read(fake: FakeServer, reader: SecretReader) -> None:
    fake.refuse = 403
    error = failure(reader)
    assert error.kind is FailureKind.DENIED
    assert "the agent may not read the secret jobs/s" in error.message
    assert "the verb get on secrets" in error.message
    with pytest.raises(DownloadError, match="the verb get on serviceaccounts"):
        reader.service_account("jobs", "a")


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_other_refusals_are_no_word_on_the_secret(
    fake: FakeServer, reader: SecretReader, status: int
) -> None:
    fake.refuse = status
    error = failure(reader)
    assert error.kind is FailureKind.UNREACHABLE
    assert str(status) in error.message


@pytest.mark.parametrize("raw", [b"<html>s3cret</html>", b"[]"])
def test_an_answer_that_makes_no_sense(fake: FakeServer, reader: SecretReader, raw: bytes) -> None:
    fake.objects[SECRET] = {}
    fake.raw = raw
    assert failure(reader).kind is FailureKind.UNREACHABLE


def test_a_server_that_cannot_be_reached(tmp_path: Path) -> None:
    reader = SecretReader(
        CoreApi(connect(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))
    )
    error = failure(reader)
    assert error.kind is FailureKind.UNREACHABLE
    assert "connection refused" in error.message
