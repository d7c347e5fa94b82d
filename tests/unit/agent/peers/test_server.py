"""The server that peers ask, with real sockets."""

from __future__ import annotations

import http.client
import os
import random
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from agent.peers import connection, handler, heads
from agent.peers.identity import Identity
from agent.peers.sending import UploadLimits, Uploads
from agent.structs.exchange import SharedFile, grant_digest
from agent.structs.pieces import MIN_PIECE_BYTES
from agent.structs.verified import decode, verified
from crds.keys import model_key
from tests.unit.agent.peers.asking import (
    ADMINISTRATOR,
    TENANT,
    URI,
    Asked,
    asked,
    publish,
    sha256,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.disk.store import Store
    from tests.unit.agent.peers.asking import Client

KEY = model_key(URI)
# Some parts of each kind of sending, and a piece of one byte.
BIG = random.Random(1).randbytes(MIN_PIECE_BYTES) + b"!"
SMALL = b"0123456789"
BLOB = f"/v2/{KEY}/blobs/sha256:"


@pytest.fixture(params=["plain", "TLS"])
def served(request: pytest.FixtureRequest, store: Store) -> Iterator[Asked]:
    publish(store, {"big": BIG, "small": SMALL, "empty": b""})
    with asked(store, identity=Identity() if request.param == "TLS" else None) as served:
        yield served


@pytest.fixture
def plain(store: Store) -> Iterator[Asked]:
    publish(store, {"big": BIG, "small": SMALL, "empty": b""})
    with asked(store) as served:
        yield served


def client_of(served: Asked) -> Client:
    if served.admission is None:
        return served.client()
    peer = Identity()
    served.admission.allow({peer.fingerprint: "node-2"})
    assert served.introduce(peer).status == 204
    return served.client(peer.client_context())


def blob(content: bytes) -> str:
    return BLOB + sha256(content)


def request(target: str, range_: str = "") -> bytes:
    lines = [f"GET {target} HTTP/1.1", f"Localmodel-Grant: {ADMINISTRATOR}"]
    lines += [f"Range: bytes={range_}"] if range_ else []
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def is_closed(client: socket.socket) -> bool:
    """Whether the server ends the connection; waits for that."""
    try:
        return client.recv(1 << 16) == b""
    except ConnectionResetError:
        return True


def test_files_and_ranges_over_one_connection(served: Asked) -> None:
    client = client_of(served)
    for content in (BIG, SMALL, b""):
        answer = client.ask(blob(content))
        assert (answer.status, answer.body) == (200, content)
    part = client.ask(blob(BIG), bytes_="1000000-3999999")
    assert (part.status, part.body) == (206, BIG[1_000_000:4_000_000])
    assert part.headers["Content-Range"] == f"bytes 1000000-3999999/{len(BIG)}"
    last = client.ask(blob(SMALL), bytes_="9-100")
    assert (last.body, last.headers["Content-Range"]) == (b"9", "bytes 9-9/10")
    head = client.ask(blob(BIG), "HEAD", bytes_="0-4")
    assert (head.status, head.body, head.headers["Content-Length"]) == (206, b"", "5")
    assert client.ask(blob(SMALL)).body == SMALL
    # What was sent is counted before the next request is read.
    assert client.ask(blob(BIG), "HEAD").headers["Content-Length"] == str(len(BIG))
    assert sum(served.counts.sizes) == len(BIG) + 3_000_000 + 2 * len(SMALL) + 1


@pytest.mark.parametrize("range_", ["5-4", "10-12", "-3", "3-", "0-1,3-4", "a-b", "0x1-2", ""])
def test_a_range_that_cannot_be_answered(plain: Asked, range_: str) -> None:
    client = plain.client()
    answer = client.ask(blob(SMALL), bytes_=range_)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */10"
    assert client.ask(blob(SMALL), "HEAD", bytes_=range_).status == 416
    assert client.ask(blob(SMALL)).body == SMALL


@pytest.mark.parametrize(
    "target",
    [
        BLOB + "0" * 64,
        BLOB + sha256(SMALL).upper(),
        f"/v2/{KEY}/blobs/../../{KEY}/small",
        f"/v2/{KEY}/blobs/small",
        f"/v2/../{KEY}/blobs/sha256:{sha256(SMALL)}",
        f"/v2/%2e%2e/blobs/sha256:{sha256(SMALL)}",
        f"/v2/{'0' * 16}/blobs/sha256:{sha256(SMALL)}",
        f"/v2/{KEY}/manifests/sha256:{'0' * 64}",
        f"/v2/{KEY}/pieces",
        f"/v2/{KEY}/pieces?after=-1&wait=0",
        f"/v2/{KEY}/pieces?after=0&wait=99999",
        f"/v2/{KEY}",
        "/v2/",
        "/etc/passwd",
        "//etc/passwd",
    ],
)
def test_what_is_not_there(plain: Asked, target: str) -> None:
    client = plain.client()
    assert client.ask(target).status == 404
    assert client.ask(blob(SMALL)).body == SMALL


@pytest.mark.parametrize("grant", [None, "", "0" * 64, grant_digest(TENANT)])
def test_a_wrong_grant_is_answered_as_a_file_that_is_not_there(
    plain: Asked, grant: str | None
) -> None:
    client = plain.client()
    missing = client.ask(BLOB + "0" * 64)
    refused = client.ask(blob(SMALL), grant=grant)
    assert (refused.status, refused.body) == (404, missing.body) == (missing.status, refused.body)
    assert client.ask(f"/v2/{KEY}/pieces?after=0&wait=0", grant=grant).status == 404


def test_other_methods_and_bodies_are_refused(plain: Asked) -> None:
    client = plain.client()
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        assert client.ask(blob(SMALL), method).status == 404
    # Only an introduction has a body, and plain HTTP has no introductions.
    assert client.ask("/v2/introduction", "PUT", body=b"certificate").status == 413


def test_polls_over_the_wire(served: Asked, tmp_path: Path) -> None:
    client = client_of(served)
    first = client.ask(f"/v2/{KEY}/pieces?after=0&wait=20").json
    assert first["files"] == {sha256(content): "*" for content in (BIG, SMALL, b"")}
    nothing = client.ask(f"/v2/{KEY}/pieces?after={first['revision']}&wait=0").json
    assert nothing == {"revision": first["revision"], "files": {}}
    new = b"new" * 1000
    served.shelf.begin(KEY, ADMINISTRATOR, [SharedFile("new", len(new), sha256(new))], tmp_path)
    served.shelf.wrote(KEY, sha256(new), 1)
    after = client.ask(f"/v2/{KEY}/pieces?after={first['revision']}&wait=20").json
    assert after["files"] == {sha256(new): "*"}


def test_a_file_under_way_serves_the_pieces_it_has(served: Asked, tmp_path: Path) -> None:
    data = BIG[:-1] + b"?" * MIN_PIECE_BYTES + b"."
    digest = sha256(data)
    (tmp_path / "w").write_bytes(data[:MIN_PIECE_BYTES])
    served.shelf.begin(KEY, ADMINISTRATOR, [SharedFile("w", len(data), digest)], tmp_path)
    served.shelf.wrote(KEY, digest, 0b001)
    client = client_of(served)
    assert client.ask(BLOB + digest, bytes_="0-99").body == data[:100]
    assert client.ask(BLOB + digest, bytes_=f"0-{MIN_PIECE_BYTES - 1}").status == 206
    for range_ in (f"0-{MIN_PIECE_BYTES}", f"{MIN_PIECE_BYTES}-{MIN_PIECE_BYTES}"):
        answer = client.ask(BLOB + digest, bytes_=range_)
        assert (answer.status, answer.body) == (416, b"piece 1 of the file is not here yet\n")
    assert client.ask(BLOB + digest).status == 416


def test_a_file_that_became_shorter_ends_the_connection(served: Asked, tmp_path: Path) -> None:
    """No peer waits for bytes that will not come, nor takes others for them."""
    digest = sha256(BIG)
    other = sha256(b"other")
    (tmp_path / "w").write_bytes(b"short")
    served.shelf.begin(KEY, ADMINISTRATOR, [SharedFile("w", len(BIG), other)], tmp_path)
    served.shelf.wrote(KEY, other, 0b11)
    client = client_of(served)
    with pytest.raises(http.client.IncompleteRead):
        client.ask(BLOB + other)
    client = client_of(served)
    assert client.ask(BLOB + digest).body == BIG


def test_the_manifest(served: Asked, store: Store) -> None:
    copy = store.inspect(KEY).manifest
    assert copy is not None
    published = verified(copy)
    assert published is not None
    client = client_of(served)
    answer = client.ask(f"/v2/{KEY}/manifests/{published.hash}")
    assert answer.status == 200
    assert decode(answer.body, published.hash) == published


def test_more_transfers_than_allowed_are_told_to_come_back(store: Store) -> None:
    publish(store, {"huge": os.urandom(1 << 20) * 64, "small": SMALL})
    huge = next(f for f in store.inspect(KEY).manifest.files if f.path == "huge")  # type: ignore[union-attr]
    with asked(store, UploadLimits(transfers=2)) as served:
        # Two clients that never read: the buffers of the system hold less than the file.
        stuck = [served.connect() for _ in range(2)]
        for one in stuck:
            one.sendall(request(BLOB + str(huge.sha256)))
            assert one.recv(4).startswith(b"HTTP")
        client = served.client()
        busy = client.ask(blob(SMALL))
        assert (busy.status, busy.headers["Retry-After"]) == (503, "1")
        # What is no transfer is answered.
        assert client.ask(blob(SMALL), "HEAD").status == 200
        assert client.ask(f"/v2/{KEY}/pieces?after=0&wait=0").status == 200
        for one in stuck:
            one.close()
        deadline = time.monotonic() + 20
        while client.ask(blob(SMALL)).status != 200:
            assert time.monotonic() < deadline


def test_a_client_that_never_reads_does_not_keep_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "PART_SECONDS", 0.1)
    content = os.urandom(1 << 20) * 64
    publish(store, {"huge": content})
    with asked(store, UploadLimits(transfers=1)) as served:
        stuck = served.connect()
        stuck.sendall(request(blob(content)))
        deadline, status = time.monotonic() + 20, 0
        while status != 206:
            assert time.monotonic() < deadline
            # On a busy machine, this client too may be too slow for the limit.
            with suppress(OSError, http.client.HTTPException):
                status = served.client().ask(blob(content), bytes_="0-9").status


