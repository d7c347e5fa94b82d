"""What is told of a proxy between the agent and an origin, by each source that asks by HTTP."""

from __future__ import annotations

import base64
import select
import socket
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.sources import all_sources
from agent.structs.credentials import GCS_KEY_FILE, Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.contract.servers_gs import key_file
from tests.unit.agent.certificates import make_authority
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.servers import Handler, WebFiles, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = bytes(range(256)) * 40
ACCOUNT = "account.blob.core.windows.net"
HOST = "models.example"
PAGE = b"<html>Access denied by your company</html>"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)


def failure_of(uri: str, settings: dict[str, str] | None = None) -> DownloadError:
    """How it fails to resolve; no message has the proxy's password."""
    credentials = own_credentials() if settings is None else Credentials.of(settings)
    with pytest.raises(DownloadError) as caught:
        all_sources().of(uri, "").resolve(uri, credentials, None)
    assert "s3cret" not in caught.value.message
    return caught.value


SOURCES = [
    pytest.param(f"{{scheme}}://{HOST}/m.bin", {}, id="web"),
    pytest.param("hf://org/model", {"HF_ENDPOINT": "{scheme}://" + HOST}, id="hub"),
    pytest.param(
        "s3://bucket/model",
        {
            "AWS_ENDPOINT_URL": "{scheme}://" + HOST,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        },
        id="s3",
    ),
    pytest.param("gs://bucket/m", {"STORAGE_EMULATOR_HOST": "{scheme}://" + HOST}, id="google"),
    pytest.param(
        "gs://bucket/m",
        {
            "STORAGE_EMULATOR_HOST": "{scheme}://" + HOST,
            GCS_KEY_FILE: "{key}",
        },
        id="google-token",
    ),
    pytest.param(
        f"https://{ACCOUNT}/c/m",
        {"AZURE_STORAGE_BLOB_ENDPOINT": "{scheme}://" + HOST},
        id="azure",
    ),
    pytest.param(
        f"https://{ACCOUNT}/c/m",
        {
            "AZURE_STORAGE_BLOB_ENDPOINT": "{scheme}://" + HOST,
            "AZURE_AUTHORITY_HOST": "{scheme}://" + HOST,
            "AZURE_CLIENT_ID": "c",
            "AZURE_TENANT_ID": "t",
            "AZURE_CLIENT_SECRET": "s",
        },
        id="azure-token",
    ),
]


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (407, FailureKind.DENIED, "wants credentials (407), and {variable} has none"),
        (403, FailureKind.DENIED, f"does not let the agent through to {HOST} (403)"),
        (502, FailureKind.UNREACHABLE, f"has no way to {HOST} (502)"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("uri", "settings"), SOURCES)
def test_what_a_proxy_refuses_is_told_as_the_proxys(
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    settings: dict[str, str],
    scheme: str,
    status: int,
    kind: FailureKind,
    says: str,
) -> None:
    def refuse(handler: Handler, _: str) -> None:
        handler.reply(status, PAGE, {"X-Squid-Error": "ERR_ACCESS_DENIED 0"})

    variable = f"{scheme.upper()}_PROXY"
    with serving(refuse) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        key = key_file(f"{scheme}://{HOST}/token")
        given = {
            name: key if value == "{key}" else value.format(scheme=scheme)
            for name, value in settings.items()
        }
        error = failure_of(uri.format(scheme=scheme), given)

        assert error.kind is kind, error.message
        assert says.format(variable=variable) in error.message
        assert f"the proxy {proxy.url.partition('://')[2]}" in error.message
        # It is not the origin's word: nobody loses a copy by it.
        assert not error.refuses


