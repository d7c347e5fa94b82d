from __future__ import annotations

import ipaddress
import json
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import make_fetching, own_credentials
from agent.commands.flags import parse
from agent.commands.own_addresses import own_addresses
from agent.sources import all_sources
from agent.sources.addresses import Rules, rules_for_namespaces
from agent.sources.guard import MAX_ADDRESSES
from agent.sources.http import HttpSource
from agent.sources.s3 import S3Source
from agent.sources.transport import Transport, Transports
from agent.structs.credentials import GCS_KEY_FILE, Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.servers import Handler, WebFiles, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.sources import Sources
    from tests.unit.agent.servers import Server

LOOPBACK = Rules(refused=(ipaddress.ip_network("127.0.0.0/8"),))
NAMESPACES = rules_for_namespaces([], [], [])
LOOPBACKS = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]


@pytest.fixture
def files() -> Iterator[Server]:
    with serving(WebFiles({"/model.bin": b"secret"})) as server:
        yield server


def http(rules: Rules) -> HttpSource:
    return HttpSource(Transports(max_connections=2, rules=rules))


def failure(sources: Sources | HttpSource, uri: str, namespace: str = "") -> DownloadError:
    source = sources if isinstance(sources, HttpSource) else sources.of(uri, namespace)
    with pytest.raises(DownloadError) as refused:
        source.resolve(uri, own_credentials(), None)
    return refused.value


def test_nothing_is_sent_to_a_refused_address(files: Server) -> None:
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
        error = failure(http(LOOPBACK), f"http://{host}:{files.server_port}/model.bin")
        assert error.kind is FailureKind.DENIED
    assert files.seen == []


def test_whether_something_answers_at_a_refused_address_is_not_told() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            error = failure(http(LOOPBACK), f"http://{host}:{port}/model.bin")
            assert error.kind is FailureKind.DENIED


