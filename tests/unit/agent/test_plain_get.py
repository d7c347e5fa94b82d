"""Answers as a server sends them, byte by byte: plain ones and all others."""

from __future__ import annotations

import io
import socket
import threading
from contextlib import contextmanager
from http import client
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.exceptions import InvalidHeader, ProtocolError

from agent.sources.plain_get import PlainAnswer, PlainHeaders, fetch
from agent.sources.waits import waiting
from agent.structs.failures import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = b'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: "a"\r\n\r\nmodel'

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n5\r\nmodel\r\n0\r\n\r\n"


class Replies:
    """A server that sends these answers, whatever is asked. `None`: it ends the connection."""

    def __init__(self, *replies: bytes | None) -> None:
        self._replies = list(replies)
        self.asked: list[bytes] = []
        self.connections = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._replies:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            with connection, connection.makefile("rb") as asked:
                while self._replies and self._turn(connection, asked):
                    pass

    def _turn(self, connection: socket.socket, asked: Any) -> bool:
        lines = [asked.readline()]
        while lines[-1] not in {b"", b"\r\n"}:
            lines.append(asked.readline())
        if not lines.pop():
            return False
        self.asked.append(b"".join(lines))
        reply = self._replies.pop(0)
        if reply is None:
            return False
        connection.sendall(reply)
        return not reply.endswith(b"cut")

    def close(self) -> None:
        self._server.close()


@contextmanager
def served(*replies: bytes | None) -> Iterator[tuple[Replies, HTTPConnectionPool]]:
    server = Replies(*replies)
    with HTTPConnectionPool("127.0.0.1", server.port, maxsize=2) as pool:
        try:
            yield server, pool
        finally:
            server.close()


def ask(pool: HTTPConnectionPool, target: str = "/m", **headers: str) -> Any:
    return fetch(pool, target, headers, connect_seconds=5, read_seconds=10)


def test_a_plain_answer_keeps_its_connection() -> None:
    with served(PLAIN, PLAIN) as (server, pool):
        for _ in range(2):
            answer = ask(pool, Range="bytes=0-4")
            assert isinstance(answer, PlainAnswer)
            assert (answer.status, answer.headers["etag"]) == (206, '"a"')
            assert [answer.read(3), answer.read(3), answer.read(3)] == [b"mod", b"el", b""]
            answer.close()
        assert server.connections == 1
        host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
        assert server.asked == [b"GET /m HTTP/1.1\r\n" + host + b"Range: bytes=0-4\r\n"] * 2


def test_what_is_not_read_ends_the_connection() -> None:
    with served(PLAIN, PLAIN) as (server, pool):
        answer = ask(pool)
        assert answer.read(2) == b"mo"
        answer.close()
        assert ask(pool).read(9) == b"model"
        assert server.connections == 2


def test_an_empty_body_keeps_the_connection() -> None:
    empty = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    with served(empty, PLAIN) as (server, pool):
        assert ask(pool).read(9) == b""
        assert ask(pool).read(9) == b"model"
        assert server.connections == 1


