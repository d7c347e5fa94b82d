"""Nothing that an origin sends, however slowly, is waited for without an end."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent.sources import all_sources
from agent.sources.answers import Get
from agent.sources.transport import Transport
from agent.sources.waits import listing_bytes, waiting
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.servers import Handler, serving
from tests.unit.agent.test_hostile_bodies import SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[Handler, str], None]

# Far more than what is waited for here, and far less than such an origin would take.
SOON = 20.0


def drip(handler: Handler, begin: bytes, piece: bytes = b"x") -> None:
    """Each piece comes in good time."""
    handler.wfile.write(begin)
    for _ in range(1000):
        handler.wfile.write(piece)
        time.sleep(0.1)


def slow_head(handler: Handler, _: str) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\nX-Slow: ")


def slow_status(handler: Handler, _: str) -> None:
    drip(handler, b"HTTP/1.1 200 ")


def more_heads(handler: Handler, _: str) -> None:
    """There may be any number of these before an answer."""
    drip(handler, b"", b"HTTP/1.1 100 Continue\r\n\r\n")


def slow_body(handler: Handler, _: str) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\n\r\n", b" ")


def slow_chunks(handler: Handler, _: str) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")


def slow_trailers(handler: Handler, _: str) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n")


def slow_refusal(handler: Handler, _: str) -> None:
    drip(handler, b"HTTP/1.1 403 Forbidden\r\n\r\n", b" ")


def slow_redirect(handler: Handler, path: str) -> None:
    if path == "/there":
        slow_head(handler, path)
    else:
        handler.reply(302, headers={"Location": "/there"})


ANSWERS: list[Answer] = [
    slow_head,
    slow_status,
    more_heads,
    slow_body,
    slow_chunks,
    slow_trailers,
    slow_refusal,
    slow_redirect,
]


def list_from(answer: Answer, source: str) -> DownloadError:
    uri, setting = SOURCES[source]
    with serving(answer) as server:
        host = server.url.removeprefix("http://")
        settings = dict([setting.format(host=host).split("=", 1)]) if setting else {}
        uri = uri.format(host=host)
        with pytest.raises(DownloadError) as caught:
            all_sources().of(uri, "").resolve(uri, Credentials.of(settings), None)
    return caught.value


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_has_a_total_time(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    monkeypatch.setattr("agent.sources.transport.CALL_SECONDS", 0.5)
    begun = time.monotonic()
    error = list_from(answer, "webhdfs")
    assert time.monotonic() - begun < SOON
    assert error.kind is FailureKind.UNREACHABLE
    assert "takes too long to answer" in error.message
    assert "check the origin" in error.message


@pytest.mark.parametrize("source", ["s3", "gs", "azure", "hf", "http"])
def test_so_it_is_for_all_sources(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr("agent.sources.transport.CALL_SECONDS", 0.5)
    begun = time.monotonic()
    assert list_from(slow_head, source).kind is FailureKind.UNREACHABLE
    assert time.monotonic() - begun < SOON


@pytest.mark.parametrize("answer", [slow_head, slow_redirect])
def test_the_head_of_a_range_has_a_total_time(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr("agent.sources.transport.HEAD_SECONDS", 0.5)
    transport = Transport(max_connections=2)
    begun = time.monotonic()
    with serving(answer) as server, pytest.raises(DownloadError, match="takes too long"):
        transport.read(Get(f"{server.url}/m.bin", "m.bin", 0, 9, 10))
    assert time.monotonic() - begun < SOON


def test_all_requests_of_a_listing_have_one_time_together() -> None:
    def answer(handler: Handler, _: str) -> None:
        time.sleep(0.2)
        folder = b'{"pathSuffix": "d", "type": "DIRECTORY"}'
        one, all_ = b'{"FileStatus": %s}' % folder, b'{"FileStatuses": {"FileStatus": [%s]}}'
        handler.reply(200, one if "GETFILESTATUS" in handler.path else all_ % folder)

    with serving(answer) as server:
        uri = f"webhdfs://{server.url.removeprefix('http://')}/model"
        begun = time.monotonic()
        with waiting(1.0), pytest.raises(DownloadError, match="takes too long"):
            all_sources().of(uri, "").resolve(uri, Credentials.of({}), None)
        assert time.monotonic() - begun < SOON


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_not_wanted_any_more_ends_at_once(answer: Answer) -> None:
    over = threading.Event()
    ended = threading.Event()

    def ask() -> None:
        with waiting(600, over.is_set), pytest.raises(DownloadError):
            Transport(max_connections=2).call("GET", f"{server.url}/m", "m")
        ended.set()

    with serving(answer) as server:
        threading.Thread(target=ask, daemon=True).start()
        while not server.seen:
            time.sleep(0.01)
        over.set()
        assert ended.wait(SOON)


def test_many_addresses_of_a_host_have_one_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address] * 10_000_000)
    monkeypatch.setattr("agent.sources.timed_connections.ALL_ADDRESSES_SECONDS", 0.2)
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="cannot be reached"):
        Transport(max_connections=2).call("GET", f"http://many.test:{port}/", "m")
    assert time.monotonic() - begun < SOON


def test_a_connection_that_was_waited_for_serves_the_next_request() -> None:
    ports = []

    def answer(handler: Handler, _: str) -> None:
        ports.append(handler.client_address[1])
        handler.reply(200, b"{}")

    transport = Transport(max_connections=2)
    with serving(answer) as server:
        for _ in range(3):
            with waiting(60):
                transport.call("GET", f"{server.url}/m", "m")
    assert len(set(ports)) == 1


@pytest.mark.parametrize(("namespace", "most"), [("team", 8 << 20), ("", 48 << 20)])
def test_a_listing_for_a_namespace_takes_less_memory(namespace: str, most: int) -> None:
    with waiting(60.0, size=listing_bytes(namespace)), waiting(60.0) as page:
        page.take(most, "it")
        with pytest.raises(DownloadError, match="more than a model's listing has"):
            page.take(1, "it")
