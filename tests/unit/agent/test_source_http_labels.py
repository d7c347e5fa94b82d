"""What web servers send in the place of a file, and what they say of its bytes."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.sources.http import HttpSource, file_name
from agent.sources.pages import START_BYTES, instead_of_file
from agent.sources.transport import Transports
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.servers import Handler, etag, serving, span_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[Handler, str], None]

DATA = b"\x80\x02" + bytes(range(256)) * 64
PACKED = gzip.compress(DATA)
PAGE = b"<!doctype html><html><title>Sign in</title><form action=/login></form></html>"
HTML = "text/html; charset=utf-8"


def fetch(uri: str) -> bytes:
    model = HttpSource(Transports(max_connections=2)).resolve(uri, own_credentials(), None)
    (file,) = model.files
    body = model.read(file, 0, file.size)
    try:
        return b"".join(iter(lambda: body.read(1 << 20), b""))
    finally:
        body.close()


def failure_of(answer: Answer, path: str = "/model.safetensors") -> DownloadError:
    with serving(answer) as server, pytest.raises(DownloadError) as caught:
        fetch(f"{server.url}{path}?sig=s3cret")
    assert "s3cret" not in caught.value.message
    return caught.value


def static(body: bytes, **headers: str) -> Answer:
    """A web server that sends ranges, with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(handler: Handler, _: str) -> None:
        span = span_of(handler, len(body))
        pinned = {"ETag": etag(body), **named}
        if span is None:
            return handler.reply(200, body, pinned)
        part = body[span.start : span.end]
        return handler.reply(206, part, pinned | {"Content-Range": span.content_range})

    return answer