def test_a_body_that_is_cut_is_no_body() -> None:
    with served(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut") as (_, pool):
        answer = ask(pool)
        assert answer.read(9) == b"cut"
        with pytest.raises(ProtocolError, match="6 bytes of the body are missing"):
            answer.read(9)
        answer.close()


OTHERS = {
    "chunked": (
        b"HTTP/1.1 200 OK\r\n" + CHUNKED,
        b"model",
    ),
    "chunked with a length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + CHUNKED,
        b"model",
    ),
    "an error": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", b"no"),
    "a redirect": (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", b""),
    "an end": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\ncut", b"cut"),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\nto the end, cut", b"to the end, cut"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\ncut", b"cut"),
    "news before it": (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, b"model"),
    "lines of another kind": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nmodel", b"model"),
    "a folded field": (
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n  c\r\nContent-Length: 5\r\n\r\nmodel",
        b"model",
    ),
    "a long head": (
        b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 40_000 + b"\r\nContent-Length: 5\r\n\r\nmodel",
        b"model",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_all_other_answers_are_those_of_urllib3(name: str) -> None:
    sent, body = OTHERS[name]
    with served(sent) as (_, pool):
        answer = ask(pool)
        assert isinstance(answer, HTTPResponse)
        assert answer.read(100, decode_content=False) == body
        answer.close()


def test_an_answer_of_urllib3_keeps_its_connection_too() -> None:
    with served(OTHERS["chunked"][0], PLAIN) as (server, pool):
        answer = ask(pool)
        while answer.read(100, decode_content=False):
            pass
        assert ask(pool).read(9) == b"model"
        assert server.connections == 1


@pytest.mark.parametrize(
    "sent",
    [
        None,
        b"nonsense\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"Content-Length: 1\r\n\r\ncut",
    ],
    ids=["nothing", "no HTTP", "too many fields"],
)
def test_what_is_no_answer_is_an_error_of_urllib3(sent: bytes | None) -> None:
    with served(sent, PLAIN) as (_, pool):
        with pytest.raises(ProtocolError):
            ask(pool)
        # Its connection is not used again.
        assert ask(pool).read(9) == b"model"


def test_two_different_lengths_are_refused() -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\ncut"
    with served(sent) as (_, pool), pytest.raises(InvalidHeader):
        ask(pool)


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/m HTTP/1.1\r\nX: y", {}),
        ("/a b", {}),
        ("/m", {"Range": "bytes=0-1\r\nX: y"}),
        ("/m", {"Range": "bytes=0-1\n"}),
        ("/m", {"X\r\nY": "z"}),
        ("/m", {"X": "\0"}),
    ],
)
def test_a_request_cannot_hold_another_one(target: str, headers: dict[str, str]) -> None:
    with served(PLAIN) as (server, pool):
        with pytest.raises(ValueError, match="another one"):
            fetch(pool, target, headers, connect_seconds=5, read_seconds=10)
        assert not server.asked


def test_an_abort_ends_a_read_and_meets_no_later_request() -> None:
    with served(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmod", PLAIN) as (_, pool):
        answer = ask(pool)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(answer.read(9)))
        reader.start()
        while reader.is_alive():
            answer.shutdown()
            reader.join(0.05)
        assert found == [b"mod"]
        answer.close()
        whole = ask(pool)
        assert whole.read(9) == b"model"
        # It was given back with its last byte.
        whole.shutdown()
        assert pool.pool is not None
        assert [one.is_closed for one in pool.pool.queue if one] == [False]


def test_a_wait_that_is_over_ends_a_request() -> None:
    with served(PLAIN) as (server, pool):
        with waiting(10, lambda: True), pytest.raises(DownloadError):
            ask(pool)
        assert not server.asked


def test_names_of_fields_have_any_case() -> None:
    headers = PlainHeaders({"etag": "a"})
    assert headers["ETag"] == headers.get("eTaG") == "a"
    assert "ETAG" in headers
    assert headers.get("Range", "-") == "-"


_FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["Content-Length", "content-length", "ETag", "X-A", "Connection"]),
        st.sampled_from(
            ["0", "3", " 3 ", "03", "+3", "3, 3", "\t3", "keep-alive", "close", "é", ""]
        ),
    ),
    max_size=5,
)


@given(status=st.sampled_from([200, 206, 204, 304, 500]), fields=_FIELDS)
def test_plain_answers_are_as_http_client_reads_them(
    status: int, fields: list[tuple[str, str]]
) -> None:
    head = "".join(f"{name}:{value}\r\n" for name, value in fields)
    sent = f"HTTP/1.1 {status} \r\n{head}\r\nmodel".encode("latin-1")
    one, other = socket.socketpair()
    with one, other:
        server = threading.Thread(target=_send, args=(other, sent))
        server.start()
        pool = HTTPConnectionPool("127.0.0.1", 1)
        connection: Any = pool._get_conn()
        connection.sock = one
        pool._put_conn(connection)
        try:
            answer = fetch(pool, "/", {}, connect_seconds=5, read_seconds=5)
        except InvalidHeader:
            return
        finally:
            server.join()
        if isinstance(answer, PlainAnswer):
            expected = client.HTTPResponse(_Sent(sent), method="GET")
            expected.begin()
            assert (answer.status, answer.read(9)) == (expected.status, expected.read())
            for name, value in answer.headers.items():
                # http.client leaves spaces behind a value.
                assert value == (expected.getheader(name) or "").strip(" \t")
        answer.close()


def _send(connection: socket.socket, sent: bytes) -> None:
    connection.recv(1000)
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)


class _Sent(socket.socket):
    def __init__(self, sent: bytes) -> None:
        super().__init__()
        self.close()
        self._sent = sent

    def makefile(self, *_: Any, **__: Any) -> Any:
        return io.BytesIO(self._sent)
