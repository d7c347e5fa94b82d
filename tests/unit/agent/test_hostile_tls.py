"""Servers that cannot be trusted, and encrypted connections that break."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.sources.http import HttpSource
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent import hostile
from tests.unit.agent.certificates import Authority, make_authority
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.hostile import DATA, Attempt, Site, content, secret_uri
from tests.unit.agent.servers import Buckets, Handler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.disk.store import Store
    from tests.unit.agent.servers import Server, Span

pytestmark = pytest.mark.usefixtures("small_steps", "environment")
small_steps = hostile.small_steps

VARIABLES = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
WHERE = "has no TLS connection that can be trusted: its certificate is not trusted"
OBJECTS = {"b": {"m/w.bin": DATA, "m/c.json": b"{}"}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("other"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_aws(monkeypatch, *VARIABLES)


@pytest.fixture
def objects(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(Buckets(OBJECTS), tls=authority.context) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


def named(server: Server, **settings: str) -> Credentials:
    return Credentials.of(
        {
            "AWS_ACCESS_KEY_ID": "named",
            "AWS_SECRET_ACCESS_KEY": "s3cret",
            "AWS_ENDPOINT_URL": server.url,
            **settings,
        }
    )


def test_a_certificate_of_nobody_we_know(store: Store, authority: Authority) -> None:
    with serving(Site(), tls=authority.context) as server:
        uri = secret_uri(server)
        Attempt(store, uri).fails(FailureKind.TLS, f"{server.url}/m.bin?… {WHERE}", "SSL_CERT_FILE")
        assert server.seen == []


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_an_authority_of_the_administrators(
    store: Store, authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(authority.bundle))
    with serving(Site(), tls=authority.context) as server:
        Attempt(store, secret_uri(server)).succeeds({"m.bin": DATA})


def test_a_certificate_that_has_expired(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_authority(tmp_path / "old", days=-1)
    monkeypatch.setenv("SSL_CERT_FILE", str(old.bundle))
    with serving(Site(), tls=old.context) as server:
        Attempt(store, secret_uri(server)).fails(FailureKind.TLS, WHERE, "expired")


def test_s3_trusts_nobody_unknown(store: Store, objects: Server) -> None:
    for credentials in (None, named(objects)):
        attempt = Attempt(store, "s3://b/m", credentials=credentials)
        attempt.fails(FailureKind.TLS, WHERE, "AWS_CA_BUNDLE for S3")
    assert objects.seen == []


def test_s3_with_the_agents_own_authority(
    store: Store, objects: Server, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert objects.url
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    Attempt(store, "s3://b/m").succeeds({"w.bin": DATA, "c.json": b"{}"})


def test_s3_with_what_a_secret_says_of_certificates(
    store: Store,
    objects: Server,
    authority: Authority,
    other: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a secret says counts, whatever else the agent trusts.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.bundle))
    for number, settings in enumerate(
        (
            {"AWS_CA_BUNDLE": str(authority.bundle)},
            {"AWS_CA_BUNDLE_PEM": authority.pem},
            {"S3_VERIFY_SSL": "0"},
        )
    ):
        uri = f"s3://b/m{'/' * number}"
        attempt = Attempt(store, uri.removesuffix("//"), credentials=named(objects, **settings))
        attempt.succeeds({"w.bin": DATA, "c.json": b"{}"})
        store.remove(attempt.key)
    for settings in ({"AWS_CA_BUNDLE_PEM": other.pem}, {"S3_VERIFY_SSL": "1"}):
        attempt = Attempt(store, "s3://b/m", credentials=named(objects, **settings))
        attempt.fails(FailureKind.TLS, WHERE)


@pytest.mark.usefixtures("objects")
def test_a_bundle_that_is_not_there_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
    Attempt(store, "s3://b/m").fails(FailureKind.TLS, "AWS_CA_BUNDLE names /no/such/file")


@pytest.mark.parametrize("orderly", [True, False])
def test_encrypted_connections_that_break_are_tried_again(
    store: Store, authority: Authority, monkeypatch: pytest.MonkeyPatch, orderly: bool
) -> None:
    def act(made: Site, handler: Handler, span: Span, number: int) -> bool:
        if number % 2 == 0:
            return False
        made.begin(handler, span)
        made.pour(handler, made.data[span.start : span.start + 100_000])
        if orderly:
            handler.hang_up()
        else:
            handler.reset()
        return True

    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    with serving(Site(act=act), tls=authority.context) as server:
        Attempt(store, secret_uri(server)).succeeds({"m.bin": DATA})


def test_a_server_that_goes_away_in_the_handshake_is_no_matter_of_trust(
    store: Store, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    with serving(lambda handler, _: handler.hang_up()) as server:
        server.scheme = "https"
        monkeypatch.setattr(server, "finish_request", lambda request, _: request.close())
        error = Attempt(store, secret_uri(server)).fails(
            FailureKind.UNREACHABLE, "cannot be reached"
        )
    assert "SSL_CERT_FILE" not in error.message


def test_an_aborted_body_gives_nothing_that_is_still_encrypted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    data = content(12, 4 << 20)
    with serving(Site(data), tls=authority.context) as server:
        source = HttpSource(Transports(max_connections=2))
        for read in (1, 1000, 70_000):
            model = source.resolve(secret_uri(server), own_credentials(), None)
            body = model.read(model.files[0], 0, len(data))
            assert body.read(read) == data[:read]
            # More is here already.
            threading.Event().wait(0.05)
            body.abort()
            with pytest.raises(DownloadError) as caught:
                body.read(1 << 16)
            assert caught.value.kind is FailureKind.UNREACHABLE
            body.close()
