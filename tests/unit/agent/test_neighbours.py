"""The peers that a LocalModelNode names, and how an agent follows and reports them."""

from __future__ import annotations

import copy
import hashlib
import socket
import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.node_api import parse_node
from agent.commands.flags import parse
from agent.commands.metrics import Metrics
from agent.commands.peers import ClusterPeers
from agent.control.neighbours import neighbourhoods
from agent.sources import Sources
from agent.structs.causes import unreachable
from agent.structs.exchange import Neighbourhood, Peer
from crds.node import LocalModelNodeGroupRef
from crds.peers import AgentPeer, Exchange, ExchangePeer
from tests.unit.agent.api_server import FakeServer, write_kubeconfig
from tests.unit.agent.commands import start
from tests.unit.agent.helpers import local_model, node_object, tree
from tests.unit.agent.peers.group import origin
from tests.unit.agent.scrape import scrape
from tests.unit.agent.servers import WebFiles, serving
from tests.unit.agent.test_pull import wait_for
from tests.unit.agent.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crds.node import LocalModelNode
    from tests.unit.agent.memory import Memory

ONE, TWO = "1" * 64, "2" * 64
FILES = {"config.json": b"{}", "weights.bin": b"weights" * 1_000_000}
SIZE = sum(map(len, FILES.values()))
MODEL = local_model("m", "mem://model")


def group(name: str, exchange: Exchange | None) -> LocalModelNodeGroupRef:
    return LocalModelNodeGroupRef(name=name, storage_limit="1Gi", exchange=exchange)


def node_of(*groups: LocalModelNodeGroupRef, **labels: str) -> LocalModelNode:
    found = node_object(groups=groups)
    found["metadata"]["labels"] = {name.replace("_", "/"): text for name, text in labels.items()}
    node = parse_node(found)
    assert node is not None
    return node


def test_each_group_that_exchanges_has_its_peers() -> None:
    peers = (
        ExchangePeer(node="node-2", address="10.0.0.2:8089", fingerprint=TWO, zone="a", seed=True),
        ExchangePeer(node="node-3", address="[fd00::3]:8089", fingerprint=ONE),
    )
    node = node_of(
        group("gpu", Exchange(seed=True, peers=peers)),
        group("alone", Exchange()),
        group("off", None),
        **{"topology.kubernetes.io_zone": "a"},
    )
    assert neighbourhoods(node) == {
        "gpu": Neighbourhood(
            node="node-1",
            peers=(
                Peer("node-2", "10.0.0.2:8089", TWO, "a", seed=True),
                Peer("node-3", "[fd00::3]:8089", ONE, "", seed=False),
            ),
            zone="a",
            seed=True,
        ),
        "alone": Neighbourhood("node-1", (), "a", seed=False),
    }


def test_a_node_is_no_peer_of_its_own() -> None:
    itself = ExchangePeer(node="node-1", address="10.0.0.1:8089", fingerprint=ONE)
    node = node_of(group("gpu", Exchange(peers=(itself,))))
    assert neighbourhoods(node)["gpu"].peers == ()


def test_nobody_is_a_peer_while_the_object_is_gone() -> None:
    assert neighbourhoods(None) == {}


class Agent:
    """An agent of a cluster with its own disk and API server, and with the flags of its peers."""

    def __init__(self, name: str, folder: Path, source: Memory, stack: ExitStack) -> None:
        self.name = name
        server = stack.enter_context(serving(WebFiles({})))
        self.world = world = World(folder, WebFiles({}), server, sources=Sources({"mem": source}))
        bound = ["--peer-bind-address", "127.0.0.1:0"]
        options = parse(["run", "--node-name", name, "--root", str(folder), *bound])
        self.counts = Metrics()
        self.peers = world.peers = ClusterPeers(options, world.store, self.counts)
        world.options["counts"] = self.counts
        world.restart()
        self.peers.start()
        stack.callback(world.store.close)
        stack.callback(self.peers.close)
        stack.callback(world.loop.stop)

    def observe(self, *models: Any, exchange: Exchange | None) -> None:
        """The LocalModelNode now lists these models and peers."""
        self.world.groups = (group("gpus", exchange),)
        self.world.want(*models, told=False)
        node = self.world.api.node
        assert node is not None
        node["metadata"]["name"] = self.name
        self.world.loop.observe(copy.deepcopy(node))

    def reported(self) -> ExchangePeer:
        """The agent as its peers learn of it: by its status alone."""
        return ExchangePeer(node=self.name, **self.world.status()["peer"])

    def entry(self) -> dict[str, Any]:
        (found,) = self.world.status()["models"]
        return dict(found)


