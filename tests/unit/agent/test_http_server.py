"""The agent's HTTP server, with real sockets."""

from __future__ import annotations

import socket
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
import requests

from agent.commands import http_server
from agent.commands.http_server import MAX_CONNECTIONS, Answer, Server
from agent.commands.listening import BindError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def gate() -> threading.Event:
    """Until it is set, /slow does not answer."""
    return threading.Event()


@pytest.fixture
def server(gate: threading.Event) -> Iterator[Server]:
    def slow() -> Answer:
        gate.wait(30)
        return Answer(HTTPStatus.OK, b"late\n")

    def broken() -> Answer:
        raise RuntimeError("a bug")

    routes = {
        "/ok": lambda: Answer(HTTPStatus.OK, b"ok\n"),
        "/slow": slow,
        "/broken": broken,
    }
    with Server(("127.0.0.1", 0), routes) as server:
        server.start()
        yield server
        gate.set()
        server.shutdown()


def get(server: Server, path: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"http://127.0.0.1:{server.port}{path}", timeout=30)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def is_closed(client: socket.socket) -> bool:
    """Whether the server ends the connection; waits for that."""
    try:
        return client.recv(1 << 16) == b""
    except ConnectionResetError:
        return True


def test_it_answers_by_path(server: Server) -> None:
    answer = get(server, "/ok?verbose=1")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    # Who asks learns no versions of Python.
    assert answer.headers["Server"].strip() == "localmodel-agent"
    assert get(server, "/").status_code == 404
    assert requests.post(f"http://127.0.0.1:{server.port}/ok", timeout=30).status_code == 501


def test_a_fault_of_one_answer_ends_no_other(server: Server) -> None:
    with pytest.raises(requests.ConnectionError):
        get(server, "/broken")
    assert get(server, "/ok").status_code == 200


def test_clients_that_send_nothing_stop_nobody(server: Server) -> None:
    """Each new connection is answered, at the expense of the oldest one."""
    silent = [connect(server) for _ in range(MAX_CONNECTIONS)]
    for _ in range(3):
        assert get(server, "/ok").status_code == 200
    assert is_closed(silent[0])
    threads = [one for one in threading.enumerate() if one.name == "http-answer"]
    assert len(threads) <= MAX_CONNECTIONS
    for client in silent:
        client.close()


def test_answers_that_hang_take_a_bounded_number_of_threads(
    server: Server, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "ROOM_SECONDS", 0.01)
    hanging = [connect(server) for _ in range(MAX_CONNECTIONS)]
    for client in hanging:
        client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
    refused = connect(server)
    assert is_closed(refused)
    gate.set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            assert get(server, "/ok").status_code == 200
            break
        except requests.ConnectionError:
            time.sleep(0.01)
    for client in (*hanging, refused):
        client.close()


def test_a_client_that_drips_is_ended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_SECONDS", 0.5)
    client = connect(server)
    began = time.monotonic()
    try:
        while time.monotonic() - began < 30:
            client.sendall(b"G")
            time.sleep(0.05)
    except OSError:
        pass
    assert time.monotonic() - began < 20
    client.close()


def test_a_taken_port_is_an_error_that_says_what_to_do(server: Server) -> None:
    with pytest.raises(BindError, match=r"cannot listen on 127\.0\.0\.1:\d+: .* choose another"):
        Server(("127.0.0.1", server.port), {})


def test_without_a_host_it_listens_on_all_addresses() -> None:
    with Server(("", 0), {"/ok": lambda: Answer(HTTPStatus.OK, b"ok\n")}) as server:
        server.start()
        assert get(server, "/ok").status_code == 200
        server.shutdown()