def test_the_address_that_a_connection_has_counts_whatever_was_told_before(
    files: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As by a name server that tells the check nothing, and the connection the loopback.
    monkeypatch.setattr("agent.sources.guard._addresses", lambda *_: [])
    error = failure(http(LOOPBACK), f"http://localhost:{files.server_port}/model.bin")
    assert error.kind is FailureKind.DENIED
    assert files.seen == []


def test_an_address_that_does_not_answer_is_followed_by_the_next(
    files: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.sources.guard._addresses", lambda *_: ["127.9.9.9", "127.0.0.1"])
    uri = f"http://several.example:{files.server_port}/model.bin"
    assert http(Rules()).resolve(uri, own_credentials(), None).files[0].size == 6
    assert files.seen[0][2]["Host"] == f"several.example:{files.server_port}"


def test_few_addresses_of_a_name_are_tried(files: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = [f"127.9.9.{number}" for number in range(1, MAX_ADDRESSES + 1)]
    monkeypatch.setattr("agent.sources.guard._addresses", lambda *_: [*dead, "127.0.0.1"])
    error = failure(http(Rules()), f"http://several.example:{files.server_port}/model.bin")
    assert error.kind is FailureKind.UNREACHABLE


def test_a_redirect_to_a_refused_address_is_refused() -> None:
    elsewhere = Rules(refused=(ipaddress.ip_network("127.0.0.2/32"),))
    with serving(WebFiles({"/model.bin": b"secret"}), "127.0.0.2") as inner:

        def redirect(handler: Handler, _path: str) -> None:
            handler.reply(302, headers={"Location": f"{inner.url}/model.bin"})

        with serving(redirect) as outer:
            error = failure(http(elsewhere), f"{outer.url}/model.bin")
        assert error.kind is FailureKind.DENIED
        assert inner.seen == []


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "168.63.129.16",
        "100.100.100.200",
        "0.0.0.0",
    ],
)
def test_a_metadata_service_is_refused_whether_it_answers_or_not(host: str) -> None:
    error = failure(http(Rules()), f"http://{host}/latest/meta-data/iam")
    assert error.kind is FailureKind.DENIED
    assert "give another sourceModelUri" in error.message


def test_the_endpoint_of_a_secret_is_refused_too(files: Server) -> None:
    named = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    credentials = Credentials.of(named | {"AWS_ENDPOINT_URL": files.url})
    source = S3Source(Transports(max_connections=2, rules=LOOPBACK))
    with pytest.raises(DownloadError) as refused:
        source.resolve("s3://bucket/model", credentials, None)
    assert refused.value.kind is FailureKind.DENIED
    assert files.seen == []


@pytest.mark.parametrize("scheme", ["http", "webhdfs"])
def test_a_namespace_does_not_reach_the_nodes_loopback_and_the_administrator_does(
    files: Server, scheme: str
) -> None:
    sources = all_sources(namespace_rules=NAMESPACES)
    uri = f"{scheme}://127.0.0.1:{files.server_port}/model.bin"
    # A connection that stands for one is not used for the other.
    if scheme == "http":
        assert sources.of(uri, "").resolve(uri, own_credentials(), None).files[0].size == 6
    seen = len(files.seen)
    error = failure(sources, uri, "team")
    assert error.kind is FailureKind.DENIED
    assert "--allow-network" in error.message
    assert len(files.seen) == seen
    allowed = all_sources(namespace_rules=rules_for_namespaces([], [], LOOPBACKS))
    if scheme == "http":
        assert allowed.of(uri, "team").resolve(uri, own_credentials(), None).files[0].size == 6


def named(server: Server, scheme: str) -> Credentials:
    """Credentials of each kind that lead to this server."""
    return {
        "s3": Credentials.of(
            {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_ENDPOINT_URL": server.url,
            }
        ),
        "hf": Credentials.of({"HF_TOKEN": "hf_1", "HF_ENDPOINT": server.url}),
        "gs": Credentials.of({"STORAGE_EMULATOR_HOST": server.url}),
        "https": Credentials.of({"AZURE_STORAGE_BLOB_ENDPOINT": server.url}),
        "webhdfs": Credentials.of({"HDFS_NAMENODE": server.url}),
    }[scheme]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/model",
        "hf://org/model",
        "gs://bucket/model",
        "https://acc.blob.core.windows.net/container/model",
        "webhdfs://models/m",
    ],
)
def test_no_source_leads_a_namespace_to_the_nodes_loopback(files: Server, uri: str) -> None:
    source = all_sources(namespace_rules=NAMESPACES).of(uri, "team")
    with pytest.raises(DownloadError) as refused:
        source.resolve(uri, named(files, uri.partition(":")[0]), None)
    assert refused.value.kind is FailureKind.DENIED
    assert "--allow-network" in refused.value.message
    assert files.seen == []


def test_a_key_files_token_server_is_checked_too(files: Server) -> None:
    info = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    key = json.dumps(info | {"token_uri": f"{files.url}/token"})
    source = all_sources(namespace_rules=NAMESPACES).of("gs://bucket/model", "team")
    with pytest.raises(DownloadError):
        source.resolve("gs://bucket/model", Credentials.of({GCS_KEY_FILE: key}), None)
    assert files.seen == []


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "pvc://claim/x", "hdfs://nn:8020/x"])
def test_a_namespace_has_no_source_that_reads_as_the_node(uri: str) -> None:
    with pytest.raises(DownloadError) as refused:
        all_sources().of(uri, "team")
    assert refused.value.kind is FailureKind.UNSUPPORTED