def test_clients_that_send_nothing_stop_nobody(store: Store) -> None:
    publish(store, {"small": SMALL})
    with asked(store, UploadLimits(connections=4)) as served:
        silent = [served.connect() for _ in range(4)]
        for _ in range(3):
            client = served.client()
            assert client.ask(blob(SMALL)).body == SMALL
        assert is_closed(silent[0])


def test_connections_that_are_in_use_are_not_ended_for_others(store: Store, tmp_path: Path) -> None:
    with asked(store, UploadLimits(connections=2)) as served:
        served.shelf.begin(KEY, ADMINISTRATOR, [SharedFile("w", 3, sha256(b"new"))], tmp_path)
        clients = [served.client() for _ in range(2)]
        first = clients[0].ask(f"/v2/{KEY}/pieces?after=0&wait=0").json["revision"]
        answers: list[object] = []
        polls = [
            threading.Thread(
                target=lambda one=one: answers.append(
                    one.ask(f"/v2/{KEY}/pieces?after={first}&wait=20").json["files"]
                )
            )
            for one in clients
        ]
        for poll in polls:
            poll.start()
        deadline = time.monotonic() + 20
        while any(one.is_idle for one in list(served.server._open)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        refused = served.connect()
        assert is_closed(refused)
        served.shelf.wrote(KEY, sha256(b"new"), 1)
        for poll in polls:
            poll.join(20)
        assert answers == [{sha256(b"new"): "*"}] * 2


@pytest.mark.parametrize("what", ["head", "handshake"])
def test_a_client_that_drips_is_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(handler, "REQUEST_SECONDS", 0.5)
    with asked(store, identity=Identity() if what == "handshake" else None) as served:
        client = served.connect()
        # The header of a handshake that has 512 bytes.
        client.sendall(b"\x16\x03\x01\x02\x00" if what == "handshake" else b"G")
        began = time.monotonic()
        try:
            while time.monotonic() - began < 20:
                client.sendall(b"\1")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 20


def test_the_limit_in_bytes_per_second_holds_for_all_transfers_together() -> None:
    """Counts what the limit lets through, by a clock of the test."""
    uploads = Uploads(UploadLimits(bytes_per_second=1 << 20))
    assert uploads._at_a_time == 1 << 14
    waits = [uploads._bucket.take(1 << 20, 100.0) for _ in range(4)]
    assert waits == pytest.approx([0.9, 1.9, 2.9, 3.9])


def test_a_limited_transfer_sends_the_same_bytes_and_waits(store: Store) -> None:
    publish(store, {"big": BIG})
    waited: list[float] = []

    class Patient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            return self.is_set()

    limits = UploadLimits(bytes_per_second=1 << 20)
    with asked(store, limits) as served:
        served.server._uploads._closing = Patient()
        client = served.client()
        assert client.ask(blob(BIG)).body == BIG
    # 4 MiB at 1 MiB/s: the last part waits for those before it, however slow this machine is.
    assert len(waited) > 200
    assert max(waited) > 2


def test_garbage_takes_no_memory_and_stops_nobody(plain: Asked) -> None:
    chance = random.Random(7)
    valid = request(blob(SMALL), "0-3")
    threads = threading.active_count()
    for number in range(300):
        with plain.connect() as client:
            garbage = bytearray(valid)
            for _ in range(chance.randrange(1, 8)):
                garbage[chance.randrange(len(garbage))] = chance.randrange(256)
            cut = chance.randrange(1, len(garbage) + 1) if number % 3 else len(garbage)
            client.sendall([bytes(garbage[:cut]), chance.randbytes(200), b"A" * 9000][number % 3])
            client.shutdown(socket.SHUT_WR)
            got = b""
            try:
                while part := client.recv(1 << 16):
                    got += part
            except ConnectionResetError:
                pass
            assert len(got) < 1000
            assert not got or got.startswith(b"HTTP/1.1 ")
    last = plain.client()
    assert last.ask(blob(SMALL)).body == SMALL
    deadline = time.monotonic() + 20
    while len(plain.server._open) > 1 or threading.active_count() > threads + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(plain.shelf._places) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: 1\r\n A: folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nRange: bytes=0-1\r\nrange: bytes=2-3\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * heads.MAX_HEAD_BYTES, 431),
    ],
)
def test_a_request_that_is_not_valid_ends_its_connection(
    plain: Asked, sent: bytes, status: int
) -> None:
    with plain.connect() as client:
        client.sendall(sent)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == status
        assert answer.getheader("Connection") == "close"


