"""Peers that lie, break off or die, and origins that go away: what is published stays right."""

from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agent.disk.blocks import BLOCK_BYTES, WRITTEN
from agent.engine import failed_ranges, range_retries, swarm
from agent.structs.causes import unreachable
from agent.structs.exchange import Neighbourhood, SharedFile
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.manifest import Grant
from agent.structs.pieces import MIN_PIECE_BYTES
from agent.structs.verified import verified
from tests.unit.agent.helpers import tree
from tests.unit.agent.memory import Memory
from tests.unit.agent.peers.fake_peer import Cut, FakePeer, fake_peer, reply, wait_for
from tests.unit.agent.peers.group import GROUP, KEY, Node, group, origin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.structs.exchange import Lane, Peer
    from tests.unit.agent.peers.fake_peer import Heard

PIECES = 3
FILES = {"a.bin": os.urandom(PIECES * MIN_PIECE_BYTES), "config.json": b"{}"}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that fail at the origin are sent again at once, or not at all: no test waits."""
    monkeypatch.setitem(range_retries._ATTEMPTS, FailureKind.UNREACHABLE, 1)
    monkeypatch.setattr(failed_ranges, "MAX_DELAY_SECONDS", 0.05)


def gone(*_: object) -> None:
    raise unreachable(ConnectionError(), "mem")


def damage(node: Node, path: str = "a.bin") -> None:
    """Flip bytes of a published file, which its node serves as they are."""
    with (node.store.path(KEY) / path).open("r+b") as file:
        file.seek(MIN_PIECE_BYTES + 100)
        wrong = bytes(byte ^ 1 for byte in file.read(1000))
        file.seek(MIN_PIECE_BYTES + 100)
        file.write(wrong)


def know(node: Node, *peers: Peer) -> None:
    """Let a node ask these peers alone."""
    node.directory.set_neighbourhoods({GROUP: Neighbourhood(node.name, peers)})


def written(node: Node) -> bool:
    """Whether a node has a whole piece of a download under way, which it tells nobody of yet."""
    blocks = bytes([WRITTEN]) * (MIN_PIECE_BYTES // BLOCK_BYTES)
    folder = node.store.staging_files(KEY).parent
    return any(blocks in path.read_bytes() for path in folder.glob("progress-*"))


def answered(lane: Lane) -> bool:
    """Whether a peer has said if it has the model."""
    return lane.takes_part is not None


def no_news(peer: FakePeer) -> bytes:
    peer.closing.wait()
    return Cut()


def owner_of_all(
    source: Memory,
    blob: Callable[[bytes, Heard], bytes],
    peer: Callable[[], FakePeer],
    has: str = "*",
) -> Callable[[Heard], bytes]:
    """A peer that has pieces of all files, and answers `blob` where it should send bytes."""
    content = {checksum.value: FILES[path] for path, checksum in source.checksums.items()}

    def answer(heard: Heard) -> bytes:
        if "/pieces?" in heard.path:
            if "after=0&" not in heard.path:
                return no_news(peer())
            files = dict.fromkeys(content, has)
            return reply(200, json.dumps({"revision": 1, "files": files}).encode())
        digest = heard.path.rpartition(":")[2]
        return blob(content[digest], heard)

    return answer


def range_of(data: bytes, heard: Heard) -> bytes:
    """The right answer to a request for a range."""
    first, last = map(int, heard.fields["range"].removeprefix("bytes=").split("-"))
    return reply(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}")


def blamed(node: Node) -> set[str]:
    """The addresses of the peers that a node leaves out."""
    return {address for address, _ in node.directory._banned}


def test_liar_is_blamed_and_the_origin_sends_what_is_right(tmp_path: Path) -> None:
    with group(tmp_path, origin(FILES), 2) as nodes:
        liar, victim = nodes.nodes
        liar.download()
        damage(liar)
        manifest = victim.download()
        assert tree(victim.store, KEY) == FILES
        assert victim.counts.lies == 1
        assert blamed(victim) == {liar.peer.address}
    assert manifest.peer_bytes


def test_nodes_that_relay_a_lie_publish_what_is_right(tmp_path: Path) -> None:
    with group(tmp_path, origin(FILES), 4) as nodes:
        liar, *others = nodes.nodes
        liar.download()
        damage(liar)
        nodes.nodes = others
        nodes.download()
        assert [tree(node.store, KEY) for node in others] == [FILES] * 3
        assert sum(node.counts.lies for node in others) >= 1


def test_honest_peer_is_not_blamed_for_the_lies_of_another(tmp_path: Path) -> None:
    with group(tmp_path, origin(FILES), 3) as nodes:
        liar, honest, victim = nodes.nodes
        for node in (liar, honest):
            know(node)
            node.download()
        damage(liar)
        victim.download()
        assert tree(victim.store, KEY) == FILES
        # The peer of each piece is chosen by chance: the liar may not have been asked for its lie.
        assert blamed(victim) <= {liar.peer.address}


def test_liar_beside_an_honest_peer_while_the_origin_is_gone(tmp_path: Path) -> None:
    source = origin(FILES)
    with group(tmp_path, source, 3) as nodes:
        liar, honest, victim = nodes.nodes
        for node in (liar, honest):
            know(node)
            node.download()
        damage(liar)
        source.on_open = gone
        victim.download()
        assert tree(victim.store, KEY) == FILES
        assert blamed(victim) <= {liar.peer.address}


def test_liar_is_proven_wrong_without_the_origin(tmp_path: Path) -> None:
    source = origin(FILES)
    with group(tmp_path, source, 3) as nodes:
        liar, honest, victim = nodes.nodes
        for node in (liar, honest):
            know(node)
            node.download()
        damage(liar)
        know(victim, liar.peer)
        lied = threading.Event()

        def told(*_: object) -> None:
            # The lie is complete, and the origin is asked who is wrong.
            if not lied.is_set():
                lied.set()
                know(victim, liar.peer, honest.peer)
            gone()

        source.on_open = told
        victim.download()
        assert lied.is_set()
        assert tree(victim.store, KEY) == FILES
        assert blamed(victim) == {liar.peer.address}


def test_peer_that_ends_each_answer_early(tmp_path: Path) -> None:
    source = origin(FILES)
    peer: FakePeer

    def half(data: bytes, heard: Heard) -> bytes:
        whole = range_of(data, heard)
        return Cut(whole[: -len(whole) // 2])

    with (
        group(tmp_path, source, 1) as nodes,
        fake_peer(owner_of_all(source, half, lambda: peer)) as peer,
    ):
        (node,) = nodes.nodes
        know(node, peer.peer())
        node.download()
        assert tree(node.store, KEY) == FILES
        assert node.counts.lies == 0
        assert any("/blobs/" in heard.path for heard in peer.heard)


@pytest.mark.parametrize("lives", range(PIECES + 1))
def test_peer_that_dies_at_a_piece(tmp_path: Path, lives: int) -> None:
    source = origin(FILES)
    peer: FakePeer
    sent = []

    def dies(data: bytes, heard: Heard) -> bytes:
        sent.append(heard)
        if len(sent) <= lives:
            return range_of(data, heard)
        peer.close()
        return Cut()

    with (
        group(tmp_path, source, 1) as nodes,
        fake_peer(owner_of_all(source, dies, lambda: peer)) as peer,
    ):
        (node,) = nodes.nodes
        know(node, peer.peer())
        manifest = node.download()
        assert tree(node.store, KEY) == FILES
    assert manifest.origin_bytes
    assert (manifest.origin_bytes or 0) + (manifest.peer_bytes or 0) >= SIZE


def test_all_peers_leave_in_the_middle(tmp_path: Path) -> None:
    source = origin(FILES)
    peer: FakePeer

    def leaves(data: bytes, heard: Heard) -> bytes:
        know(node)
        return range_of(data, heard)

    with (
        group(tmp_path, source, 1) as nodes,
        fake_peer(owner_of_all(source, leaves, lambda: peer)) as peer,
    ):
        (node,) = nodes.nodes
        know(node, peer.peer())
        node.download()
        assert tree(node.store, KEY) == FILES
        assert source.sent.total()


@pytest.mark.parametrize("lies", [False, True])
def test_download_without_origin_and_peers_fails_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lies: bool
) -> None:
    monkeypatch.setattr(swarm, "HOPE_SECONDS", 0.5)
    source = origin(FILES)
    peer: FakePeer

    def first(data: bytes, heard: Heard) -> bytes:
        if len(data) < MIN_PIECE_BYTES:
            return Cut()
        return range_of(bytes(len(data)) if lies else data, heard)

    with (
        group(tmp_path, source, 1) as nodes,
        fake_peer(owner_of_all(source, first, lambda: peer, has="1")) as peer,
    ):
        (node,) = nodes.nodes
        know(node, peer.peer())

        def late(*_: object) -> None:
            wait_for(lambda: written(node))
            gone()

        source.on_open = late
        with pytest.raises(DownloadError) as caught:
            node.download()
        assert caught.value.kind is FailureKind.UNREACHABLE
        assert "mem cannot be reached" in caught.value.message
        assert tree(node.store, KEY) is None
        source.on_open = lambda *_: None
        know(node)
        node.download()
        assert tree(node.store, KEY) == FILES
        # Nobody knows any more who sent the bytes that were here.
        assert node.counts.lies == 0
    # The piece of the peer was kept. If it is wrong, the whole file comes once more.
    pieces = PIECES - 1 + (PIECES if lies else 0)
    assert source.sent["a.bin"] == pieces * MIN_PIECE_BYTES


def test_peers_go_on_when_the_origin_goes_in_the_middle(tmp_path: Path) -> None:
    source = origin(FILES, piece=256 << 10)
    with group(tmp_path, source, 2) as nodes:
        first, second = nodes.nodes
        know(second)
        know(first)
        first.download()

        def cut(_path: str, at: int) -> None:
            # Also after the last byte of an answer, so that only its end is missing.
            if at:
                know(second, first.peer)
                (job,) = second.engine._schedule._jobs
                peers = job.swarm
                assert peers is not None
                wait_for(lambda: peers.takes_part)
                gone()

        source.on_read = cut
        second.download()
        assert tree(second.store, KEY) == FILES


def test_verified_digest_that_the_origin_disagrees_with_does_not_block(tmp_path: Path) -> None:
    source = Memory(FILES | {"a.bin": bytes(PIECES * MIN_PIECE_BYTES)})
    with group(tmp_path, source, 2) as nodes:
        first, second = nodes.nodes
        know(first)
        manifest = verified(first.download())
        assert manifest is not None
        (first.store.path(KEY) / "a.bin").unlink()
        source.contents = dict(FILES)
        second.download(manifest.hash)
        assert tree(second.store, KEY) == FILES
        assert second.counts.lies == 0


def test_requester_without_a_grant_for_the_copy_gets_nothing(tmp_path: Path) -> None:
    source = origin(FILES)
    with group(tmp_path, source, 2) as nodes:
        first, second = nodes.nodes
        first.download()
        shared = SharedFile("a.bin", len(FILES["a.bin"]), source.checksums["a.bin"].value)
        for grant, has in ((Grant(), True), (Grant(namespace="team"), False)):
            exchange = second.directory.exchange(KEY, [GROUP], grant)
            assert exchange is not None
            exchange.begin([shared], lambda: None)
            (lane,) = exchange.lanes()
            wait_for(partial(answered, lane))
            assert lane.takes_part is has
            if has:
                with closing(lane.read(shared.digest, 0, 10)) as body:
                    assert body.read(10) == FILES["a.bin"][:10]
            else:
                with pytest.raises(DownloadError) as caught:
                    lane.read(shared.digest, 0, 10)
                assert caught.value.kind is FailureKind.NOT_FOUND
            exchange.end()
