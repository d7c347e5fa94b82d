from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from agent.peers.client import MAX_RETRY_AFTER_SECONDS, Credentials, PeerClient
from agent.peers.identity import Identity
from agent.structs.exchange import Peer
from agent.structs.failures import DownloadError, FailureKind
from crds.keys import model_key
from tests.unit.agent.peers.asking import ADMINISTRATOR, URI, asked, publish, sha256
from tests.unit.agent.peers.fake_peer import Cut, fake_peer, reply

if TYPE_CHECKING:
    from agent.disk.store import Store
    from tests.unit.agent.peers.fake_peer import Heard

KEY = model_key(URI)
CONTENT = bytes(range(200))
DIGEST = sha256(CONTENT)


def credentials(identity: Identity) -> Credentials:
    return Credentials(
        identity.certificate, identity.client_context(), identity.introduction_context()
    )


def served(heard: Heard) -> bytes:
    first, last = map(int, heard.fields["range"].removeprefix("bytes=").split("-"))
    told = f"bytes {first}-{last}/{len(CONTENT)}"
    return reply(206, CONTENT[first : last + 1], Content_Range=told)


def fetch(client: PeerClient, start: int = 0, end: int = len(CONTENT)) -> bytes:
    body = client.range(KEY, ADMINISTRATOR, DIGEST, start, end)
    try:
        return b"".join(iter(lambda: body.read(64), b""))
    finally:
        body.close()


def failure(client: PeerClient) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        fetch(client)
    assert "node other at 127.0.0.1:" in caught.value.message
    return caught.value


def test_a_range_is_asked_for_with_the_grant_on_a_connection_that_stays() -> None:
    with fake_peer(served) as peer:
        client = PeerClient(peer.peer(), None)
        assert fetch(client, 10, 150) == CONTENT[10:150]
        assert fetch(client, 150, 200) == CONTENT[150:]
        assert [one.path for one in peer.heard] == [f"/v2/{KEY}/blobs/sha256:{DIGEST}"] * 2
        assert {one.fields["localmodel-grant"] for one in peer.heard} == {ADMINISTRATOR}
        assert {one.connection for one in peer.heard} == {1}


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with fake_peer(served) as peer:
        assert fetch(PeerClient(peer.peer(), None)) == CONTENT


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, FailureKind.NOT_FOUND),
        (416, FailureKind.NOT_FOUND),
        (401, FailureKind.UNREACHABLE),
        (500, FailureKind.UNREACHABLE),
        (302, FailureKind.UNREACHABLE),
    ],
)
def test_refusals_are_failures_of_their_kind(status: int, kind: FailureKind) -> None:
    with fake_peer(lambda _: reply(status, b"no", Location="http://127.0.0.1:1/")) as peer:
        assert failure(PeerClient(peer.peer(), None)).kind is kind


@pytest.mark.parametrize(
    ("told", "wait"), [("2", 2.0), ("x", 1.0), ("9" * 400, float(MAX_RETRY_AFTER_SECONDS))]
)
def test_a_busy_peer_says_when_to_come_back_within_bounds(told: str, wait: float) -> None:
    with fake_peer(lambda _: reply(503, Retry_After=told)) as peer:
        error = failure(PeerClient(peer.peer(), None))
    assert (error.kind, error.retry_after) == (FailureKind.THROTTLED, wait)


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, CONTENT),
        reply(206, CONTENT),
        reply(206, CONTENT, Content_Range="bytes 1-200/201"),
        reply(206, CONTENT + b"more", Content_Range="bytes 0-199/200"),
        reply(206, CONTENT[:-1], Content_Range="bytes 0-199/200"),
    ],
    ids=["whole", "no range", "other range", "longer", "shorter"],
)
def test_an_answer_that_is_not_the_range_is_refused(answer: bytes) -> None:
    with fake_peer(lambda _: answer) as peer:
        client = PeerClient(peer.peer(), None)
        assert failure(client).kind is FailureKind.CORRUPT
        peer.answer = served
        # What was left of the wrong answer does not begin the next one.
        assert fetch(client) == CONTENT


def test_an_answer_that_ends_at_any_byte_is_a_broken_connection() -> None:
    whole = reply(206, CONTENT, Content_Range="bytes 0-199/200")
    length = 0
    with fake_peer(lambda _: Cut(whole[:length])) as peer:
        client = PeerClient(peer.peer(), None)
        for length in range(len(whole)):
            # Half a head may say something else.
            kinds = {FailureKind.UNREACHABLE, FailureKind.CORRUPT}
            if length >= len(whole) - len(CONTENT):
                kinds = {FailureKind.UNREACHABLE}
            assert failure(client).kind in kinds
        length = len(whole)
        assert fetch(client) == CONTENT


