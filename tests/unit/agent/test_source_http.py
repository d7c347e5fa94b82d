from __future__ import annotations

import base64
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import requests

from agent.commands.assemble import own_credentials
from agent.credentials.attached_secrets import secret_settings
from agent.credentials.secret_api import Secret
from agent.sources import transport
from agent.sources.http import HttpSource
from agent.sources.transport import Authorities, Transport, Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import RangeIgnoredError, RemoteFile
from tests.unit.agent.certificates import make_authority
from tests.unit.agent.servers import Handler, WebFiles, etag, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.structs.remote import RemoteModel

DATA = bytes(range(256)) * 16384  # 4 MiB
SECRET = "X-Amz-Signature=s3cret"


def resolve(uri: str) -> RemoteModel:
    return HttpSource(Transports(max_connections=2)).resolve(uri, own_credentials(), None)


def pieces_of(
    model: RemoteModel, start: int = 0, end: int | None = None, size: int = 1 << 20
) -> list[bytes]:
    (file,) = model.files
    body = model.read(file, start, file.size if end is None else end)
    try:
        return list(iter(lambda: body.read(size), b""))
    finally:
        body.close()


def fetch(uri: str) -> bytes:
    return b"".join(pieces_of(resolve(uri)))


def failure_of(uri: str) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        fetch(uri)
    assert "s3cret" not in caught.value.message
    assert caught.value.__cause__ is None
    return caught.value


def test_file_is_named_by_the_last_segment_and_comes_as_it_is() -> None:
    with serving(WebFiles({"/deep/my model.gz": DATA})) as server:
        uri = f"{server.url}/deep/my%20model.gz?{SECRET}"
        model = resolve(uri)
        (file,) = model.files
        assert file == RemoteFile("my model.gz", uri, len(DATA), etag(DATA))
        assert (model.origin, model.version) == (server.url, None)
        pieces = pieces_of(model, size=1 << 16)
    assert b"".join(pieces) == DATA
    assert max(map(len, pieces)) <= 1 << 16
    asked = [(m, h["Range"], h.get("If-Match")) for m, _, h in server.seen]
    assert asked == [
        ("GET", "bytes=0-0", None),
        ("GET", f"bytes=0-{len(DATA) - 1}", etag(DATA)),
    ]
    assert {headers["Accept-Encoding"] for _, _, headers in server.seen} == {"identity"}


def test_a_range_has_exactly_its_bytes() -> None:
    with serving(WebFiles({"/m.bin": DATA})) as server:
        pieces = pieces_of(resolve(f"{server.url}/m.bin"), 1000, 300_000)
    assert b"".join(pieces) == DATA[1000:300_000]


def test_connections_are_kept() -> None:
    ports = set()
    files = WebFiles({"/m.bin": DATA})

    def answer(handler: Handler, path: str) -> None:
        ports.add(handler.client_address)
        files(handler, path)

    with serving(answer) as server:
        model = resolve(f"{server.url}/m.bin")
        for start in range(0, 1 << 20, 1 << 18):
            pieces_of(model, start, start + (1 << 18))
    # The one that asked for the first byte, and read no body, may be closed.
    assert len(ports) <= 2


def bare(handler: Handler, _: str) -> None:
    handler.reply(416)


def ranged(handler: Handler, _: str) -> None:
    if "Range" in handler.headers:
        handler.reply(416)
    else:
        handler.reply(200)


def plain(handler: Handler, _: str) -> None:
    handler.reply(200)


@pytest.mark.parametrize("answer", [WebFiles({"/empty": b""}), ranged, plain])
def test_empty_file_arrives(answer: Callable[[Handler, str], None]) -> None:
    with serving(answer) as server:
        model = resolve(f"{server.url}/empty")
        assert model.files[0].size == 0
        assert pieces_of(model) == []


def test_refused_range_of_no_file_is_no_empty_file() -> None:
    with serving(bare) as server:
        assert failure_of(f"{server.url}/m.bin").kind is FailureKind.INTERNAL


