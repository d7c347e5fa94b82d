from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from agent.peers.directory import Directory
from agent.structs.exchange import Neighbourhood, SharedFile, grant_digest
from agent.structs.manifest import Grant
from agent.structs.verified import VerifiedFile, VerifiedManifest
from tests.unit.agent.peers.fake_peer import Cut, FakePeer, fake_peer, reply, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.peers.exchange import PeerExchange
    from tests.unit.agent.peers.fake_peer import Heard

KEY = "0123456789abcdef"
DIGEST = "a" * 64
FILE = SharedFile("a.bin", 100, DIGEST)
MANIFEST = VerifiedManifest(
    uri="s3://b/m", origin="s3", files=(VerifiedFile("a.bin", 100, "v", DIGEST),)
)


class Told:
    """Where downloads tell what they have."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def begin(self, key: str, grant: str, files: Iterable[SharedFile], folder: Path) -> None:
        self.calls.append(("begin", key, grant, tuple(files), folder))

    def wrote(self, key: str, digest: str, pieces: int) -> None:
        self.calls.append(("wrote", key, digest, pieces))

    def asks(self, key: str, digest: str, pieces: int) -> None:
        self.calls.append(("asks", key, digest, pieces))

    def lost(self, key: str, digest: str) -> None:
        self.calls.append(("lost", key, digest))

    def end(self, key: str) -> None:
        self.calls.append(("end", key))


def has_all(peer: Callable[[], FakePeer]) -> Callable[[Heard], bytes]:
    """Answers that the file is there, and has no news after that."""

    def answer(heard: Heard) -> bytes:
        if "after=0&" in heard.path:
            return reply(200, json.dumps({"revision": 1, "files": {DIGEST: "*"}}).encode())
        peer().closing.wait()
        return Cut()

    return answer


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def directory(told: Told) -> Directory:
    return Directory(told, lambda key: Path("/staging") / key)


def exchange(directory: Directory, *peers: FakePeer) -> PeerExchange:
    named = tuple(one.peer(node=f"node-{number}") for number, one in enumerate(peers))
    directory.set_neighbourhoods({"gpus": Neighbourhood("me", named, "zone-a")})
    found = directory.exchange(KEY, ["gpus"], Grant())
    assert found is not None
    return found


def test_it_tells_what_it_has_until_it_ends(directory: Directory, told: Told) -> None:
    running = exchange(directory)
    running.begin([FILE], lambda: None)
    running.wrote(DIGEST, 1)
    running.wrote(DIGEST, 0)
    running.lost(DIGEST)
    running.end()
    assert told.calls == [
        ("begin", KEY, grant_digest(Grant()), (FILE,), Path("/staging") / KEY),
        ("wrote", KEY, DIGEST, 1),
        ("lost", KEY, DIGEST),
        ("end", KEY),
    ]


def test_an_exchange_that_has_not_begun_asks_and_tells_nothing(
    directory: Directory, told: Told
) -> None:
    with fake_peer(lambda _: reply(404)) as peer:
        running = exchange(directory, peer)
        assert list(running.lanes()) == []
        running.end()
        assert peer.heard == []
    assert told.calls == []


def test_a_lane_knows_what_its_peer_has_and_ends_with_the_exchange(directory: Directory) -> None:
    with fake_peer(lambda _: reply(404)) as peer:
        peer.answer = has_all(lambda: peer)
        running = exchange(directory, peer)
        running.begin([FILE], lambda: None)
        (lane,) = running.lanes()
        wait_for(lambda: lane.pieces == {DIGEST: 1})
        assert lane.takes_part
        assert peer.heard[0].fields["localmodel-grant"] == grant_digest(Grant())
        running.end()
        assert list(running.lanes()) == []
        running.meet(Neighbourhood("me", (peer.peer(),)), ())
        assert list(running.lanes()) == []


def test_lanes_follow_the_neighbourhood_and_stay_with_their_peer(directory: Directory) -> None:
    with fake_peer(lambda _: reply(404)) as one, fake_peer(lambda _: reply(404)) as two:
        running = exchange(directory, one)
        running.begin([FILE], lambda: None)
        (first,) = running.lanes()
        directory.set_neighbourhoods(
            {"gpus": Neighbourhood("me", (one.peer(node="node-0"), two.peer(node="node-1")))}
        )
        kept, added = running.lanes()
        assert kept is first
        assert added.peer.node == "node-1"
        # An agent that was started again has another certificate.
        directory.set_neighbourhoods(
            {"gpus": Neighbourhood("me", (two.peer(node="node-1"), two.peer("f" * 64, "node-2")))}
        )
        assert first not in running.lanes()
        assert running.lanes()[0] is added
        running.end()


@pytest.mark.parametrize("answer", ["absent", "other", "garbage", "broken"])
def test_the_manifest_comes_from_the_first_peer_that_has_it(
    directory: Directory, answer: str
) -> None:
    wrong = {
        "absent": reply(404),
        "other": reply(200, structs.replace(MANIFEST, uri="s3://b/other").encode()),
        "garbage": reply(200, b"\xff"),
        "broken": Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
    }[answer]
    with (
        fake_peer(lambda _: wrong) as one,
        fake_peer(lambda _: reply(200, MANIFEST.encode())) as two,
    ):
        running = exchange(directory, one, two)
        assert running.manifest(MANIFEST.hash) == MANIFEST
        assert one.heard[0].path == f"/v2/{KEY}/manifests/{MANIFEST.hash}"
        directory.set_neighbourhoods({"gpus": Neighbourhood("me", (one.peer(),))})
        assert running.manifest(MANIFEST.hash) is None
        running.end()
