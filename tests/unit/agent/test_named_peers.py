"""Agents without Kubernetes, whose peers are named by flags, as processes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agent.commands.flags import parse
from agent.commands.peers import NamedPeers, own_address
from agent.peers.server import PeerBindError
from agent.structs.counts import NO_COUNTS
from agent.structs.manifest import Grant
from crds.keys import model_key
from tests.unit.agent.commands import TREE, command, environment
from tests.unit.agent.servers import Buckets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.disk.store import Store
    from tests.unit.agent.servers import Handler, Server

pytestmark = pytest.mark.timeout(120)

URI = "s3://models/m"
FILES = {"m/config.json": b"{}", "m/weights.bin": b"weights" * 1_000_000}


@pytest.fixture
def fake() -> Buckets:
    """An S3 server that reports the SHA-256 of its objects."""
    checksums = {
        key: ("SHA256", base64.b64encode(hashlib.sha256(data).digest()).decode())
        for key, data in FILES.items()
    }
    return Buckets({"models": FILES}, checksums=checksums)


def variables(server: Server) -> dict[str, str]:
    return environment(
        AWS_ENDPOINT_URL=server.url,
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="s3cret",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
    )


@contextmanager
def serving_agent(folder: Path, server: Server) -> Iterator[str]:
    """An agent that has the model and serves it. Yields its address."""
    folder.mkdir()
    file = folder / "models.yaml"
    file.write_text(f"models: [{{uri: '{URI}'}}]")
    arguments = ["run", "--models", file, "--root", folder / "root", "--log-format", "json"]
    process = subprocess.Popen(
        command(*arguments, "--peer-bind-address", "127.0.0.1:0"),
        cwd=TREE,
        env=variables(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        address = ""
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            address = told.get("address", address)
            if told["message"] == "Published a model":
                break
        assert address
        yield address
    finally:
        process.kill()
        process.communicate()


def pull(server: Server, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("pull", *arguments),
        cwd=TREE,
        env=variables(server),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_pull_fetches_from_the_agents_that_it_is_told(
    tmp_path: Path, fake: Buckets, server: Server
) -> None:
    with serving_agent(tmp_path / "agent", server) as address:

        def refuses(handler: Handler, _key: str) -> bool:
            handler.reply(503)
            return False

        # From now on it lists the files, and sends none.
        fake.before_get = refuses
        done = pull(server, URI, tmp_path / "m", "--retries", "0", "--peer", address)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"config.json", "weights.bin"}
    assert (tmp_path / "m/weights.bin").read_bytes() == FILES["m/weights.bin"]


def test_a_peer_that_is_not_there_stops_no_pull(tmp_path: Path, server: Server) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        # It does not listen.
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        done = pull(server, URI, tmp_path / "m", "--peer", address)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m/weights.bin").read_bytes() == FILES["m/weights.bin"]


def test_all_agents_may_have_the_same_flags(store: Store) -> None:
    """An agent finds itself among the peers by its address, and leaves it out."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    own, other = f"127.0.0.1:{port}", "127.0.0.1:1"
    flags = ["--peer-bind-address", own, "--peer", own, "--peer", other, "--peer", other]
    peers = NamedPeers(parse(["run", "--models", "f", "--root", "r", *flags]), store, NO_COUNTS)
    try:
        exchange = peers.group.exchange(model_key(URI), [""], Grant())
        assert exchange is not None
        found = exchange.neighbourhood
        exchange.end()
        assert found.node == own
        assert [peer.address for peer in found.peers] == [other]
    finally:
        peers.close()


@pytest.mark.parametrize(
    ("bound", "told", "address"),
    [
        ("10.0.0.7:0", None, "10.0.0.7:5"),
        (":0", "10.0.0.8", "10.0.0.8:5"),
        ("10.0.0.7:0", "10.0.0.8", "10.0.0.8:5"),
        ("[::]:0", "fd00::8", "[fd00::8]:5"),
        (":0", None, f"{socket.gethostname()}:5"),
    ],
)
def test_the_address_that_others_are_told(bound: str, told: str | None, address: str) -> None:
    flags = ["--peer-bind-address", bound, *(["--peer-address", told] if told else [])]
    options = parse(["run", "--models", "f", "--root", "r", *flags])
    assert own_address(options, 5) == address


def test_a_port_that_is_taken_is_told_with_the_flag(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ["--peer-bind-address", f"127.0.0.1:{taken.getsockname()[1]}"]
        options = parse(["run", "--models", "f", "--root", "r", *flags])
        with pytest.raises(PeerBindError, match=re.escape("choose another --peer-bind-address")):
            NamedPeers(options, store, NO_COUNTS)