def test_a_read_that_waits_ends_when_it_is_aborted() -> None:
    with fake_peer(lambda _: b"") as peer:

        def half(_: Heard) -> bytes:
            return reply(206, CONTENT, Content_Range="bytes 0-199/200")[:-50]

        peer.answer = half
        body = PeerClient(peer.peer(), None).range(KEY, ADMINISTRATOR, DIGEST, 0, 200)
        caught: list[DownloadError] = []

        def read() -> None:
            try:
                while True:
                    body.read(64)
            except DownloadError as error:
                caught.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        body.abort()
        # The peer keeps the connection open: only the timeout of 10 seconds would end it too.
        reader.join(8)
        body.close()
        assert [error.kind for error in caught] == [FailureKind.UNREACHABLE]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999"])
def test_nobody_there_is_unreachable(address: str) -> None:
    assert failure(PeerClient(Peer("other", address), None)).kind is FailureKind.UNREACHABLE


def test_a_long_answer_is_cut_off() -> None:
    with fake_peer(lambda _: reply(200, b"x" * 100)) as peer:
        client = PeerClient(peer.peer(), None)
        assert client.content("/", ADMINISTRATOR, most=100, seconds=20) == b"x" * 100
        with pytest.raises(DownloadError) as caught:
            client.content("/", ADMINISTRATOR, most=99, seconds=20)
        assert caught.value.kind is FailureKind.CORRUPT


def test_it_introduces_itself_once_and_is_served(store: Store) -> None:
    mine = Identity()
    publish(store, {"a.bin": CONTENT})
    with asked(store, identity=Identity()) as agent:
        assert agent.admission is not None
        assert agent.identity is not None
        agent.admission.allow({mine.fingerprint: "me"})
        peer = Peer("other", f"127.0.0.1:{agent.server.port}", agent.identity.fingerprint)
        client = PeerClient(peer, credentials(mine))
        assert fetch(client) == CONTENT
        assert fetch(client, 5, 9) == CONTENT[5:9]
        # The peer forgets this agent, as after a restart of it, and is told again.
        agent.admission.allow({})
        assert failure(client).kind is FailureKind.UNREACHABLE
        agent.admission.allow({mine.fingerprint: "me"})
        assert fetch(client) == CONTENT


def test_a_peer_with_another_certificate_is_asked_nothing() -> None:
    mine, other = Identity(), Identity()
    with fake_peer(served, other.server_context()) as peer:
        client = PeerClient(peer.peer(Identity().fingerprint), credentials(mine))
        assert failure(client).kind is FailureKind.UNREACHABLE
        # Not even this agent's certificate was sent.
        assert peer.heard == []


def test_a_connection_that_ends_without_a_reason_is_one_to_introduce_itself_on() -> None:
    mine, other = Identity(), Identity()
    introduced: list[bytes] = []

    def answer(heard: Heard) -> bytes:
        if heard.method == "PUT":
            introduced.append(heard.body)
            return reply(204)
        return served(heard) if introduced else Cut()

    with fake_peer(answer, other.server_context([mine.certificate])) as peer:
        client = PeerClient(peer.peer(other.fingerprint), credentials(mine))
        refused = client._pool
        assert fetch(client) == CONTENT
        assert introduced == [mine.certificate]
        # As another thread does whose request was refused at the same time.
        present = client._pool
        client._introduce(refused)
        assert introduced == [mine.certificate]
        assert client._pool is present


def test_what_a_peer_sends_with_its_answer_to_an_introduction_is_not_read() -> None:
    mine, other = Identity(), Identity()

    def answer(heard: Heard) -> bytes:
        # A body that it would wait for, and keep in memory.
        endless = Cut(b"HTTP/1.1 200 Said\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1000)
        return endless if heard.method == "PUT" else reply(401)

    with fake_peer(answer, other.server_context([mine.certificate])) as peer:
        client = PeerClient(peer.peer(other.fingerprint), credentials(mine))
        assert "does not know this node" in failure(client).message


def test_a_connection_that_always_ends_is_introduced_once_for_each_request() -> None:
    mine, other = Identity(), Identity()

    def answer(heard: Heard) -> bytes:
        return reply(204) if heard.method == "PUT" else Cut()

    with fake_peer(answer, other.server_context([mine.certificate])) as peer:
        client = PeerClient(peer.peer(other.fingerprint), credentials(mine))
        assert failure(client).kind is FailureKind.UNREACHABLE
        assert [one.method for one in peer.heard] == ["GET", "PUT", "GET"]