def dynamic(body: bytes, **headers: str) -> Answer:
    """A program that knows nothing of ranges."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.reply(200, body, named)


def signing_in(body: bytes, **headers: str) -> Answer:
    there = dynamic(body, **headers)

    def answer(handler: Handler, path: str) -> None:
        if path == "/login":
            return there(handler, path)
        return handler.reply(302, headers={"Location": f"/login?next={path}"})

    return answer


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.tar.gz", "model.bin", "config.json", "download"]
)
@pytest.mark.parametrize("made", [signing_in, dynamic, static])
def test_a_page_is_not_the_model(name: str, made: Callable[..., Answer]) -> None:
    error = failure_of(made(PAGE, Content_Type=HTML), f"/{name}")
    assert error.kind is FailureKind.DENIED
    assert "gives a web page and not the file" in error.message


@pytest.mark.parametrize(
    ("page", "label"),
    [
        (PAGE, "text/plain"),
        (PAGE, "application/octet-stream"),
        (b"\xef\xbb\xbf\r\n  <HTML lang=de>" + "für".encode("latin-1"), HTML),
        ("<!DOCTYPE html PUBLIC>".encode("utf-16"), "text/html"),
        (b"<!-- saved from -->\n<!-- twice --><html>", HTML),
        (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "x"><html/>', "application/xhtml+xml"),
        (b"<meta http-equiv=refresh content='0; url=/login'>", HTML),
        (b"<script>location='/login'</script>", "Text/HTML"),
        (b"<!--" + b" a licence " * START_BYTES + b"--><html>", HTML),
    ],
)
def test_pages_of_all_kinds(page: bytes, label: str) -> None:
    error = failure_of(dynamic(page, Content_Type=label))
    assert error.kind is FailureKind.DENIED
    assert "a web page" in error.message


def test_a_page_that_is_packed_on_the_way() -> None:
    packed = dynamic(gzip.compress(PAGE), Content_Type=HTML, Content_Encoding="gzip")
    assert failure_of(packed).kind is FailureKind.DENIED
    assert failure_of(packed, "/model.tar.gz").kind is FailureKind.DENIED


def test_a_page_of_another_host_is_told_by_its_host() -> None:
    with serving(dynamic(PAGE, Content_Type=HTML)) as sso:

        def answer(handler: Handler, _: str) -> None:
            handler.reply(303, headers={"Location": f"{sso.url}/saml?token=s3cret"})

        error = failure_of(answer)
    assert error.kind is FailureKind.DENIED
    assert f"by way of {sso.url} " in error.message


@pytest.mark.parametrize(
    ("body", "label"),
    [
        (b'{"error": "unauthorized"}', "application/json"),
        (b' {"Errors": [{"status": 404}]}', "application/octet-stream"),
        (b'{"message": "Bad credentials", "status": "401"}', "application/problem+json"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "application/xml"),
        (b"<soap:Fault>no</soap:Fault>", "text/xml"),
    ],
)
@pytest.mark.parametrize("made", [dynamic, static])
def test_a_message_of_an_error_is_not_the_model(
    body: bytes, label: str, made: Callable[..., Answer]
) -> None:
    error = failure_of(made(body, Content_Type=label))
    assert error.kind is FailureKind.DENIED
    assert "a message of an error" in error.message


@pytest.mark.parametrize(
    ("name", "body", "label"),
    [
        # Servers label what they do not know.
        ("model.safetensors", DATA, "text/html"),
        ("model.bin", DATA, "text/plain"),
        ("model.gguf", b"", "text/html"),
        ("merges.txt", b"a b\n", "text/html"),
        ("model.bin", b"<\x00\x00 no page", "text/html"),
        ("vocab.txt", b"<html> 1\n<body> 2\n", "text/plain"),
        ("README.md", b"<p align=center>", "text/html"),
        ("tokenizer.vocab", b"<unk>\t0\n<s>\t0\n", "text/html"),
        # Pages, and data that looks like one.
        ("page.html", PAGE, "text/html"),
        ("page.XHTML", PAGE, "application/xhtml+xml"),
        ("page.html.gz", PAGE, "text/html"),
        ("config.json", b'{"error": "squared"}', "application/json"),
        ("model.pmml", b"<PMML/>", "application/xml"),
        ("model.bin", b'{"learner": {}, "version": [3]}', "application/json"),
        ("model.bin", json.dumps({"error": "x" * START_BYTES}).encode(), "text/plain"),
    ],
)
@pytest.mark.parametrize("made", [dynamic, static])
def test_files_stay_files(name: str, body: bytes, label: str, made: Callable[..., Answer]) -> None:
    with serving(made(body, Content_Type=label)) as server:
        assert fetch(f"{server.url}/{name}") == body


def test_a_file_that_is_labelled_well_is_asked_for_twice_only() -> None:
    with serving(static(DATA, Content_Type="application/octet-stream")) as server:
        assert fetch(f"{server.url}/model.bin") == DATA
    assert len(server.seen) == 2


def test_a_long_comment_without_an_end_takes_no_time() -> None:
    for start in (b"<!--" * 1024, b"<?xml" * 800, b"\n" * START_BYTES, b"<!-- -->" * 512):
        assert instead_of_file("m.bin", {}, start) == ""


@pytest.mark.parametrize("label", ["x-gzip", "gzip", "GZIP", "br", "identity, gzip", "zstd"])
@pytest.mark.parametrize("name", ["model.tar.gz", "model.bin"])
def test_a_label_of_what_comes_in_ranges_is_a_mere_label(name: str, label: str) -> None:
    with serving(static(PACKED, Content_Encoding=label)) as server:
        assert fetch(f"{server.url}/{name}") == PACKED
    assert {headers["Accept-Encoding"] for _, _, headers in server.seen} == {"identity"}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("model.tar.gz", "x-gzip"),
        ("model.TGZ", "gzip"),
        ("vocab.json.gz", "gzip"),
        ("model.tar.zst", "zstd"),
        # No codings at all.
        ("model.bin", "aws-chunked"),
        ("model.bin", "utf-8"),
        ("model.bin", "none"),
    ],
)
def test_a_label_that_the_name_has_too_is_a_mere_label(name: str, label: str) -> None:
    with serving(dynamic(PACKED, Content_Encoding=label)) as server:
        assert fetch(f"{server.url}/{name}") == PACKED


def chunked(handler: Handler, body: bytes, headers: dict[str, str], status: int = 200) -> None:
    handler.begin(status, {"Transfer-Encoding": "chunked", **headers})
    handler.wfile.write(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")


def packs_all(handler: Handler, _: str) -> None:
    """Whole answers only, as nginx and Apache do."""
    chunked(handler, PACKED, {"Content-Encoding": "gzip", "ETag": 'W/"1"'})


def packs_parts(handler: Handler, _: str) -> None:
    """Each range for itself, with the range of what is unpacked."""
    span = span_of(handler, len(DATA))
    assert span is not None
    part = gzip.compress(DATA[span.start : span.end])
    headers = {"Content-Encoding": "gzip", "Content-Range": span.content_range, "ETag": '"1"'}
    if handler.path.startswith("/chunked"):
        return chunked(handler, part, headers, 206)
    return handler.reply(206, part, headers)


def packs_the_second(handler: Handler, _: str) -> None:
    """What has begun without a coding goes on with one."""
    if len(handler.server.seen) > 1:  # type: ignore[attr-defined]
        return packs_parts(handler, _)
    return static(DATA)(handler, _)


@pytest.mark.parametrize("answer", [packs_all, packs_parts, packs_the_second])
@pytest.mark.parametrize("path", ["/config.json", "/chunked/model.bin"])
def test_what_is_packed_on_the_way_is_refused(answer: Answer, path: str) -> None:
    error = failure_of(answer, path)
    assert error.kind is FailureKind.UNSUPPORTED
    assert "gzip-compressed although" in error.message


def test_a_label_whose_ranges_end_is_read_no_further() -> None:
    """A label at first, and then a server that packs what it sends whole."""

    def answer(handler: Handler, path: str) -> None:
        if len(handler.server.seen) == 1:  # type: ignore[attr-defined]
            return static(DATA, Content_Encoding="gzip")(handler, path)
        return handler.reply(200, PACKED, {"Content-Encoding": "gzip", "ETag": etag(DATA)})

    assert "gzip-compressed although" in failure_of(answer, "/m.bin").message


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/download?file=model.tar.gz", "model.tar.gz"),
        ("/download?file=a%2Fb/M%20o.ZIP&token=x", "M o.ZIP"),
        ("/get.php?x=1&f=m.txz&y=2", "m.txz"),
        ("/1234?model.tar", "model.tar"),
        ("/v1.0?file=", "v1.0"),
        # The path tells what it is.
        ("/model.safetensors?from=m.tar.gz", "model.safetensors"),
        ("/model.onnx?from=m.tar.gz", "model.onnx"),
        ("/model.bin?from=m.zip", "model.bin"),
        ("/model.zip?from=m.tar", "model.zip"),
        # No archive.
        ("/download?file=model.bin", "download"),
        ("/download?file=m.tar.gz.sha256", "download"),
        ("/download?file=a%0Ab.zip", "download"),
        ("/download", "download"),
    ],
)
def test_a_query_may_name_an_archive(path: str, name: str) -> None:
    assert file_name(f"https://files.example.com{path}") == name


def test_a_name_of_an_answer_says_nothing() -> None:
    """As in KServe: what an address leads to must not change with a header."""
    named = {"Content_Disposition": 'attachment; filename="model.tar.gz"'}
    with serving(static(PACKED, **named)) as server:
        (file,) = (
            HttpSource(Transports(max_connections=1))
            .resolve(f"{server.url}/1234", own_credentials(), None)
            .files
        )
    assert file.path == "1234"
