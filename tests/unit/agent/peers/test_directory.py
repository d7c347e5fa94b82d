from __future__ import annotations

from pathlib import Path

import pytest

from agent.peers.directory import BANNED_SECONDS, Directory
from agent.structs.counts import Counts
from agent.structs.exchange import Neighbourhood, Peer, SharedFile, grant_digest
from agent.structs.manifest import Grant
from tests.unit.agent.peers.fake_peer import fake_peer, reply, wait_for
from tests.unit.agent.peers.test_exchange import Told

KEY = "0123456789abcdef"
ONE, TWO = Peer("one", "127.0.0.1:1"), Peer("two", "127.0.0.1:2")


class Lies(Counts):
    def __init__(self) -> None:
        self.count = 0

    def peer_lied(self) -> None:
        self.count += 1


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lies() -> Lies:
    return Lies()


@pytest.fixture
def directory(clock: Clock, lies: Lies) -> Directory:
    return Directory(Told(), Path, counts=lies, monotonic=clock)


def peers(directory: Directory, *groups: str) -> list[Peer]:
    found = directory.exchange(KEY, groups, Grant())
    assert found is not None
    present = list(found.neighbourhood.peers)
    found.end()
    return present


def test_without_a_group_that_exchanges_there_is_no_exchange(directory: Directory) -> None:
    assert directory.exchange(KEY, ["gpus"], Grant()) is None
    directory.set_neighbourhoods({"other": Neighbourhood("me", (ONE,))})
    assert directory.exchange(KEY, ["gpus"], Grant()) is None


def test_the_peers_of_all_groups_are_joined_and_a_seed_in_one_is_a_seed(
    directory: Directory,
) -> None:
    leech = Peer(ONE.node, ONE.address, seed=False)
    directory.set_neighbourhoods(
        {
            "a": Neighbourhood("me", (leech, TWO), seed=False),
            "b": Neighbourhood("me", (ONE,), seed=True),
            "c": Neighbourhood("me", (leech,), seed=False),
        }
    )
    assert peers(directory, "a", "b") == [ONE, TWO]
    assert peers(directory, "c", "a") == [leech, TWO]
    for groups, seed in ((["a", "b"], True), (["a", "c"], False)):
        found = directory.exchange(KEY, groups, Grant())
        assert found is not None
        assert found.neighbourhood.seed is seed


def test_the_own_node_is_no_peer(directory: Directory) -> None:
    directory.set_neighbourhoods({"a": Neighbourhood("two", (ONE, TWO))})
    assert peers(directory, "a") == [ONE]


def test_a_peer_that_lied_is_left_out_for_a_while(
    directory: Directory, clock: Clock, lies: Lies
) -> None:
    directory.set_neighbourhoods({"a": Neighbourhood("me", (ONE, TWO))})
    running = directory.exchange(KEY, ["a"], Grant())
    assert running is not None
    running.begin([SharedFile("a.bin", 1, "a" * 64)], lambda: None)
    lane = running.lanes()[0]
    assert lane.peer == ONE
    running.blame(lane, "a.bin")
    running.blame(lane, "b.bin")
    assert [one.peer for one in running.lanes()] == [TWO]
    assert peers(directory, "a") == [TWO]
    assert lies.count == 1
    # The same node with another certificate is another agent.
    restarted = Peer(ONE.node, ONE.address, "f" * 64)
    directory.set_neighbourhoods({"b": Neighbourhood("me", (restarted,))})
    assert directory._of_locked(["b"]) == Neighbourhood("me", (restarted,))
    directory.set_neighbourhoods({"a": Neighbourhood("me", (ONE, TWO))})
    clock.now += BANNED_SECONDS - 1
    assert peers(directory, "a") == [TWO]
    clock.now += 1
    assert peers(directory, "a") == [ONE, TWO]
    running.end()


def test_downloads_share_the_client_of_a_peer_until_nobody_uses_it(directory: Directory) -> None:
    directory.set_neighbourhoods({"a": Neighbourhood("me", (ONE,))})
    first, second = (directory.exchange(key, ["a"], Grant()) for key in (KEY, "f" * 16))
    assert first is not None
    assert second is not None
    assert first._clients == second._clients
    client = first._clients[0]
    first.end()
    assert second._clients == (client,)
    second.end()
    assert directory._clients == {}


def test_a_group_that_is_disabled_leaves_its_downloads_to_the_origin(directory: Directory) -> None:
    with fake_peer(lambda _: reply(404)) as peer:
        directory.set_neighbourhoods({"a": Neighbourhood("me", (peer.peer(),))})
        running = directory.exchange(KEY, ["a"], Grant())
        assert running is not None
        running.begin([SharedFile("a.bin", 1, "a" * 64)], lambda: None)
        wait_for(lambda: peer.heard)
        directory.set_neighbourhoods({})
        assert list(running.lanes()) == []
        assert running.neighbourhood == Neighbourhood("me")
        running.end()


def test_all_grants_of_the_administrator_are_told_as_one() -> None:
    assert grant_digest(Grant(service_account="a", storage_key="k")) == grant_digest(Grant())
    one, other = Grant(namespace="a"), Grant(namespace="a", service_account="b")
    assert len({grant_digest(grant) for grant in (Grant(), one, other)}) == 3