def test_a_proxy_is_not_led_to_an_address_that_is_written_out(
    files: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda handler, _: handler.reply(200, b"by the proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        for host in ("169.254.169.254", "2852039166", "[::ffff:169.254.169.254]", "127.0.0.1"):
            rules = rules_for_namespaces([], [], [])
            assert failure(http(rules), f"http://{host}/m.bin").kind is FailureKind.DENIED
        assert proxy.seen == []
        # What a name stands for is the proxy's to know.
        http(rules).resolve("http://models.example/m.bin", own_credentials(), None)
        assert proxy.seen
    assert files.seen == []


def test_the_api_server_and_the_named_addresses_are_the_nodes_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    own = own_addresses(["10.0.0.7"], "https://localhost:6443")
    assert {"10.0.0.7", "10.96.0.1", "127.0.0.1"} <= own
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert "fd00::1" in own_addresses([], "https://no-such-name.invalid:6443")


def test_the_flags_say_what_is_refused_to_whom(
    files: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALMODEL_NODE_ADDRESS", "10.0.0.7,fd00::7")
    flags = ["run", "--node-name", "n", "--root", str(tmp_path)]
    uri = f"{files.url}/model.bin"

    def sources(*more: str) -> Sources:
        options = parse([*flags, *more])
        assert options.node_address == ["10.0.0.7", "fd00::7"]
        return make_fetching(
            options,
            file_directories=[],
            own=own_credentials(),
            own_addresses=options.node_address,
        ).sources

    assert "--allow-network" in failure(sources(), uri, "team").message
    assert sources().of(uri, "").resolve(uri, own_credentials(), None)
    assert (
        sources("--allow-network", "127.0.0.0/8")
        .of(uri, "team")
        .resolve(uri, own_credentials(), None)
    )
    closed = sources("--allow-network", "127.0.0.0/8", "--refuse-network", "127.0.0.0/8")
    for namespace in ("", "team"):
        assert "does not fetch from" in failure(closed, uri, namespace).message
    for address in ("10.0.0.7", "[::ffff:10.0.0.7]", "[fd00::7]"):
        error = failure(sources(), f"http://{address}/model.bin", "team")
        assert error.kind is FailureKind.DENIED


def test_an_address_of_this_very_host_is_refused_to_namespaces() -> None:
    """Its own address of a network beside the loopback, if it has any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("no network beside the loopback")
        own = probe.getsockname()[0]
    with serving(WebFiles({"/model.bin": b"secret"}), own) as server:
        error = failure(http(NAMESPACES), f"{server.url}/model.bin")
        assert "of this host" in error.message
        assert server.seen == []
        assert http(Rules()).resolve(f"{server.url}/model.bin", own_credentials(), None)


@pytest.mark.parametrize(
    "url",
    [
        "http://{evil}\\@{good}/m.bin",
        "http://{evil}\t@{good}/m.bin",
        "http://{evil}\\.{good}/m.bin",
    ],
)
def test_a_url_that_two_readers_take_for_two_servers_is_sent_to_none(
    files: Server, url: str
) -> None:
    with serving(WebFiles({"/m.bin": b"x"})) as evil:
        host = files.url.partition("//")[2]
        written = url.format(evil=evil.url.partition("//")[2], good=host)
        credentials = Credentials.of({f"{files.url}-headers": '{"Authorization": "s3cret"}'})
        with pytest.raises(DownloadError) as refused:
            http(Rules()).resolve(written, credentials, None)
        assert "s3cret" not in refused.value.message
        assert not any("Authorization" in headers for _, _, headers in evil.seen)
        # A listing is refused, or gets the good server's 404.
        with suppress(DownloadError):
            answer = Transport(max_connections=1).call("GET", written, "here")
            assert answer.status_code == HTTPStatus.NOT_FOUND
        assert evil.seen == []


def test_a_namespace_does_not_get_the_agents_own_hadoop_token_sent_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HDFS_DELEGATION_TOKEN", "s3cret")
    queries: list[str] = []

    def answer(handler: Handler, _: str) -> None:
        queries.append(handler.path)
        handler.reply(404, b"{}")

    with serving(answer) as server:
        uri = f"webhdfs://127.0.0.1:{server.server_port}/models/m"
        sources = all_sources(namespace_rules=rules_for_namespaces([], [], LOOPBACKS))
        failure(sources, uri, "team")
        assert queries
        assert "s3cret" not in str(queries)
        failure(sources, uri)
        assert "s3cret" in queries[-1]
