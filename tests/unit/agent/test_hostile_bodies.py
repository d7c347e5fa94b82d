"""Origins whose answers have no end, or unpack to much more than they are."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import pytest

from agent.sources import bodies
from tests.unit.agent.servers import Handler, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[Handler, str], None]

# Each test starts a process, to measure its memory.
pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20
# What an agent of 512Mi can spare for one origin.
SPARE = 64 * MIB
HUGE = 2048


def bomb(piece: bytes = b"[" * MIB, times: int = HUGE) -> bytes:
    """A small gzip of so many such pieces."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(piece) for _ in range(times)) + packer.flush()


BOMB = bomb()


def pour(handler: Handler, piece: bytes) -> None:
    """This, for ever."""
    while True:
        handler.wfile.write(piece)


def endless(status: int, piece: bytes = b" " * MIB, **headers: str) -> Answer:
    def answer(handler: Handler, _: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.begin(status, {"Connection": "close", **named})
        pour(handler, piece)

    return answer


def packed(status: int, body: bytes = BOMB, **headers: str) -> Answer:
    def answer(handler: Handler, _: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.reply(status, body, {"Content-Encoding": "gzip", **named})

    return answer


def twice_packed(handler: Handler, _: str) -> None:
    handler.reply(200, gzip.compress(BOMB), {"Content-Encoding": "gzip, gzip"})


def endless_chunk_size(handler: Handler, _: str) -> None:
    """A line without an end where the size of a chunk should stand."""
    handler.begin(200, {"Transfer-Encoding": "chunked"})
    pour(handler, b"0" * MIB)


def endless_chunks(handler: Handler, _: str) -> None:
    handler.begin(200, {"Transfer-Encoding": "chunked"})
    pour(handler, b"100000\r\n" + b" " * MIB + b"\r\n")


def reply(body: bytes) -> Answer:
    return lambda handler, _: handler.reply(200, body)


def endless_pages(handler: Handler, _: str) -> None:
    """A hub whose listing always has another page."""
    if "/tree/" not in handler.path:
        handler.reply(200, b'{"sha": "%s"}' % (b"a" * 40))
        return
    number = len(handler.server.seen)  # type: ignore[attr-defined]
    entry = b'{"type": "file", "path": "%d-%d", "size": 1},'
    body = b"".join(entry % (number, at) for at in range(1000))
    link = f'<http://x/?page={number}>; rel="next"'
    handler.reply(200, b"[" + body[:-1] + b"]", {"Link": link})


def hub(body: bytes) -> Answer:
    def answer(handler: Handler, _: str) -> None:
        handler.reply(200, body if "/tree/" in handler.path else b'{"sha": "%s"}' % (b"a" * 40))

    return answer


def ask(
    answer: Answer, uri: str = "webhdfs://{host}/model", setting: str = ""
) -> tuple[str, str, int]:
    """What the agent says of such an origin, how often it asked, and what memory it took."""
    with serving(answer) as server:
        host = server.url.removeprefix("http://")
        command = [sys.executable, "-m", "tests.unit.agent.greedy", uri.format(host=host)]
        if setting:
            command.append(setting.format(host=host))
        ran = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120)
    said, memory = ran.stdout.strip().splitlines()[-2:]
    kind, _, message = said.partition(" ")
    return kind, message, int(memory)


# By kind of source: a URI, and where its server is named.
SOURCES = {
    "webhdfs": ("webhdfs://{host}/model", ""),
    "s3": ("s3://bucket/model", "AWS_ENDPOINT_URL=http://{host}"),
    "gs": ("gs://bucket/model", "STORAGE_EMULATOR_HOST=http://{host}"),
    "azure": (
        "azure://account.blob.core.windows.net/container/model",
        "AZURE_STORAGE_BLOB_ENDPOINT=http://{host}",
    ),
    "hf": ("hf://org/model", "HF_ENDPOINT=http://{host}"),
    "http": ("http://{host}/model.bin", ""),
}


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "http"])
@pytest.mark.parametrize("answer", [endless(200), packed(200)], ids=["endless", "packed"])
def test_a_listing_that_does_not_end_is_no_listing(source: str, answer: Answer) -> None:
    kind, message, memory = ask(answer, *SOURCES[source])
    assert kind == "Unsupported"
    assert "more than a model's listing has" in message
    assert memory < SPARE


@pytest.mark.parametrize("source", ["webhdfs", "http"])
@pytest.mark.parametrize(
    "answer",
    [
        endless(302, Location="/model.bin"),
        packed(302, Location="/model.bin"),
        endless(403),
        packed(403),
        endless_chunk_size,
        endless_chunks,
        twice_packed,
    ],
    ids=["redirect", "packed-redirect", "refusal", "packed-refusal", "size", "chunks", "twice"],
)
def test_no_answer_takes_an_agents_memory(source: str, answer: Answer) -> None:
    kind, _, memory = ask(answer, *SOURCES[source])
    assert kind != "MemoryError"
    assert memory < SPARE


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        # Each of these has a report of an error, or an object, that is far larger than itself.
        ("hf", hub(b"[" + b"1," * (MIB // 16) + b"1]")),
        ("hf", hub(b"[" + b"1," * (2 * MIB - 2) + b"1]")),
        ("webhdfs", reply(b'{"FileStatuses":{"FileStatus":[' + b"1," * (MIB // 16) + b"1]}}")),
        ("gs", reply(b"[" + b'{"":0},' * (MIB // 2) + b"0]")),
        ("azure", reply(b"<a>" + b"<a/>" * (MIB - 16) + b"</a>")),
        ("s3", reply(b"<a>" + b"<a/>" * (MIB - 16) + b"</a>")),
    ],
    ids=["wrong", "many", "wrong-folder", "objects", "elements", "parsed-by-boto3"],
)
def test_what_is_much_larger_once_it_is_parsed_is_not(source: str, answer: Answer) -> None:
    kind, _, memory = ask(answer, *SOURCES[source])
    assert kind in {"Unsupported", "Internal"}
    assert memory < SPARE


def test_a_listing_of_endless_pages_ends() -> None:
    kind, message, memory = ask(endless_pages, *SOURCES["hf"])
    assert kind == "Unsupported"
    assert "fewer and larger" in message
    assert memory < SPARE


def test_a_page_of_a_thousand_objects_with_the_longest_names_is_read() -> None:
    name = "%C3%BC" * 340
    entry = (
        "<Contents><Key>m/{}" + name + "</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        "<ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>1</Size><Owner><ID>"
        + "f"
        * 64
        + "</ID><DisplayName>owner</DisplayName></Owner><StorageClass>STANDARD</StorageClass>"
        "</Contents>"
    )
    page = "".join(entry.format(number) for number in range(1000))
    body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{page}</ListBucketResult>".encode()
    assert len(body) < bodies.MAX_BODY_BYTES
    kind, count, _ = ask(reply(body), "s3://bucket/m", SOURCES["s3"][1])
    assert (kind, count) == ("Listed", "1000")