@pytest.mark.parametrize("status", [403, 405, 501])
def test_server_that_does_not_answer_head_is_not_asked_with_it(status: int) -> None:
    files = WebFiles({"/m.bin": DATA})

    def answer(handler: Handler, path: str) -> None:
        if handler.command == "HEAD":
            handler.reply(status)
        else:
            files(handler, path)

    with serving(answer) as server:
        assert fetch(f"{server.url}/m.bin") == DATA
    assert {method for method, _, _ in server.seen} == {"GET"}


def test_length_may_be_unknown() -> None:
    def answer(handler: Handler, _: str) -> None:
        handler.begin(200, {"Transfer-Encoding": "chunked"})
        handler.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")

    with serving(answer) as server:
        model = resolve(f"{server.url}/m.bin")
        assert (model.files[0].size, model.files[0].ranges) == (None, False)
        assert fetch(f"{server.url}/m.bin") == b"hello"
    assert "Range" not in server.seen[-1][2]


def test_server_without_ranges_is_asked_for_the_whole() -> None:
    with serving(lambda handler, _: handler.reply(200, DATA, {"ETag": '"1"'})) as server:
        model = resolve(f"{server.url}/m.bin")
        assert (model.files[0].size, model.files[0].ranges) == (len(DATA), False)
        assert b"".join(pieces_of(model)) == DATA
    assert "Range" not in server.seen[-1][2]


@pytest.mark.parametrize(
    ("headers", "version", "ranges"),
    [
        ({"ETag": '"1"', "Last-Modified": "Sat, 01 Aug 2026 00:00:00 GMT"}, '"1"', True),
        # Files are as good as each other with it, and need not be the same.
        ({"ETag": 'W/"1"'}, 'W/"1"', False),
        (
            {"Last-Modified": "Sat, 01 Aug 2026 00:00:00 GMT"},
            "Sat, 01 Aug 2026 00:00:00 GMT",
            True,
        ),
        ({}, None, False),
    ],
)
def test_what_cannot_be_told_from_another_version_is_read_in_one_stream(
    headers: dict[str, str], version: str | None, ranges: bool
) -> None:
    def answer(handler: Handler, _: str) -> None:
        handler.reply(206, b"x", {"Content-Range": "bytes 0-0/1000", **headers})

    with serving(answer) as server:
        (file,) = resolve(f"{server.url}/m.bin").files
    assert (file.size, file.version, file.ranges) == (1000, version, ranges)


@pytest.mark.parametrize(
    "versions",
    [
        ('W/"1"', 'W/"2"'),
        ("Sat, 01 Aug 2026 00:00:00 GMT", "Sat, 01 Aug 2026 00:00:01 GMT"),
    ],
)
def test_versions_that_no_condition_can_name_are_compared(versions: tuple[str, str]) -> None:
    count = iter(versions)

    def answer(handler: Handler, _: str) -> None:
        version = next(count)
        header = "ETag" if version.startswith("W") else "Last-Modified"
        handler.reply(206, b"x", {"Content-Range": "bytes 0-0/1", header: version})

    with serving(answer) as server:
        assert failure_of(f"{server.url}/m.bin").kind is FailureKind.CHANGED
    assert not any("If-Match" in headers for _, _, headers in server.seen)


def test_redirect_is_followed() -> None:
    with serving(WebFiles({"/m.bin": DATA})) as origin:

        def answer(handler: Handler, _: str) -> None:
            handler.reply(302, headers={"Location": f"{origin.url}/m.bin"})

        with serving(answer) as server:
            assert fetch(f"{server.url}/named.bin") == DATA
            assert resolve(f"{server.url}/named.bin").origin == server.url


def truncate(handler: Handler, _: str) -> None:
    handler.begin(200, {"Content-Length": "1000"})
    handler.wfile.write(b"x" * 400)
    handler.hang_up()


def break_chunks(handler: Handler, _: str) -> None:
    handler.begin(200, {"Transfer-Encoding": "chunked"})
    handler.wfile.write(b"5\r\nhello\r\n5\r\nwo")
    handler.hang_up()


def compress(handler: Handler, _: str) -> None:
    handler.reply(200, b"zipped", {"Content-Encoding": "gzip"})


def circle(handler: Handler, path: str) -> None:
    handler.reply(302, headers={"Location": path})


def second(handler: Handler) -> bool:
    return len(handler.server.seen) > 1  # type: ignore[attr-defined]