def test_a_password_that_is_refused_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def refuse(handler: Handler, _: str) -> None:
        seen.append(handler.headers.get("Proxy-Authorization"))
        handler.reply(407, b"", {"Proxy-Authenticate": "Basic"})

    with serving(refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:s3cret%40@"))
        error = failure_of(f"https://{HOST}/m.bin")

    assert seen == ["Basic " + base64.b64encode(b"me:s3cret@").decode()]
    assert error.kind is FailureKind.DENIED
    assert "refuses the user and password of HTTPS_PROXY" in error.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        monkeypatch.setenv("ALL_PROXY", f"http://me:s3cret@127.0.0.1:{port}")
        error = failure_of(f"{scheme}://{HOST}/m.bin")

    assert error.kind is FailureKind.UNREACHABLE
    assert f"the proxy 127.0.0.1:{port}: connection refused; check ALL_PROXY" in error.message


def test_a_proxy_whose_name_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "proxy.invalid:3128")
    error = failure_of(f"https://{HOST}/m.bin")

    assert error.kind is FailureKind.UNREACHABLE
    assert "the proxy proxy.invalid:3128: its name cannot be resolved" in error.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_without_tls_is_told(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with serving(lambda handler, _: handler.reply(200, DATA)) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("http://", "https://"))
        error = failure_of(f"{scheme}://{HOST}/m.bin")

    assert error.kind is FailureKind.TLS
    assert "speaks no TLS; write http:// there" in error.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_with_a_certificate_of_its_own_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    context = make_authority(tmp_path).context
    with serving(lambda handler, _: handler.reply(200, DATA), tls=context) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        error = failure_of(f"{scheme}://{HOST}/m.bin")

    assert error.kind is FailureKind.TLS
    assert "has no certificate that is trusted" in error.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_speaks_tls_and_is_asked_without_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    context = make_authority(tmp_path).context
    with serving(lambda handler, _: handler.reply(200, DATA), tls=context) as proxy:
        address = proxy.url.removeprefix("https://")
        monkeypatch.setenv("ALL_PROXY", f"http://{address}")
        error = failure_of(f"{scheme}://{HOST}/m.bin")

    assert error.kind is FailureKind.UNREACHABLE
    assert f"the proxy {address}" in error.message


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://127.0.0.1:1080",
        "ftp://127.0.0.1",
        "http://",
        "http://me:s3cret/1@127.0.0.1:3128",
        "http://me:12/s3cret@127.0.0.1:3128",
        "http://127.0.0.1:port",
    ],
)
def test_what_is_no_proxy_is_told(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    error = failure_of(f"https://{HOST}/m.bin")

    assert error.kind is FailureKind.UNSUPPORTED
    assert error.message.startswith("HTTPS_PROXY names no proxy")


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (405, FailureKind.UNSUPPORTED, "is no proxy, since it answers 405 to CONNECT"),
        (404, FailureKind.UNSUPPORTED, "correct HTTPS_PROXY"),
        (429, FailureKind.UNREACHABLE, "tried again by itself"),
        (503, FailureKind.UNREACHABLE, "tried again by itself"),
        (451, FailureKind.DENIED, "does not let the agent through"),
    ],
)
def test_what_else_is_answered_to_connect(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: FailureKind, says: str
) -> None:
    with serving(lambda handler, _: handler.reply(status, PAGE)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = failure_of(f"https://{HOST}/m.bin")

    assert error.kind is kind
    assert says in error.message
    assert not error.refuses


@pytest.mark.parametrize("end", ["hang_up", "reset"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_goes_away_is_told(
    monkeypatch: pytest.MonkeyPatch, scheme: str, end: str
) -> None:
    with serving(lambda handler, _: getattr(handler, end)()) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        error = failure_of(f"{scheme}://{HOST}/m.bin")

    assert error.kind is FailureKind.UNREACHABLE
    assert f"the proxy {proxy.url.removeprefix('http://')}" in error.message


@pytest.mark.parametrize("status", [403, 503])
def test_a_page_by_way_of_a_proxy_may_be_the_proxys(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def page(handler: Handler, _: str) -> None:
        headers = {"Content-Type": "text/html; charset=utf-8", "Retry-After": "7"}
        handler.reply(status, PAGE, headers)

    with serving(page) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        error = failure_of(f"http://{HOST}/m.bin")

    assert f"answered {status}" in error.message
    assert f"by way of the proxy {proxy.url.removeprefix('http://')}" in error.message
    # The origin may have said it.
    assert error.refuses is (status == 403)
    assert error.retry_after == 7.0


def test_what_the_origin_says_is_not_the_proxys(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda handler, _: handler.reply(403, b"no", {"Via": "1.1 proxy"})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        error = failure_of(f"http://{HOST}/m.bin")

    assert error.kind is FailureKind.DENIED
    assert error.refuses
    assert "proxy" not in error.message


def tunnel_to(address: tuple[str, int]) -> Callable[[Handler, str], None]:
    """A proxy that leads to one server, whatever it is asked for."""

    def lead(handler: Handler, _: str) -> None:
        handler.begin(200, {})
        handler.close_connection = True
        with socket.create_connection(address) as there:
            ends = [handler.connection, there]
            while True:
                for one in select.select(ends, [], [], 30)[0]:
                    try:
                        piece = one.recv(65536)
                    except OSError:
                        return
                    if not piece:
                        return
                    (there if one is handler.connection else handler.connection).sendall(piece)

    return lead


def test_the_origins_certificate_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path, hosts=[HOST])
    with (
        serving(WebFiles({"/m.bin": DATA}), tls=authority.context) as origin,
        serving(tunnel_to(("127.0.0.1", origin.server_port))) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = failure_of(f"https://{HOST}/m.bin")
        assert error.kind is FailureKind.TLS
        assert "certificate is not trusted" in error.message
        assert f"by way of the proxy {proxy.url.removeprefix('http://')}" in error.message

        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
        uri = f"https://{HOST}/m.bin"
        assert all_sources().of(uri, "").resolve(uri, own_credentials(), None).files[0].size == len(
            DATA
        )


def test_a_redirect_to_what_needs_no_proxy_goes_there_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(WebFiles({"/m.bin": DATA})) as origin:
        target = f"{origin.url}/m.bin"

        def proxy_answer(handler: Handler, _: str) -> None:
            if handler.path.startswith(f"http://{HOST}/"):
                handler.reply(302, b"", {"Location": target})
            else:
                handler.reply(403, b"", {"X-Squid-Error": "ERR_ACCESS_DENIED 0"})

        with serving(proxy_answer) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.0/8,.cluster.local")
            uri = f"http://{HOST}/m.bin"
            model = all_sources().of(uri, "").resolve(uri, own_credentials(), None)
            body = model.read(model.files[0], 0, len(DATA))
            assert b"".join(iter(lambda: body.read(4096), b"")) == DATA
            assert proxy.seen
        assert origin.seen


def test_a_role_that_is_asked_for_by_way_of_a_proxy_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """botocore asks for a role's credentials by itself."""
    token = tmp_path / "token"
    token.write_text("token")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-test-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://{HOST}")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    with serving(lambda handler, _: handler.reply(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = failure_of("s3://bucket/model")

    assert error.kind is FailureKind.UNREACHABLE
    assert "the proxy refuses the connection" in error.message
