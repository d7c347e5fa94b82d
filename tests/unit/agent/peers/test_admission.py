"""Who may ask an agent, over real TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from agent.peers.admission import MAX_CERTIFICATE_BYTES, Admission
from agent.peers.identity import Identity, fingerprint_of
from tests.unit.agent.peers.asking import Asked, asked, publish, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.disk.store import Store

CONTENT = b"weights"


@pytest.fixture
def served(store: Store) -> Iterator[Asked]:
    publish(store, {"model.bin": CONTENT})
    with asked(store, identity=Identity()) as served:
        yield served


def allow(served: Asked, *peers: Identity) -> None:
    assert served.admission is not None
    served.admission.allow({peer.fingerprint: "node-2" for peer in peers})


def target(store: Store) -> str:
    (key,) = store.scan()[0]
    return f"/v2/{key}/blobs/sha256:{sha256(CONTENT)}"


def is_refused(served: Asked, context: ssl.SSLContext) -> bool:
    """Whether the handshake fails. A client of TLS 1.3 learns it when it reads."""
    try:
        with served.connect(context) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return not connection.recv(1)
    except (ssl.SSLError, ConnectionError):
        return True


def test_a_peer_that_has_introduced_itself_gets_files(served: Asked, store: Store) -> None:
    peer = Identity()
    allow(served, peer)
    assert served.introduce(peer).status == 204
    client = served.client(peer.client_context())
    assert client.ask(target(store)).body == CONTENT


def test_the_server_has_the_certificate_that_its_fingerprint_names(served: Asked) -> None:
    assert served.identity is not None
    with served.connect(Identity().introduction_context()) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        certificate = connection.getpeercert(binary_form=True)
        assert certificate == served.identity.certificate
        assert fingerprint_of(certificate) == served.identity.fingerprint
        assert connection.version() == "TLSv1.3"


def test_without_a_certificate_nothing_is_told(served: Asked, store: Store) -> None:
    for wanted in (target(store), "/v2/nothing", "/"):
        client = served.client(Identity().introduction_context())
        assert client.ask(wanted).status == 401


def test_a_peer_that_was_not_introduced_does_not_get_in(served: Asked) -> None:
    peer = Identity()
    allow(served, peer)
    assert is_refused(served, peer.client_context())


def test_a_foreign_certificate_cannot_be_introduced(served: Asked) -> None:
    foreign = Identity()
    allow(served, Identity())
    answer = served.introduce(foreign)
    assert answer.status == 403
    assert b"LocalModelNode" in answer.body
    assert is_refused(served, foreign.client_context())


def test_the_certificate_of_a_peer_is_of_no_use_without_its_key(served: Asked) -> None:
    """Another key with the same name: OpenSSL looks for certificates by name."""
    peer, thief = Identity(), Identity()
    allow(served, peer)
    assert served.introduce(peer).status == 204
    assert is_refused(served, thief.client_context())


def test_a_withdrawn_peer_gets_nothing_more_on_its_connection(served: Asked, store: Store) -> None:
    peer, other = Identity(), Identity()
    allow(served, peer, other)
    served.introduce(peer)
    client = served.client(peer.client_context())
    assert client.ask(target(store)).status == 200
    allow(served, other)
    assert client.ask(target(store)).status == 401
    # It may come back, as when its node was not Ready for a moment.
    allow(served, peer)
    served.introduce(peer)
    client = served.client(peer.client_context())
    assert client.ask(target(store)).status == 200


def test_certificates_of_peers_that_are_gone_are_forgotten(served: Asked) -> None:
    last = Identity()
    for _ in range(5):
        last = Identity()
        allow(served, last)
        assert served.introduce(last).status == 204
    assert served.admission is not None
    assert served.admission.context.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x30\x82\x01\x00" + b"\0" * 256])
def test_what_is_no_certificate_is_not_accepted(content: bytes) -> None:
    admission = Admission(Identity())
    admission.allow({fingerprint_of(content): "node-2"})
    assert not admission.introduce(content)
    assert admission.context.cert_store_stats()["x509"] == 0


def test_an_introduction_has_a_limit(served: Asked) -> None:
    client = served.client(Identity().introduction_context())
    answer = client.ask("/v2/introduction", "PUT", body=b"x" * (MAX_CERTIFICATE_BYTES + 1))
    assert answer.status == 413


def test_a_clear_text_request_gets_no_answer_and_stops_nobody(served: Asked, store: Store) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"HTTP" not in connection.recv(4096)
    peer = Identity()
    allow(served, peer)
    served.introduce(peer)
    client = served.client(peer.client_context())
    assert client.ask(target(store)).status == 200