def changed(handler: Handler, _: str) -> None:
    handler.reply(200, b"same size", {"ETag": '"2"' if second(handler) else '"1"'})


def grown(handler: Handler, _: str) -> None:
    handler.reply(200, b"longer" if second(handler) else b"short")


def hang_up(handler: Handler, _: str) -> None:
    handler.hang_up()


def more(handler: Handler, _: str) -> None:
    """Chunks, that say nothing of the length, with more than was announced before."""
    if not second(handler):
        return handler.reply(206, b"h", {"Content-Range": "bytes 0-0/5", "ETag": '"1"'})
    head = {"Content-Range": "bytes 0-4/5", "Transfer-Encoding": "chunked", "ETag": '"1"'}
    handler.begin(206, head)
    handler.wfile.write(b"6\r\nhello!\r\n0\r\n\r\n")
    return None


def cut_without_a_listed_size(handler: Handler, _: str) -> None:
    if "Range" in handler.headers:
        # An answer that is no range, of a size that nobody knows before its end.
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", '"v1"')
        handler.end_headers()
        handler.wfile.write(b"5\r\nmodel\r\n0\r\n\r\n")
        return
    handler.send_response(200)
    handler.send_header("Content-Length", "9")
    handler.send_header("ETag", '"v1"')
    handler.end_headers()
    handler.wfile.write(b"mod")
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (truncate, FailureKind.UNREACHABLE, "the connection broke"),
        (break_chunks, FailureKind.UNREACHABLE, "the connection broke"),
        (changed, FailureKind.CHANGED, "changed while it was downloaded"),
        (grown, FailureKind.CHANGED, "changed while it was downloaded"),
        (more, FailureKind.CORRUPT, "was announced with 5 bytes and has more"),
        (compress, FailureKind.UNSUPPORTED, "gzip-compressed"),
        (circle, FailureKind.UNSUPPORTED, "redirects in circles"),
        (hang_up, FailureKind.UNREACHABLE, "cannot be reached"),
        (cut_without_a_listed_size, FailureKind.UNREACHABLE, "the connection broke"),
    ],
)
def test_lies(answer: Callable[[Handler, str], None], kind: FailureKind, text: str) -> None:
    with serving(answer) as server:
        error = failure_of(f"{server.url}/m.bin?{SECRET}")
    assert error.kind is kind
    assert text in error.message
    assert f"{server.url}/m.bin?…" in error.message


def announce(handler: Handler, content_range: str, length: int, status: int = 206) -> None:
    handler.reply(status, b"x" * length, {"Content-Range": content_range} if status == 206 else {})


