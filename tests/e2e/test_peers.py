"""Agents of a group fetch a model from each other, with the shipped rights and policies."""

from __future__ import annotations

import hashlib
import http.client
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agent.peers.client import GRANT, Credentials, PeerClient
from agent.peers.identity import Identity
from agent.structs.exchange import Peer, grant_digest
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.manifest import Grant, ManifestFile, model_hash
from crds.keys import model_key
from deploy.kube.kinds import GROUPS, LOCAL_MODEL_NODES, NODES
from deploy.local import product
from deploy.local.cluster import Cluster
from deploy.local.origin import S3Origin
from tests.e2e import audit
from tests.e2e.conftest import METACONTROLLERS
from tests.e2e.origin import HttpOrigin
from tests.e2e.relay import Relay
from tests.e2e.world import GRACE_SECONDS, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.kube.kinds import KubeObject

MIB = 1 << 20
GROUP = "peers"
MEMBERS = ("node-1", "node-2", "node-3", "node-4")
SECONDS = 180.0
SIZE = 96 * MIB


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    # The origin's port is known once it is made.
    made = Relay(0)
    yield made
    made.close()


@pytest.fixture(scope="module", params=METACONTROLLERS[-1:])
def group(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, relay: Relay
) -> Iterator[World]:
    """A cluster whose agents reach the S3 server through the relay, and a group with peers."""
    folder: Path = tmp_path_factory.mktemp("peers")
    cluster, s3, http = Cluster(folder / "local"), S3Origin(), HttpOrigin()
    relay.target = ("127.0.0.1", s3.port)
    cluster.up(
        len(MEMBERS),
        metacontroller=request.param,
        default_storage_class=True,
        grace_seconds=GRACE_SECONDS,
        progress_seconds=0.5,
        agent_env=s3.agent_env() | {"AWS_ENDPOINT_URL": relay.url},
        owner_pid=os.getpid(),
    )
    try:
        s3.start(cluster)
        world = World(cluster, http, s3)
        for node in MEMBERS:
            world.node(node, GROUP)
        world.group(GROUP, download={"peers": "Enabled"})
        world.wait_condition(GROUP, "NodesFound", resource=GROUPS)
        world.until(lambda: all(len(_peers(world, node)) == 3 for node in MEMBERS), "the peers")
        yield world
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()


def _node(world: World, node: str) -> KubeObject:
    return world.find(LOCAL_MODEL_NODES, node) or {}


def _peers(world: World, node: str) -> list[dict[str, Any]]:
    """The peers that a node is told."""
    for ref in _node(world, node).get("spec", {}).get("groups", ()):
        if ref["name"] == GROUP:
            return list(ref.get("exchange", {}).get("peers", ()))
    return []


def _peer(world: World, node: str) -> Peer:
    told = _node(world, node)["status"]["peer"]
    return Peer(node, told["address"], told["fingerprint"])


def _upload(world: World, folder: Path, name: str, size: int = SIZE) -> tuple[str, str]:
    """Upload a model of one file with its SHA-256. Returns its URI and that digest."""
    folder.mkdir()
    content = os.urandom(size)
    (folder / "weights.bin").write_bytes(content)
    uri = world.s3.upload(folder, name, checksum="SHA256")
    return uri, hashlib.sha256(content).hexdigest()


def _label(world: World, node: str, value: str | None) -> None:
    world.patch(NODES, node, {"metadata": {"labels": {GROUP: value}}})


def _verified(world: World, node: str, uri: str) -> bool:
    listed = _node(world, node).get("spec", {}).get("localModels", ())
    return any(one.get("verifiedManifest") for one in listed if one["sourceModelUri"] == uri)


def _all_have(world: World, uri: str, nodes: tuple[str, ...] = MEMBERS) -> bool:
    return all(world.published(node, uri) for node in nodes)


def _credentials(identity: Identity) -> Credentials:
    return Credentials(
        identity.certificate, identity.client_context(), identity.introduction_context()
    )


def test_four_nodes_fetch_a_model_from_the_origin_once(
    group: World, relay: Relay, tmp_path: Path
) -> None:
    uri, _ = _upload(group, tmp_path / "model", "once")
    # The origin is the limit: else each node may as well ask it.
    relay.sent, relay.bytes_per_second = 0, 12.0 * MIB
    try:
        group.cache("once", uri, GROUP)
        group.until(lambda: _all_have(group, uri), "the copies", SECONDS)
    finally:
        relay.bytes_per_second = 0.0
    # Where a node starves, others fetch some of its pieces too.
    assert relay.sent < 1.5 * SIZE
    group.wait_ready("once", len(MEMBERS))
    reports = [group.report(node, uri) for node in MEMBERS]
    assert {report["hash"] for report in reports} == {reports[0]["hash"]}
    assert all(report["peerBytes"] > 0 for report in reports)
    assert sum(report["originBytes"] for report in reports) < 1.5 * SIZE
    group.remove_caches("once")


