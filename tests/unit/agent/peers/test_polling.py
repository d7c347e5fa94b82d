from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agent.peers import polling as module
from agent.peers.client import PeerClient
from agent.peers.polling import Polling
from agent.structs.exchange import SharedFile
from agent.structs.pieces import MIN_PIECE_BYTES, all_pieces
from tests.unit.agent.peers.fake_peer import Cut, fake_peer, reply, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.agent.peers.fake_peer import FakePeer, Heard

DIGEST = "a" * 64
SIZE = 10 * MIN_PIECE_BYTES
FILES = {DIGEST: SharedFile("a.bin", SIZE, DIGEST)}


def told(revision: Any, **files: Any) -> bytes:
    return reply(200, json.dumps({"revision": revision, "files": files}).encode())


class Script:
    """Gives these answers in turn; then the peer has no news, and waits."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.peer: FakePeer

    def __call__(self, _: Heard) -> bytes:
        if self.answers:
            return self.answers.pop(0)
        self.peer.closing.wait()
        return Cut()


@contextmanager
def polled(
    script: Script, news: Callable[[], None] = lambda: None
) -> Iterator[tuple[Polling, FakePeer]]:
    with fake_peer(script) as peer:
        script.peer = peer
        polling = Polling(PeerClient(peer.peer(), None), "k" * 16, "g" * 64, FILES, news)
        polling.start()
        try:
            yield polling, peer
        finally:
            polling.end()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ABSENT_SECONDS", "RETRY_SECONDS", "MAX_RETRY_SECONDS", "MIN_SECONDS"):
        monkeypatch.setattr(module, name, 0.01)


def test_it_learns_pieces_and_asks_for_what_comes_after() -> None:
    news = threading.Semaphore(0)
    script = Script(told(7, **{DIGEST: "5", "b" * 64: "*"}), told(8, **{DIGEST: "*"}))
    with polled(script, news.release) as (polling, peer):
        wait_for(lambda: len(peer.heard) == 3)
        # The digest of a file that the download does not have is left out.
        assert polling.pieces == {DIGEST: all_pieces(SIZE)}
        assert polling.takes_part
        assert news.acquire(timeout=20)
        assert news.acquire(timeout=20)
        assert [one.path.split("after=")[1].split("&")[0] for one in peer.heard] == ["0", "7", "8"]


def _learned(*answers: bytes, count: int) -> list[tuple[object, object]]:
    """The pieces, and those that were asked for, at each of so many news; no more may come."""
    seen: list[tuple[object, object]] = []
    script = Script(*answers)
    with fake_peer(script) as peer:
        script.peer = peer
        client = PeerClient(peer.peer(), None)

        def note() -> None:
            seen.append((polling.pieces, polling.asked))

        polling = Polling(client, "k" * 16, "g" * 64, FILES, note)
        polling.start()
        wait_for(lambda: len(seen) == count and len(peer.heard) > len(answers))
        polling.end()
    return seen


def test_it_learns_what_the_peer_has_asked_the_origin_for() -> None:
    # News of other files change nothing, and the file has ten pieces.
    answers = told(1, **{DIGEST: "1,6"}), told(2), told(3, **{DIGEST: "3,c00"})
    seen = _learned(*answers, count=2)
    assert seen == [({DIGEST: 0b1}, {DIGEST: 0b110}), ({DIGEST: 0b11}, {})]


def test_fewer_pieces_replace_more_in_a_new_mapping() -> None:
    seen = _learned(told(1, **{DIGEST: "*"}), told(2, **{DIGEST: "0"}), count=2)
    assert seen == [({DIGEST: all_pieces(SIZE)}, {}), ({DIGEST: 0}, {})]


def test_pieces_that_the_file_does_not_have_are_left_out() -> None:
    with polled(Script(told(1, **{DIGEST: "fff"}))) as (polling, _):
        wait_for(lambda: polling.pieces)
        assert polling.pieces == {DIGEST: all_pieces(SIZE)}


@pytest.mark.parametrize(
    "answer",
    [
        told(1, **{DIGEST: "-1"}),
        told(1, **{DIGEST: "0x3"}),
        told(1, **{DIGEST: " 3"}),
        told(1, **{DIGEST: "f" * 5000}),
        told(1, **{DIGEST: 3}),
        told(1, **{DIGEST: None}),
        told(1, **{DIGEST: ""}),
        told(1, **{DIGEST: "fffff"}),
        told(1, **{DIGEST: "3,fffff"}),
        told(1, **{DIGEST: "3,"}),
        told(1, **{DIGEST: ",3"}),
        told(1, **{DIGEST: "3,*"}),
        told(True, **{DIGEST: "*"}),
        told(-1, **{DIGEST: "*"}),
        told(1 << 64, **{DIGEST: "*"}),
        reply(200, b"[" * 100_000),
        reply(200, b'{"revision": 1, "files": {}, "more": ' + b"[" * 100_000),
        told(1, **{"a" * 63: "*"}),
        told(1, **{"": ""}),
        reply(200, b"[]"),
        reply(200, b'{"revision": 1, "files": []}'),
        reply(200, b"\xff"),
        reply(200, b""),
        reply(500),
        reply(404),
        Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
    ],
)
def test_after_garbage_it_knows_nothing_and_asks_from_the_start(answer: bytes) -> None:
    script = Script(told(4, **{DIGEST: "1"}), answer)
    with polled(script) as (polling, peer):
        wait_for(lambda: len(peer.heard) == 3)
        assert (polling.pieces, polling.asked, polling.takes_part) == ({}, {}, False)
        assert "after=0&" in peer.heard[2].path


def test_it_hears_of_a_peer_that_comes_back() -> None:
    with polled(Script(reply(404), Cut(), told(1, **{DIGEST: "1"}))) as (polling, _):
        wait_for(lambda: polling.pieces == {DIGEST: 1})
        assert polling.takes_part


def test_failures_wait_longer_each_time_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 1.0)
    monkeypatch.setattr(module, "MAX_RETRY_SECONDS", 30.0)
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    with fake_peer(lambda _: reply(500)) as peer:
        polling = Polling(PeerClient(peer.peer(), None), "k" * 16, "g", FILES, lambda: None)
        assert [polling._ask() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_peer_that_answers_without_waiting_is_not_asked_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MIN_SECONDS", 1000.0)
    with fake_peer(lambda _: told(1)) as peer:
        polling = Polling(PeerClient(peer.peer(), None), "k" * 16, "g", FILES, lambda: None)
        assert polling._ask() > 900


def test_the_end_breaks_off_a_request_that_waits() -> None:
    with polled(Script()) as (polling, peer):
        wait_for(lambda: peer.heard)
        name = f"peer-{peer.peer().node}"
        mine = [one for one in threading.enumerate() if one.name == name]
        assert mine
        polling.end()
        for one in mine:
            # It would wait for half a minute otherwise.
            one.join(15)
            assert not one.is_alive()