def test_a_long_run_of_blanks_is_refused_in_one_pass() -> None:
    """In a number of tries that grows with its square, this would take hours."""
    with pytest.raises(heads.RequestError):
        heads._parse(b"GET / HTTP/1.1\r\nA:" + b" " * 2_000_000 + b"\x80")


def test_requests_that_come_together_are_answered_one_after_the_other(plain: Asked) -> None:
    with plain.connect() as client:
        client.sendall(request(blob(SMALL), "0-3") + request(blob(SMALL), "4-9"))
        for expected in (b"0123", b"456789"):
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                got += client.recv(1)
            assert b" 206 " in got
            assert client.recv(len(expected), socket.MSG_WAITALL) == expected


def test_an_error_of_the_disk_tells_no_path(
    plain: Asked, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(key: str) -> None:
        raise OSError(5, "Input/output error", str(store.path(key)))

    with monkeypatch.context() as patch:
        patch.setattr(store, "stamp", fail)
        client = plain.client()
        answer = client.ask(blob(SMALL))
        assert (answer.status, answer.body) == (500, b"the disk of this node gives an error\n")
    assert client.ask(blob(SMALL)).body == SMALL


def test_a_server_that_closes_ends_polls_and_frees_its_port(store: Store) -> None:
    publish(store, {"small": SMALL})
    with asked(store) as served:
        client = served.client()
        revision = client.ask(f"/v2/{KEY}/pieces?after=0&wait=0").json["revision"]
        waiting = served.connect()
        waiting.sendall(request(f"/v2/{KEY}/pieces?after={revision}&wait=25"))
        served.server.close()
        assert is_closed(waiting) or is_closed(waiting)
        assert not served.server._open
        socket.create_server(("127.0.0.1", served.server.port)).close()
