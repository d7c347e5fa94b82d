"""An object that is replaced while it is downloaded is never published as a mixture."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import pytest

from agent.commands.assemble import own_credentials
from agent.sources.http import HttpSource
from agent.sources.pins import holds
from agent.sources.transport import Transports
from agent.structs.failures import CancelledError, DownloadError, FailureKind
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.hostile import DATA, SIZE, Attempt, content, small_steps
from tests.unit.agent.servers import Handler, Span, etag, serving, span_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.disk.store import Store

__all__ = ["small_steps"]

pytestmark = pytest.mark.usefixtures("small_steps")

NEW = content(2)
OLD_TIME, NEW_TIME = formatdate(1_700_000_000, usegmt=True), formatdate(1_700_000_009, usegmt=True)
PIECE = 64 << 10


@dataclass
class Origin:
    """A web server or an S3 store with one object, which is replaced after half of it was sent.

    `pins` are the headers that tell its version, by content. Where it is written `in_place`, an
    answer that is under way goes on with the new bytes.
    """

    pins: Callable[[bytes], dict[str, str]]
    in_place: bool = False
    ranged: bool = True
    # What a listing of S3 has for its ETag and its time.
    entry: str = ""
    replaces: bool = True
    # What its clock says.
    date: str = ""
    now: bytes = field(default=DATA, repr=False)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.sent = 0
        self.asked: list[dict[str, str]] = []

    def __call__(self, handler: Handler, _: str) -> None:
        if self.date:
            handler.date_time_string = lambda *_: self.date  # type: ignore[method-assign]
        if "list-type" in handler.path:
            return handler.reply(
                200,
                "<ListBucketResult><IsTruncated>false</IsTruncated><Contents>"
                f"<Key>m.bin</Key><Size>{SIZE}</Size>{self.entry}"
                "</Contents></ListBucketResult>".encode(),
                {"Content-Type": "application/xml"},
            )
        data = self.now
        pins = self.pins(data)
        span = span_of(handler, len(data)) if self.ranged else None
        with self.lock:
            self.asked.append(dict(handler.headers))
        if handler.headers.get("If-Match", pins.get("ETag")) != pins.get("ETag"):
            return handler.reply(412)
        whole = Span(0, len(data), len(data))
        found = span or whole
        headers = pins | {"Content-Length": str(found.length)}
        if span:
            headers["Content-Range"] = span.content_range
        handler.begin(206 if span else 200, headers)
        for start in range(found.start, found.end, PIECE):
            source = self.now if self.in_place else data
            piece = source[start : min(start + PIECE, found.end)]
            handler.wfile.write(piece)
            with self.lock:
                self.sent += len(piece)
                if self.replaces and self.sent > SIZE // 2:
                    self.now = NEW
        return None


def only_time(data: bytes) -> dict[str, str]:
    return {"Last-Modified": OLD_TIME if data == DATA else NEW_TIME}


def same_second(_: bytes) -> dict[str, str]:
    """The object was put just now, and is replaced within the same second."""
    return {"Last-Modified": NOW}


def weak(data: bytes) -> dict[str, str]:
    return {"ETag": f"W/{etag(data)}"}


def weak_and_time(data: bytes) -> dict[str, str]:
    return weak(data) | only_time(data)


def weak_that_stays(_: bytes) -> dict[str, str]:
    """Weak ETags may: both are as good as each other to the server."""
    return {"ETag": 'W/"1"'}


def nothing(_: bytes) -> dict[str, str]:
    return {}


def strong(data: bytes) -> dict[str, str]:
    return {"ETag": etag(data)} | only_time(data)


def zeros(_: bytes) -> dict[str, str]:
    return {"ETag": '"00000000000000000000000000000000-1"'}


def bare(data: bytes) -> dict[str, str]:
    return {"ETag": etag(data).strip('"')}


NOW = formatdate(1_800_000_000, usegmt=True)


def check_whole(attempt: Attempt) -> bytes | None:
    """It is one version or none, and never both."""
    try:
        attempt.download.run()
    except DownloadError as error:
        assert error.kind is FailureKind.CHANGED  # noqa: PT017
    found = attempt.tree
    if found is None:
        return None
    assert set(found) == {"m.bin"}
    # Not ==, which pytest would print.
    same = [one for one in (DATA, NEW) if found["m.bin"] == one]
    assert len(same) == 1
    return same[0]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("ranged", [False, True])
@pytest.mark.parametrize("pins", [only_time, weak, weak_and_time, strong, bare])
def test_a_web_servers_file_is_of_one_version(
    store: Store, pins: Callable[[bytes], dict[str, str]], ranged: bool, in_place: bool
) -> None:
    with serving(Origin(pins, in_place=in_place, ranged=ranged)) as server:
        assert check_whole(Attempt(store, f"{server.url}/m.bin")) is not None


@pytest.mark.parametrize("pins", [nothing, same_second, weak_that_stays, zeros])
def test_a_web_servers_file_that_nothing_pins_is_of_one_version(
    store: Store, pins: Callable[[bytes], dict[str, str]]
) -> None:
    origin = Origin(pins, date=NOW)
    with serving(origin) as server:
        assert check_whole(Attempt(store, f"{server.url}/m.bin")) is not None
    assert [one.get("Range") for one in origin.asked[:2]] == ["bytes=0-0", None]


ENTRIES = {
    "none": "",
    "empty": "<ETag></ETag>",
    "quotes": "<ETag>&quot;&quot;</ETag>",
    "zeros": "<ETag>&quot;00000000000000000000000000000000-1&quot;</ETag>",
    "of-nothing": "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag>",
}
LISTED = "<LastModified>2023-11-14T22:13:20.000Z</LastModified>"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")

    def at(url: str) -> str:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        return "s3://bucket"

    return at


@pytest.mark.parametrize("tag", ENTRIES)
@pytest.mark.parametrize("time", [LISTED, ""])
@pytest.mark.parametrize("pins", [only_time, nothing])
def test_an_object_without_an_etag_is_of_one_version(
    store: Store,
    s3: Callable[[str], str],
    pins: Callable[[bytes], dict[str, str]],
    tag: str,
    time: str,
) -> None:
    entry = ENTRIES[tag] + time
    with serving(Origin(pins, entry=entry)) as server:
        check_whole(Attempt(store, s3(server.url)))


def test_an_object_without_an_etag_comes_in_ranges_that_its_time_pins(
    store: Store, s3: Callable[[str], str]
) -> None:
    origin = Origin(only_time, entry=LISTED, replaces=False)
    with serving(origin) as server:
        Attempt(store, s3(server.url)).succeeds({"m.bin": DATA})
    ranges = [one["Range"] for one in origin.asked]
    assert len(ranges) > 3
    # Looked at again after the last byte.
    assert ranges[-1] == "bytes=0-0"


@pytest.mark.parametrize("in_place", [False, True])
def test_an_object_that_its_time_pins_is_not_published_mixed(
    store: Store, s3: Callable[[str], str], in_place: bool
) -> None:
    origin = Origin(only_time, entry=LISTED, in_place=in_place)
    with serving(origin) as server:
        # The listing never tells of the new time: in the end it is one answer.
        assert check_whole(Attempt(store, s3(server.url))) is NEW


def test_an_object_that_was_put_just_now_comes_in_one_answer(
    store: Store, s3: Callable[[str], str]
) -> None:
    listed = "<LastModified>2027-01-15T08:00:00.000Z</LastModified>"
    origin = Origin(same_second, entry=listed, replaces=False, date=NOW)
    with serving(origin) as server:
        Attempt(store, s3(server.url)).succeeds({"m.bin": DATA})
    assert "Range" not in origin.asked[0]


def test_answers_that_do_not_tell_their_version_are_read_in_one(store: Store) -> None:
    told: list[int] = []

    def sometimes(data: bytes) -> dict[str, str]:
        told.append(1)
        # Only the first look has it.
        return strong(data) if len(told) == 1 else {}

    origin = Origin(sometimes)
    with serving(origin) as server:
        assert check_whole(Attempt(store, f"{server.url}/m.bin")) is not None


@pytest.mark.parametrize("pins", [nothing, same_second, weak_that_stays])
def test_what_nothing_pins_starts_over_after_a_restart(
    store: Store, pins: Callable[[bytes], dict[str, str]]
) -> None:
    """Also where its time counts the next time: the former part is of before."""

    def cut(handler: Handler, path: str) -> None:
        if "Range" in handler.headers:
            return origin(handler, path)
        handler.date_time_string = lambda *_: NOW  # type: ignore[method-assign]
        handler.begin(200, pins(DATA) | {"Content-Length": str(SIZE)})
        handler.wfile.write(DATA[: SIZE // 2])
        broken.download._cancelled.set()
        return handler.hang_up()

    origin = Origin(pins, replaces=False, date=NOW)
    with serving(cut) as server:
        uri = f"{server.url}/m.bin"
        broken = Attempt(store, uri)
        with pytest.raises(CancelledError):
            broken.download.run()
        # The same second is long over, and something else was put within it.
        origin.now, origin.date = NEW, formatdate(1_800_000_100, usegmt=True)
        server.answer = origin
        Attempt(store, uri).succeeds({"m.bin": NEW})


@dataclass
class Two:
    """Two servers behind one address: one content and one time, and an ETag of each."""

    time: str = OLD_TIME

    def __post_init__(self) -> None:
        self.number = 0
        self.lock = threading.Lock()
        self.whole = 0

    def __call__(self, handler: Handler, path: str) -> None:
        with self.lock:
            self.number += 1
            tag = f'"{self.number % 2}a-5f"'
            self.whole += "Range" not in handler.headers
        Origin(lambda _: {"ETag": tag, "Last-Modified": self.time}, replaces=False)(handler, path)


def test_servers_with_etags_of_their_own_end_in_one_answer(store: Store) -> None:
    both = Two()
    with serving(both) as server:
        Attempt(store, f"{server.url}/m.bin").succeeds({"m.bin": DATA})
    assert both.whole == 1


def test_an_answer_of_one_server_that_changes_meanwhile_is_not_taken(store: Store) -> None:
    numbers = iter(range(1000))
    lock = threading.Lock()

    def pins(data: bytes) -> dict[str, str]:
        with lock:
            return {"ETag": f'"{next(numbers)}"'} | only_time(data)

    with serving(Origin(pins, in_place=True)) as server:
        check_whole(Attempt(store, f"{server.url}/m.bin"))


@pytest.mark.parametrize(
    ("listed", "answered"),
    [
        ("abc", '"abc"'),
        ("abc", "abc"),
        ('"abc"', "abc"),
        ('"abc"', '"abc-gzip"'),
        ('"abc"', '"abc;gzip"'),
        ('"abc"', '"abc--gzip"'),
        ('"abc"', 'W/"abc"'),
        (' "abc" ', '"abc"'),
    ],
)
def test_etags_are_compared_as_they_are_meant(
    store: Store, s3: Callable[[str], str], listed: str, answered: str
) -> None:
    origin = Origin(
        lambda _: {"ETag": answered}, entry=f"<ETag>{escape(listed)}</ETag>", replaces=False
    )
    with serving(origin) as server:
        Attempt(store, s3(server.url)).succeeds({"m.bin": DATA})
    # First as the store wrote it.
    assert origin.asked[0]["If-Match"] == listed.strip()


def test_a_web_servers_etag_without_quotes_is_sent_as_it_came(store: Store) -> None:
    origin = Origin(bare, replaces=False)
    with serving(origin) as server:
        Attempt(store, f"{server.url}/m.bin").succeeds({"m.bin": DATA})
    assert {one.get("If-Match") for one in origin.asked[1:]} == {etag(DATA).strip('"')}


def test_a_total_that_a_server_does_not_tell_is_not_that_of_a_part(store: Store) -> None:
    def answer(handler: Handler, _: str) -> None:
        span = span_of(handler, SIZE)
        if span is None:
            return handler.reply(200, DATA, {"ETag": etag(DATA)})
        headers = {"Content-Range": f"bytes {span.start}-{span.end - 1}/*", "ETag": etag(DATA)}
        return handler.reply(206, DATA[span.start : span.end], headers)

    with serving(answer) as server:
        model = HttpSource(Transports(max_connections=2)).resolve(
            f"{server.url}/m.bin", own_credentials(), None
        )
        assert model.files[0].size == SIZE
        Attempt(store, f"{server.url}/m.bin").succeeds({"m.bin": DATA})


def test_times_are_compared_whatever_a_proxy_makes_of_them() -> None:
    twice = {"Last-Modified": OLD_TIME, "Date": f"{NEW_TIME}, {NEW_TIME}"}
    assert holds(OLD_TIME, twice)
    for date in ("", "soon", OLD_TIME):
        assert not holds(OLD_TIME, {"Last-Modified": OLD_TIME, "Date": date})
    assert not holds(OLD_TIME, {"Last-Modified": OLD_TIME})