@pytest.fixture
def source() -> Memory:
    return origin(FILES)


@pytest.fixture
def agents(tmp_path: Path, source: Memory) -> Iterator[tuple[Agent, Agent]]:
    with ExitStack() as stack:
        first, second = (Agent(f"node-{n}", tmp_path / f"{n}", source, stack) for n in (1, 2))
        for agent in (first, second):
            agent.observe(exchange=Exchange())
            agent.world.step()
        yield first, second


def test_a_node_fetches_from_the_peer_that_its_object_names(
    agents: tuple[Agent, Agent], source: Memory
) -> None:
    first, second = agents
    one, two = first.reported(), second.reported()
    assert one.fingerprint != two.fingerprint
    first.observe(MODEL, exchange=Exchange(seed=True, peers=(two,)))
    first.world.settle()

    def gone(*_: object) -> None:
        raise unreachable(ConnectionError(), "mem")

    # However slow the machine is: the origin lists the files and sends none.
    source.on_open = gone
    second.observe(MODEL, exchange=Exchange(seed=True, peers=(one,)))
    second.world.settle()
    assert tree(second.world.store, MODEL.key) == FILES
    entry = second.entry()
    assert (entry["originBytes"], entry["peerBytes"]) == (0, SIZE)
    # Both have found the same files, which the hooks compare.
    assert entry["manifestHash"] == first.entry()["manifestHash"]
    assert first.entry()["originBytes"] == SIZE
    assert scrape(second.counts).value("peer_received_bytes_total", "other") == SIZE
    assert scrape(first.counts).value("peer_sent_bytes_total") == SIZE


def test_only_peers_that_the_object_names_may_ask(agents: tuple[Agent, Agent]) -> None:
    first, second = agents
    one = first.reported()
    # The second one knows the first, and the first knows nobody.
    first.observe(MODEL, exchange=Exchange(seed=True))
    first.world.settle()
    second.observe(MODEL, exchange=Exchange(seed=True, peers=(one,)))
    second.world.settle()
    assert tree(second.world.store, MODEL.key) == FILES
    assert second.entry()["originBytes"] == SIZE
    assert scrape(first.counts).value("peer_sent_bytes_total") == 0


def test_nothing_is_exchanged_any_more_once_the_object_is_gone(
    agents: tuple[Agent, Agent],
) -> None:
    first, second = agents
    one, two = first.reported(), second.reported()
    first.observe(MODEL, exchange=Exchange(seed=True, peers=(two,)))
    first.world.settle()
    first.world.vanish()
    first.world.step()
    second.observe(MODEL, exchange=Exchange(seed=True, peers=(one,)))
    second.world.settle()
    assert second.entry()["originBytes"] == SIZE
    assert scrape(first.counts).value("peer_sent_bytes_total") == 0


def test_a_group_that_exchanges_nothing_compares_no_manifests(
    agents: tuple[Agent, Agent],
) -> None:
    first, _ = agents
    first.observe(MODEL, exchange=None)
    first.world.settle()
    assert first.entry()["state"] == "Downloaded"
    assert "manifestHash" not in first.entry()
    first.observe(MODEL, exchange=Exchange())
    first.world.settle()
    assert first.entry()["manifestHash"].startswith("sha256:")


@pytest.mark.timeout(120)
def test_an_agent_reports_where_it_serves_its_peers(tmp_path: Path) -> None:
    fake = FakeServer()
    fake.node = node_object(groups=(group("gpus", Exchange()),))
    fake.node["metadata"]["resourceVersion"] = "1"
    with serving(fake) as server:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        flags = ["--node-name", "node-1", "--root", tmp_path / "root", "--kubeconfig", kubeconfig]
        process = start("run", *flags, "--peer-bind-address", "127.0.0.1:0")
        try:
            wait_for(lambda: bool(fake.patches))
            _, _, body = fake.patches[0]
            peer = AgentPeer.model_validate(body["status"]["peer"])
            host, _, port = peer.address.rpartition(":")
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with (
                socket.create_connection((host, int(port)), timeout=30) as plain,
                context.wrap_socket(plain) as encrypted,
            ):
                certificate = encrypted.getpeercert(binary_form=True)
        finally:
            process.kill()
            process.communicate()
    assert certificate is not None
    assert hashlib.sha256(certificate).hexdigest() == peer.fingerprint
