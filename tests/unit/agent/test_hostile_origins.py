"""Origins whose content is not what they said. None of it may be published."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from agent.engine.engine import Engine
from agent.engine.limits import Limits
from agent.structs.failures import FailureKind
from agent.structs.remote import Checksum, ChecksumAlgorithm
from tests.unit.agent import hostile
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.hostile import DATA, RANGE, SIZE, Attempt, Site, content, site
from tests.unit.agent.memory import Memory
from tests.unit.agent.servers import Buckets, Handler, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.disk.store import Store
    from tests.unit.agent.servers import Span

    Act = Callable[[Site, Handler, Span, int], bool]

# Files of several MiB come in small ranges.
pytestmark = [pytest.mark.usefixtures("small_steps"), pytest.mark.timeout(60)]
small_steps = hostile.small_steps

NEW = content(2)
SHORT = content(3, SIZE - 500_000)
LONG = content(4, SIZE + 500_000)


@pytest.mark.parametrize("new", [NEW, SHORT, LONG])
def test_a_file_that_changes_half_way_starts_over(store: Store, new: bytes) -> None:
    def act(made: Site, _handler: Handler, _span: Span, number: int) -> bool:
        if number == 6:
            made.data = new
        return False

    engine = Engine(Limits(connections_per_origin=2))
    with site(Site(act=act)) as uri, capture_logs() as logs:
        manifest = Attempt(store, uri, engine=engine).succeeds({"m.bin": new})
    assert manifest.files[0].sha256 == hashlib.sha256(new).hexdigest()
    events = [log["event"] for log in logs]
    assert "File changed at its source" in events
    assert "File changed and starts over" in events
    assert "s3cret" not in str(logs)


@pytest.mark.parametrize("new", [SHORT, LONG])
def test_a_file_that_changes_and_has_no_version_starts_over(store: Store, new: bytes) -> None:
    def act(made: Site, handler: Handler, _span: Span, number: int) -> bool:
        if number > 1:
            return False
        made.begin(handler, None)
        made.pour(handler, DATA[: SIZE // 2])
        made.data = new
        handler.hang_up()
        return True

    with site(Site(act=act, tagged=False)) as uri, capture_logs() as logs:
        Attempt(store, uri).succeeds({"m.bin": new})
    assert "File changed at its source" in [log["event"] for log in logs]


def test_versions_are_never_mixed_without_a_way_to_tell_them_apart(store: Store) -> None:
    def act(made: Site, _handler: Handler, _span: Span, number: int) -> bool:
        # The same length, and nothing says that it is another file.
        made.data = content(number)
        return False

    made = Site(act=act, tagged=False)
    with site(made) as uri:
        attempt = Attempt(store, uri)
        attempt.download.run()
    assert attempt.tree == {"m.bin": made.data}


def test_a_file_that_never_stays_the_same_is_told(store: Store) -> None:
    def act(made: Site, _handler: Handler, _span: Span, number: int) -> bool:
        made.data = content(number)
        return False

    with site(Site(act=act)) as uri:
        error = Attempt(store, uri).fails(FailureKind.CHANGED, "/m.bin?…", "starts over by itself")
    assert error.retry_after is None


def test_a_body_that_is_cut_once_goes_on_where_it_stopped(store: Store) -> None:
    def act(made: Site, handler: Handler, span: Span, number: int) -> bool:
        if number != 1:
            return False
        cuts.append(span.start + 200_000)
        made.begin(handler, span)
        made.pour(handler, DATA[span.start : cuts[0]])
        handler.hang_up()
        return True

    cuts: list[int] = []
    made = Site(act=act)
    with site(made) as uri:
        Attempt(store, uri).succeeds({"m.bin": DATA})
    assert made.sent == SIZE + 1
    assert cuts[0] in {span.start for span in made.spans}


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("came", [0, 1000, 100_000])
def test_bodies_that_are_always_cut_are_unreachable(store: Store, came: int, tagged: bool) -> None:
    def act(made: Site, handler: Handler, span: Span, _number: int) -> bool:
        made.begin(handler, span if tagged else None)
        # The same bytes are always missing.
        made.pour(handler, DATA[span.start : max(span.start, min(span.end, came))])
        handler.hang_up()
        return True

    with site(Site(act=act, tagged=tagged)) as uri:
        Attempt(store, uri).fails(
            FailureKind.UNREACHABLE,
            "/m.bin?… cannot be reached: the connection broke",
            "tried again by itself",
        )


@pytest.mark.parametrize("tagged", [True, False])
def test_bodies_that_are_longer_than_announced_are_corrupt(store: Store, tagged: bool) -> None:
    def act(made: Site, handler: Handler, span: Span, _number: int) -> bool:
        body = DATA[span.start : span.end] + b"and more"
        made.begin(
            handler, span if tagged else None, Content_Length="", Transfer_Encoding="chunked"
        )
        handler.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        return True

    with site(Site(act=act, tagged=tagged)) as uri:
        Attempt(store, uri).fails(
            FailureKind.CORRUPT,
            "/m.bin?… was announced with",
            "and has more",
            "check the file at its source",
        )


def test_bytes_behind_a_body_are_no_part_of_it(store: Store) -> None:
    def act(made: Site, handler: Handler, span: Span, number: int) -> bool:
        made.serve(handler, span)
        if number % 2:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
            handler.close_connection = True
        return True

    with site(Site(act=act)) as uri:
        Attempt(store, uri).succeeds({"m.bin": DATA})


def crc32c(data: bytes) -> str:
    from awscrt import checksums  # noqa: PLC0415

    return base64.b64encode(checksums.crc32c(data).to_bytes(4, "big")).decode()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")
    monkeypatch.setattr("agent.sources.s3_checksums.CHECKSUM_BYTES", 1)


@pytest.mark.usefixtures("s3")
def test_what_is_not_as_its_store_says_is_corrupt_and_fetched_again_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = content(5), content(6)
    asked: list[str] = []

    def look(_: Handler, key: str) -> bool:
        asked.append(key)
        return True

    buckets = Buckets({"b": {"m/good.bin": good, "m/bad.bin": bad}}, before_get=look)
    buckets.checksums = {
        "m/good.bin": ("CRC32C", crc32c(good)),
        "m/bad.bin": ("CRC32C", crc32c(b"something else")),
    }
    with serving(buckets) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        error = Attempt(store, "s3://b/m").fails(FailureKind.CORRUPT, "bad.bin", server.url)
        assert "crc32c" in error.message
        assert "Checksum(" not in error.message
        # The good one may have been under way.
        asked.clear()
        Attempt(store, "s3://b/m").fails(FailureKind.CORRUPT, "bad.bin")
        asked.clear()
        Attempt(store, "s3://b/m").fails(FailureKind.CORRUPT, "bad.bin")
        assert set(asked) == {"m/bad.bin"}
        asked.clear()
        buckets.checksums["m/bad.bin"] = ("CRC32C", crc32c(bad))
        Attempt(store, "s3://b/m").succeeds({"good.bin": good, "bad.bin": bad})
        assert set(asked) == {"m/bad.bin"}


@pytest.mark.parametrize(
    ("algorithm", "right"),
    [
        (ChecksumAlgorithm.SHA256, hashlib.sha256(DATA).hexdigest()),
        (ChecksumAlgorithm.MD5, hashlib.md5(DATA).hexdigest()),
        (
            ChecksumAlgorithm.GIT_BLOB,
            hashlib.sha1(f"blob {SIZE}\0".encode() + DATA).hexdigest(),
        ),
    ],
)
def test_other_checksums_are_compared_too(
    store: Store, algorithm: ChecksumAlgorithm, right: str
) -> None:
    files = {"a": DATA, "small": b"{}"}
    wrong = Memory(files, checksums={"a": Checksum(algorithm, f"{zlib.crc32(DATA):032x}")})
    error = Attempt(store, "stub://m", source=wrong).fails(FailureKind.CORRUPT, "a from mem://")
    assert right in error.message
    source = Memory(files, checksums={"a": Checksum(algorithm, right)})
    Attempt(store, "stub://m", source=source).succeeds(files)


def whole(made: Site, handler: Handler, _span: Span, _number: int) -> bool:
    made.serve(handler, None)
    return True


def sometimes_whole(made: Site, handler: Handler, span: Span, number: int) -> bool:
    made.serve(handler, None if number % 3 == 0 else span)
    return True


def whole_later(made: Site, handler: Handler, span: Span, number: int) -> bool:
    made.serve(handler, None if number > 8 else span)
    return True


def other_range(made: Site, handler: Handler, span: Span, _number: int) -> bool:
    if span.length == SIZE:
        return False
    made.begin(handler, span, Content_Range=f"bytes 0-{span.length - 1}/{SIZE}")
    made.pour(handler, DATA[: span.length])
    return True


def no_range(made: Site, handler: Handler, span: Span, _number: int) -> bool:
    if span.length == SIZE:
        return False
    made.begin(handler, span, Content_Range="")
    made.pour(handler, DATA[: span.length])
    return True


def shorter_range(made: Site, handler: Handler, span: Span, _number: int) -> bool:
    if span.length == SIZE:
        return False
    end = span.start + min(span.length, RANGE // 2)
    made.begin(
        handler,
        span,
        Content_Range=f"bytes {span.start}-{end - 1}/{SIZE}",
        Content_Length=str(end - span.start),
    )
    made.pour(handler, DATA[span.start : end])
    return True


@pytest.mark.parametrize(
    "act", [whole, sometimes_whole, whole_later, other_range, no_range, shorter_range]
)
def test_a_server_that_does_not_keep_to_ranges_is_read_in_one_stream(
    store: Store, act: Act
) -> None:
    made = Site(act=act)
    with site(made) as uri:
        Attempt(store, uri).succeeds({"m.bin": DATA})


def test_another_size_in_every_answer_is_a_change(store: Store) -> None:
    def act(made: Site, handler: Handler, span: Span, _number: int) -> bool:
        made.begin(handler, span, Content_Range=f"bytes {span.start}-{span.end - 1}/{SIZE + 1}")
        made.pour(handler, DATA[span.start : span.end])
        return True

    with site(Site(act=act)) as uri:
        Attempt(store, uri).fails(FailureKind.CHANGED, "/m.bin?…")


def test_a_range_with_another_length_than_its_head_says_is_corrupt(store: Store) -> None:
    def act(made: Site, handler: Handler, span: Span, _number: int) -> bool:
        made.begin(handler, span, Content_Length=str(span.length + 1))
        made.pour(handler, DATA[span.start : span.end] + b"x")
        return True

    with site(Site(act=act)) as uri:
        Attempt(store, uri).fails(FailureKind.CORRUPT, "/m.bin?… answered", "tried again")


def test_what_is_compressed_on_the_way_is_unsupported(store: Store) -> None:
    def act(made: Site, handler: Handler, span: Span, number: int) -> bool:
        if number < 4:
            return False
        made.begin(handler, span, Content_Encoding="gzip")
        made.pour(handler, DATA[span.start : span.end])
        return True

    with site(Site(act=act)) as uri:
        Attempt(store, uri).fails(FailureKind.UNSUPPORTED, "/m.bin?…", "switch the server's")
    with serving(lambda handler, _: handler.reply(200, b"x", {"Content-Encoding": "br"})) as server:
        uri = hostile.secret_uri(server)
        Attempt(store, uri).fails(FailureKind.UNSUPPORTED, "is sent br-compressed")


def test_an_empty_file_is_published(store: Store) -> None:
    with serving(lambda handler, _: handler.reply(200)) as server:
        Attempt(store, hostile.secret_uri(server)).succeeds({"m.bin": b""})
    with site(Site(b"")) as uri:
        Attempt(store, uri).succeeds({"m.bin": b""})


def test_a_body_without_a_length_is_published(store: Store) -> None:
    def answer(handler: Handler, _: str) -> None:
        handler.begin(200, {"Transfer-Encoding": "chunked", "ETag": '"1"'})
        for start in range(0, SIZE, 100_000):
            piece = DATA[start : start + 100_000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    with serving(answer) as server:
        Attempt(store, hostile.secret_uri(server)).succeeds({"m.bin": DATA})
    assert {method for method, _, _ in server.seen} == {"GET"}


def test_a_body_without_a_length_that_breaks_is_unreachable(store: Store) -> None:
    def answer(handler: Handler, _: str) -> None:
        handler.begin(200, {"Transfer-Encoding": "chunked"})
        handler.wfile.write(f"{SIZE:x}\r\n".encode() + DATA[: SIZE // 2])
        handler.hang_up()

    with serving(answer) as server:
        uri = hostile.secret_uri(server)
        Attempt(store, uri).fails(FailureKind.UNREACHABLE, "the connection broke")
