"""What an agent writes to its log, as a whole process: no credential, no token, no signed query."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from structlog.testing import capture_logs

from agent.cluster.node_api import parse_node
from tests.unit.agent.api_server import write_kubeconfig
from tests.unit.agent.commands import TREE, command, environment, start
from tests.unit.agent.servers import WebFiles, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.servers import Handler

SECRET = "s3cret"
QUERY = f"X-Amz-Signature={SECRET}&sig={SECRET}"


class Origin:
    """A web server that gives its files, refuses others and quotes what it was asked."""

    def __init__(self) -> None:
        self.files = WebFiles({"/good.bin": b"weights"})

    def __call__(self, handler: Handler, path: str) -> None:
        if path == "/good.bin":
            return self.files(handler, path)
        status = {"/denied.bin": 401, "/broken.bin": 400}.get(path, 404)
        return handler.reply(status, f"{handler.path} {handler.headers}".encode())


@pytest.mark.timeout(60)  # starts an agent
@pytest.mark.parametrize("log_format", ["json", "console", "auto"])
def test_no_secret_of_a_uri_or_of_credentials(tmp_path: Path, log_format: str) -> None:
    with serving(Origin()) as server:
        address = server.url.removeprefix("http://")
        uris = [
            f"http://user:{SECRET}@{address}/{name}.bin?{QUERY}#{SECRET}"
            for name in ("good", "denied", "missing", "broken")
        ]
        uris += [
            "s3://bucket/model",
            f"https://127.0.0.1:1/refused.bin?{QUERY}",
            f"x://host/m?{QUERY}",
        ]
        models = [{"uri": uri, "name": f"m{number}"} for number, uri in enumerate(uris)]
        file = tmp_path / "models.yaml"
        file.write_text(yaml.safe_dump({"models": models}))
        arguments = ("--models", file, "--root", tmp_path / "root", "--once", "--retries", "0")
        done = subprocess.run(
            command("run", *arguments, "--log-format", log_format),
            cwd=TREE,
            env=environment(
                AWS_ACCESS_KEY_ID="AKIAKEY",
                AWS_SECRET_ACCESS_KEY=SECRET,
                AWS_SESSION_TOKEN=SECRET,
                AWS_ENDPOINT_URL=server.url,
                HF_TOKEN=SECRET,
            ),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        asked = {path for _, path, _ in server.seen}
    # The secrets were used, and failures were reported.
    assert {"/denied.bin", "/missing.bin", "/broken.bin"} <= asked
    text = done.stdout + done.stderr
    assert "denied.bin" in text
    assert "NotFound" in text
    assert SECRET not in text


@pytest.mark.timeout(60)  # starts an agent
def test_no_token_of_the_api_server(tmp_path: Path) -> None:
    def quote(handler: Handler, _: str) -> None:
        handler.reply(500, f"{handler.headers}".encode())

    with serving(quote) as server:
        kubeconfig = write_kubeconfig(tmp_path / "config", server.url)
        agent = start(
            *("run", "--node-name", "node-1", "--root", tmp_path / "root"),
            *("--kubeconfig", kubeconfig, "--log-format", "json"),
        )
        try:
            assert agent.stderr is not None
            lines: list[str] = []
            while "Watch of the LocalModelNode broke" not in "".join(lines):
                lines.append(agent.stderr.readline())
                assert lines[-1]
        finally:
            agent.terminate()
            rest = agent.communicate(timeout=30)
        assert any("authorization" in map(str.lower, headers) for _, _, headers in server.seen)
    text = "".join([*lines, *rest])
    assert "500" in text
    assert "t0ken" not in text


def test_an_invalid_local_model_node_is_reported_without_its_values() -> None:
    """It has the storage parameters of caches."""
    model = {"storage": {"parameters": SECRET}, "priority": SECRET}
    found = {"metadata": {"name": "n"}, "spec": {"localModels": [model]}}
    with capture_logs() as logs:
        assert parse_node(found) is None
    assert [one["event"] for one in logs] == ["LocalModelNode is not understood"]
    assert "spec.localModels.0.priority" in str(logs)
    assert SECRET not in str(logs)