@pytest.mark.parametrize(
    ("content_range", "status", "kind"),
    [
        ("bytes 0-99/100", 206, None),
        ("bytes 0-99/200", 206, FailureKind.CORRUPT),
        ("bytes 100-199/200", 206, FailureKind.CORRUPT),
        ("", 206, FailureKind.CORRUPT),
        ("", 202, FailureKind.UNREACHABLE),
        ("", 203, FailureKind.UNREACHABLE),
    ],
)
def test_answers_that_are_not_the_whole_file(
    content_range: str, status: int, kind: FailureKind | None
) -> None:
    with serving(lambda handler, _: announce(handler, content_range, 100, status)) as server:
        source = HttpSource(Transports(max_connections=2))
        with serving(WebFiles({"/m.bin": b"x" * 100})) as files:
            model = source.resolve(f"{files.url}/m.bin", own_credentials(), None)
        file = RemoteFile("m.bin", f"{server.url}/m.bin", 100, ranges=False)
        if kind is None:
            with closing(model.read(file, 0, 100)) as body:
                assert body.read(200) == b"x" * 100
            return
        with pytest.raises(DownloadError) as caught:
            model.read(file, 0, 100)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("content_range", "length", "status", "kind"),
    [
        ("bytes 0-9/100", 10, 206, RangeIgnoredError),
        ("bytes 10-15/100", 6, 206, RangeIgnoredError),
        ("bytes */100", 10, 206, RangeIgnoredError),
        ("", 10, 206, RangeIgnoredError),
        ("", 100, 200, RangeIgnoredError),
        ("bytes 10-19/101", 10, 206, FailureKind.CHANGED),
        ("bytes 10-19/100", 11, 206, FailureKind.CORRUPT),
        ("", 0, 416, FailureKind.CHANGED),
    ],
)
def test_answers_that_are_not_the_range(
    content_range: str, length: int, status: int, kind: type[DownloadError] | FailureKind
) -> None:
    with serving(lambda handler, _: announce(handler, content_range, length, status)) as server:
        source = HttpSource(Transports(max_connections=2))
        with serving(WebFiles({"/m.bin": b"x" * 100})) as files:
            model = source.resolve(f"{files.url}/m.bin", own_credentials(), None)
        file = RemoteFile("m.bin", f"{server.url}/m.bin", 100)
        with pytest.raises(DownloadError) as caught:
            model.read(file, 10, 20)
    assert kind in {type(caught.value), caught.value.kind}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (202, FailureKind.UNREACHABLE),
        (204, FailureKind.UNREACHABLE),
        (300, FailureKind.UNREACHABLE),
        (400, FailureKind.INTERNAL),
        (401, FailureKind.DENIED),
        (403, FailureKind.DENIED),
        (404, FailureKind.NOT_FOUND),
        (410, FailureKind.NOT_FOUND),
        (412, FailureKind.CHANGED),
        (429, FailureKind.THROTTLED),
        (500, FailureKind.UNREACHABLE),
        (503, FailureKind.THROTTLED),
        (599, FailureKind.UNREACHABLE),
    ],
)
def test_status_codes(status: int, kind: FailureKind) -> None:
    def answer(handler: Handler, _: str) -> None:
        handler.send_response_only(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with serving(answer) as server:
        error = failure_of(f"{server.url}/m.bin?{SECRET}")
    assert error.kind is kind
    assert f"answered {status}" in error.message


def test_refused_connection_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = failure_of(f"http://127.0.0.1:{free.getsockname()[1]}/m.bin?{SECRET}")
    assert error.kind is FailureKind.UNREACHABLE
    assert "connection refused" in error.message


def test_unknown_host_says_so() -> None:
    error = failure_of(f"http://no-such-host.invalid/m.bin?{SECRET}")
    assert error.kind is FailureKind.UNREACHABLE
    assert "its name cannot be resolved" in error.message


def test_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_TIMEOUT", (0.1, 0.1))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = failure_of(f"http://127.0.0.1:{silent.getsockname()[1]}/m.bin?{SECRET}")
    assert error.kind is FailureKind.UNREACHABLE
    assert "does not answer in time" in error.message


@pytest.mark.parametrize("path", ["", "/", "/dir/", "/..%2fetc", "/%2e%2e"])
def test_what_names_no_file_is_refused_before_anything_is_asked(path: str) -> None:
    error = failure_of(f"http://host.invalid{path}")
    assert error.kind is FailureKind.UNSUPPORTED
    assert "names no file" in error.message


@pytest.mark.parametrize("uri", ["http://[::1/m.bin", "http://ho st/m.bin", "http:///m.bin"])
def test_what_is_no_url_is_refused(uri: str) -> None:
    assert failure_of(uri).kind in {FailureKind.UNSUPPORTED, FailureKind.UNREACHABLE}


def test_cookies_of_one_download_do_not_reach_another() -> None:
    def answer(handler: Handler, _: str) -> None:
        handler.reply(200, b"data", {"Set-Cookie": "who=me"})

    with serving(answer) as server:
        fetch(f"{server.url}/m.bin")
    assert not any("Cookie" in headers for _, _, headers in server.seen)


BASIC = "Basic " + base64.b64encode(b"me:s3cret").decode()


@pytest.mark.parametrize("place", ["url", "netrc"])
def test_a_user_of_the_url_or_of_netrc_is_told_with_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with serving(WebFiles({"/m.bin": DATA})) as server:
        url = f"{server.url}/m.bin"
        if place == "url":
            url = url.replace("http://", "http://me:s3cret@")
        else:
            netrc = tmp_path / "netrc"
            netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
            monkeypatch.setenv("NETRC", str(netrc))
        assert fetch(url) == DATA
    assert [headers.get("Authorization") for _, _, headers in server.seen] == [BASIC, BASIC]


def test_the_environment_s_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def proxy(handler: Handler, _: str) -> None:
        asked.append(handler.path)
        handler.reply(200, DATA)

    with serving(proxy) as server:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert fetch("http://models.example/m.bin") == DATA
    assert asked == ["http://models.example/m.bin"] * 2


def test_a_url_is_quoted_where_it_must_be() -> None:
    with serving(WebFiles({"/a b/ü+.bin": DATA})) as server:
        assert fetch(f"{server.url}/a b/ü%2B.bin#part") == DATA


def test_an_aborted_body_gives_no_more_bytes() -> None:
    with serving(WebFiles({"/m.bin": DATA})) as server:
        model = resolve(f"{server.url}/m.bin")
        body = model.read(model.files[0], 0, len(DATA))
        assert body.read(1000) == DATA[:1000]
        body.abort()
        with pytest.raises(DownloadError) as caught:
            body.read(1000)
        body.abort()
        body.close()
    assert caught.value.kind is FailureKind.UNREACHABLE


# What https-host of a secret says, for a server at a port, and whether it is the headers' own.
@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("http://{host}:{port}", True),
        ("http://{host}:{port}/", True),
        # A host as KServe has it: by https, at its port.
        ("{host}", False),
        ("{host}:{port}", False),
        ("https://{host}:{port}", False),
        ("http://{host}", False),
    ],
)
def test_headers_of_a_secret_are_for_its_scheme_host_and_port(written: str, given: bool) -> None:
    files = WebFiles({"/m.bin": b"bytes"})
    with serving(files) as server:
        secret = Secret(
            "jobs",
            "s",
            {
                "https-host": written.format(host="127.0.0.1", port=server.server_port).encode(),
                "headers": b'{"Authorization": "s3cret"}',
            },
        )
        credentials = Credentials.of(secret_settings(secret))
        source = HttpSource(Transports(max_connections=1))
        if given:
            model = source.resolve(f"{server.url}/m.bin", credentials, None)
            model.read(model.files[0], 0, 5).close()
            assert [headers["Authorization"] for _, _, headers in server.seen] == ["s3cret"] * 2
            return
        with pytest.raises(DownloadError) as refused:
            source.resolve(f"{server.url}/m.bin", credentials, None)
        assert refused.value.kind is FailureKind.DENIED
        assert "correct https-host" in refused.value.message
        assert "s3cret" not in refused.value.message
        assert server.seen == []


