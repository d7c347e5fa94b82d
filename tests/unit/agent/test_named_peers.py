"""Agents without Kubernetes, whose peers are named by flags, as processes."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agent.commands.flags import parse
from agent.commands.listening import BindError
from agent.commands.peers import NamedPeers, own_address
from agent.structs.counts import NO_COUNTS
from agent.structs.manifest import Grant
from crds.keys import model_key
from tests.contract.servers_hf import Hub, Repo, serving_hub
from tests.unit.agent.commands import TREE, command, environment
from tests.unit.agent.test_pull import closed_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.disk.store import Store
    from tests.contract.servers_hf import RunningHub

pytestmark = pytest.mark.timeout(120)

URI = "hf://org/model"
FILES = {"weights.bin": b"weights" * 1_000_000}


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    """A hub, whose listings have the SHA-256 of large files."""
    repo = Repo()
    repo.commit(FILES)
    with serving_hub(Hub({"org/model": repo})) as running:
        yield running


@contextmanager
def serving_agent(folder: Path, hub: RunningHub) -> Iterator[str]:
    """An agent that has the model and serves it. Yields its address."""
    folder.mkdir()
    file = folder / "models.yaml"
    file.write_text(f"models: [{{uri: '{URI}'}}]")
    arguments = ["run", "--models", file, "--root", folder / "root", "--log-format", "json"]
    process = subprocess.Popen(
        command(*arguments, "--peer-bind-address", "127.0.0.1:0"),
        cwd=TREE,
        env=environment(HF_ENDPOINT=hub.url),
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


def pull(hub: RunningHub, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("pull", *arguments),
        cwd=TREE,
        env=environment(HF_ENDPOINT=hub.url),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_pull_fetches_from_the_agents_that_it_is_told(tmp_path: Path, hub: RunningHub) -> None:
    with serving_agent(tmp_path / "agent", hub) as address:
        # From now on the hub lists the file, and nobody sends it.
        hub.hub.cdn_url = f"http://127.0.0.1:{closed_port()}"
        done = pull(hub, URI, tmp_path / "m", "--retries", "0", "--peer", address)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m/weights.bin").read_bytes() == FILES["weights.bin"]


def test_a_peer_that_is_not_there_stops_no_pull(tmp_path: Path, hub: RunningHub) -> None:
    done = pull(hub, URI, tmp_path / "m", "--peer", f"127.0.0.1:{closed_port()}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m/weights.bin").read_bytes() == FILES["weights.bin"]


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
        with pytest.raises(BindError, match=re.escape("choose another --peer-bind-address")):
            NamedPeers(options, store, NO_COUNTS)