def test_a_new_node_is_filled_by_its_peers_while_the_origin_is_gone(
    group: World, relay: Relay, tmp_path: Path
) -> None:
    uri, digest = _upload(group, tmp_path / "model", "gone", 12 * MIB)
    last, others = MEMBERS[-1], MEMBERS[:-1]
    _label(group, last, None)
    group.until(lambda: not _peers(group, last), "the node to leave the group")
    try:
        expected = model_hash([ManifestFile(path="weights.bin", size=12 * MIB, sha256=digest)])
        group.cache("gone", uri, GROUP, hash=expected)
        group.until(lambda: _all_have(group, uri, others), "the copies", SECONDS)
        group.until(lambda: _verified(group, others[0], uri), "the verified manifest")
        relay.is_cut = True
        _label(group, last, "yes")
        group.until(lambda: group.published(last, uri), "the copy of the new node", SECONDS)
    finally:
        relay.is_cut = False
        _label(group, last, "yes")
    group.until(lambda: group.report(last, uri).get("cached"), "the node to report it")
    report = group.report(last, uri)
    assert report["originBytes"] == 0
    assert report["peerBytes"] == 12 * MIB
    assert report["reason"] == "OriginNotAsked"
    group.remove_caches("gone")


def test_only_agents_of_the_group_get_anything_and_only_what_was_granted(
    group: World, tmp_path: Path
) -> None:
    uri, digest = _upload(group, tmp_path / "model", "mine", 5 * MIB)
    group.cache("mine", uri, GROUP)
    group.until(lambda: _all_have(group, uri), "the copies", SECONDS)
    key, grant, peer = model_key(uri), grant_digest(Grant()), _peer(group, MEMBERS[0])

    # An agent of another cluster has a certificate that no LocalModelNode here names.
    with closing(PeerClient(peer, _credentials(Identity()))) as stranger:
        assert _refusal(stranger, key, grant, digest) is FailureKind.UNREACHABLE
    # A tenant's pod has the token of its service account, and no certificate.
    token = group.kubectl("create", "token", "default", "-n", "default").strip()
    assert _status_with_token(peer, token, key, grant, digest) == 401

    # What a stolen token of an agent can do: stand in for that agent.
    thief, last = Identity(), MEMBERS[-1]
    name = product.agent_name(last)
    stolen = audit.as_user(group.cluster.layout.user_kubeconfig(name))
    group.cluster.stop(name)
    try:
        told = {"address": "127.0.0.1:9", "fingerprint": thief.fingerprint}
        stolen.patch(LOCAL_MODEL_NODES, last, {"status": {"peer": told}}, subresource="status")
        group.until(
            lambda: any(
                one["fingerprint"] == thief.fingerprint for one in _peers(group, MEMBERS[0])
            ),
            "the nodes to be told",
        )
        with closing(PeerClient(peer, _credentials(thief))) as client:
            group.until(lambda: _may_read(client, key, grant, digest), "the agent to be told")
            # The digest alone is no proof: nothing was granted to this namespace.
            tenant = grant_digest(Grant(namespace="team-b"))
            assert _refusal(client, key, tenant, digest) is FailureKind.NOT_FOUND
            assert _refusal(client, key, grant, "0" * 64) is FailureKind.NOT_FOUND
    finally:
        group.cluster.start(name)
    group.remove_caches("mine")


def _refusal(client: PeerClient, key: str, grant: str, digest: str) -> FailureKind:
    with pytest.raises(DownloadError) as refused:
        client.range(key, grant, digest, 0, 100)
    return refused.value.kind


def _may_read(client: PeerClient, key: str, grant: str, digest: str) -> bool:
    try:
        with closing(client.range(key, grant, digest, 0, 100)) as body:
            return len(body.read(100)) == 100
    except DownloadError:
        return False


def _status_with_token(peer: Peer, token: str, key: str, grant: str, digest: str) -> int:
    context = Identity().introduction_context()
    host, _, port = peer.address.rpartition(":")
    headers = {"Authorization": f"Bearer {token}", GRANT: grant, "Range": "bytes=0-99"}
    with closing(http.client.HTTPSConnection(host, int(port), context=context)) as connection:
        connection.request("GET", f"/v2/{key}/blobs/sha256:{digest}", headers=headers)
        return connection.getresponse().status