def test_a_host_as_kserve_writes_it_is_served_by_https(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    with serving(WebFiles({"/m.bin": b"bytes"}), tls=authority.context) as server:
        named = {"https-host": f"127.0.0.1:{server.server_port}".encode(), "headers": b'{"X": "y"}'}
        credentials = Credentials.of(secret_settings(Secret("jobs", "s", named)))
        transports = Transports(max_connections=1)
        source = HttpSource(transports)
        source._transport = transports.trusting(Authorities(authority.pem))
        assert source.resolve(f"{server.url}/m.bin", credentials, None).files[0].size == 5
        assert server.seen[0][2]["X"] == "y"


def test_headers_for_another_host_are_no_hindrance() -> None:
    with serving(WebFiles({"/m.bin": b"bytes"})) as server:
        credentials = Credentials.of({"https://files.example.com:443-headers": '{"X": "y"}'})
        source = HttpSource(Transports(max_connections=1))
        assert source.resolve(f"{server.url}/m.bin", credentials, None).files[0].size == 5
        assert "X" not in server.seen[0][2]


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("https://files.example.com/a", "http://files.example.com/a"),
        ("http://files.example.com/a", "https://files.example.com/a"),
        ("https://files.example.com/a", "https://files.example.com:8443/a"),
        ("https://files.example.com/a", "https://cdn.files.example.com/a"),
        ("https://files.example.com/a", "https://files.example.com.evil/a"),
    ],
)
def test_a_redirect_takes_no_header_to_another_server(former: str, now: str) -> None:
    session = Transport(max_connections=1).session
    answer = requests.Response()
    answer.request = requests.Request("GET", former).prepare()
    following = requests.Request(
        "GET", now, headers={"Authorization": "s3cret", "X-Token": "s3cret", "Range": "bytes=0-0"}
    ).prepare()
    session.rebuild_auth(following, answer)
    assert "s3cret" not in str(following.headers)
    assert following.headers["Range"] == "bytes=0-0"
