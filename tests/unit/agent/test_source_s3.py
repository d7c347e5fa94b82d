from __future__ import annotations

import base64
import os
import socket
import time
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore import UNSIGNED
from botocore.client import Config

from agent.commands.assemble import own_credentials
from agent.sources import s3_checksums
from agent.sources.s3 import S3Source
from agent.sources.s3_urls import SIGNED_SECONDS, BucketUrls, Signer
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.servers import Buckets, Handler, etag, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.structs.remote import RemoteModel

BIG = bytes(range(256)) * 12000  # about 3 MB
OBJECTS = {
    "model/": b"",
    "model/config.json": b"{}",
    "model/empty": b"",
    "model/sub/": b"",
    "model/sub/w&b.bin": BIG,
    "model-v2/other": b"no",
    "single.gz": b"zipped",
    "both": b"file",
    "both/w": b"folder",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    found = Buckets({"bucket": dict(OBJECTS)})
    with serving(found) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield found


def resolve(uri: str, credentials: Credentials | None = None) -> RemoteModel:
    return S3Source(Transports(max_connections=2)).resolve(
        uri, credentials or own_credentials(), None
    )


def fetch(uri: str, credentials: Credentials | None = None) -> dict[str, bytes]:
    model = resolve(uri, credentials)
    return {file.path: bytes_of(model, file) for file in model.files}


def bytes_of(model: RemoteModel, file: RemoteFile) -> bytes:
    if not file.size:
        return b""
    body = model.read(file, 0, file.size)
    try:
        return b"".join(iter(lambda: body.read(1 << 20), b""))
    finally:
        body.close()


def failure_of(uri: str, credentials: Credentials | None = None) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        fetch(uri, credentials)
    assert "s3cret" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("page", [1000, 1])
@pytest.mark.parametrize("uri", ["s3://bucket/model", "s3://bucket/model/"])
def test_folder_by_whole_segments(buckets: Buckets, uri: str, page: int) -> None:
    buckets.page = page
    assert fetch(uri) == {"config.json": b"{}", "empty": b"", "sub/w&b.bin": BIG}


@pytest.mark.parametrize(
    ("uri", "files"),
    [
        ("s3://bucket/single.gz", {"single.gz": b"zipped"}),
        ("s3://bucket/model/sub", {"w&b.bin": BIG}),
        ("s3://bucket/model/config.json", {"config.json": b"{}"}),
        ("s3://bucket/both", {"w": b"folder"}),
    ],
)
def test_one_object_or_what_is_below_it(
    buckets: Buckets, uri: str, files: dict[str, bytes]
) -> None:
    assert buckets.objects["bucket"]
    assert fetch(uri) == files


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        ("model/sub", b""),
        ("model/sub_$folder$", b""),
        ("model/nothing_$folder$", b""),
        ("model/sub/", b"made by a tool"),
    ],
)
def test_markers_of_folders_are_no_files(buckets: Buckets, marker: str, content: bytes) -> None:
    expected = fetch("s3://bucket/model")
    buckets.objects["bucket"][marker] = content
    assert fetch("s3://bucket/model") == expected


def test_what_has_content_is_no_marker(buckets: Buckets) -> None:
    buckets.objects["bucket"] |= {"model/sub": b"file", "model/x_$folder$": b"file"}
    assert {file.path for file in resolve("s3://bucket/model").files} > {"sub", "x_$folder$"}


def test_a_folder_of_markers_has_no_file(buckets: Buckets) -> None:
    buckets.objects["bucket"] = {"model/": b"", "model/a_$folder$": b""}
    assert failure_of("s3://bucket/model").kind is FailureKind.NOT_FOUND


@pytest.mark.parametrize("size", [6, s3_checksums.CHECKSUM_BYTES])
def test_who_may_not_list_reads_one_object(buckets: Buckets, size: int) -> None:
    content = b"g" * size
    crc = base64.b64encode(zlib.crc32(content).to_bytes(8)).decode()
    buckets.objects["bucket"]["model/m.gguf"] = content
    buckets.checksums["model/m.gguf"] = ("CRC64NVME", crc)
    buckets.unlisted = True
    (file,) = resolve("s3://bucket/model/m.gguf").files

    assert (file.path, file.size, file.version) == ("m.gguf", size, etag(content))
    assert (file.checksum is not None) is (size >= s3_checksums.CHECKSUM_BYTES)
    assert fetch("s3://bucket/model/m.gguf") == {"m.gguf": content}


@pytest.mark.parametrize("uri", ["s3://bucket/model", "s3://bucket/model/", "s3://bucket"])
def test_what_may_not_be_listed_names_the_right(buckets: Buckets, uri: str) -> None:
    buckets.unlisted = True
    error = failure_of(uri)

    assert error.kind is FailureKind.DENIED
    assert uri in error.message
    assert "s3:ListBucket on the bucket bucket" in error.message


def test_wrong_keys_are_not_told_as_a_right_that_lacks(buckets: Buckets) -> None:
    buckets.refuse = (403, "InvalidAccessKeyId")
    assert "ListBucket" not in failure_of("s3://bucket/single.gz").message


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/"])
def test_whole_bucket(buckets: Buckets, uri: str) -> None:
    buckets.objects["bucket"].pop("both")
    files = fetch(uri)
    assert files.keys() == {key for key in buckets.objects["bucket"] if not key.endswith("/")}


def test_listing_has_sizes_and_versions(buckets: Buckets) -> None:
    model = resolve("s3://bucket/single.gz")
    assert model.files == (RemoteFile("single.gz", "single.gz", 6, etag(b"zipped")),)
    assert (model.origin, model.version) == (os.environ["AWS_ENDPOINT_URL"], None)
    assert buckets.objects["bucket"]


def test_keys_that_look_like_parts_of_a_uri(buckets: Buckets) -> None:
    names = ["m/a?versionId=1", "m/u:p@h", "m/a#b", "m/100%25", "m/ü"]
    buckets.objects["bucket"] = {name: name.encode() for name in names}
    assert fetch("s3://bucket/m") == {name[2:]: name.encode() for name in names}


@pytest.mark.parametrize(
    "uri", ["s3://bucket/mod", "s3://bucket/model/config.json/", "s3://other/m"]
)
def test_nothing_there_is_not_found(buckets: Buckets, uri: str) -> None:
    del buckets
    error = failure_of(uri)
    assert error.kind is FailureKind.NOT_FOUND
    assert uri in error.message


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", FailureKind.DENIED),
        (400, "ExpiredToken", FailureKind.DENIED),
        (403, "SignatureDoesNotMatch", FailureKind.DENIED),
        (503, "SlowDown", FailureKind.THROTTLED),
        (500, "InternalError", FailureKind.UNREACHABLE),
    ],
)
def test_refusals(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: FailureKind
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    buckets.refuse = (status, code)
    error = failure_of("s3://bucket/model")
    assert error.kind is kind
    assert code in error.message


def test_object_that_changed_after_the_listing_is_told(buckets: Buckets) -> None:
    def change(_: Handler, key: str) -> bool:
        buckets.objects["bucket"][key] = b"newer!"
        return True

    buckets.before_get = change
    error = failure_of("s3://bucket/single.gz")
    assert error.kind is FailureKind.CHANGED
    assert "changed while it was downloaded" in error.message


def test_an_object_is_read_by_a_signed_url_and_a_range(buckets: Buckets) -> None:
    asked: list[tuple[str, str, str, bool]] = []

    def look(handler: Handler, _: str) -> bool:
        headers = handler.headers
        signed = "X-Amz-Signature=" in handler.path and "Authorization" not in headers
        asked.append((handler.command, headers["Range"], headers["If-Match"], signed))
        return True

    buckets.before_get = look
    model = resolve("s3://bucket/model/sub")
    body = model.read(model.files[0], 1000, 2000)
    assert body.read(5000) == BIG[1000:2000]
    body.close()
    assert asked == [("GET", "bytes=1000-1999", etag(BIG), True)]


def test_broken_connection_is_unreachable_and_gives_what_came(buckets: Buckets) -> None:
    def cut(handler: Handler, key: str) -> bool:
        data = buckets.objects["bucket"][key]
        content_range = f"bytes 0-{len(data) - 1}/{len(data)}"
        handler.begin(
            206,
            {
                "Content-Length": str(len(data)),
                "Content-Range": content_range,
                "ETag": etag(data),
            },
        )
        handler.wfile.write(data[: 1 << 20])
        handler.hang_up()
        return False

    buckets.before_get = cut
    model = resolve("s3://bucket/model/sub")
    body = model.read(model.files[0], 0, len(BIG))
    pieces: list[bytes] = []
    with pytest.raises(DownloadError) as caught:
        pieces.extend(iter(lambda: body.read(100_000), b""))
    body.close()
    assert caught.value.kind is FailureKind.UNREACHABLE
    assert b"".join(pieces) == BIG[: 1 << 20]
    assert "X-Amz" not in caught.value.message


def test_connection_that_always_breaks_is_unreachable(buckets: Buckets) -> None:
    def cut(handler: Handler, _: str) -> bool:
        handler.hang_up()
        return False

    buckets.before_get = cut
    error = failure_of("s3://bucket/single.gz")
    assert error.kind is FailureKind.UNREACHABLE
    assert "s3://bucket/single.gz cannot be reached" in error.message


def test_an_object_that_is_gone_after_the_listing_is_not_found(buckets: Buckets) -> None:
    model = resolve("s3://bucket/single.gz")
    del buckets.objects["bucket"]["single.gz"]
    with pytest.raises(DownloadError) as caught:
        model.read(model.files[0], 0, 6)
    assert caught.value.kind is FailureKind.NOT_FOUND


def test_unreachable_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    error = failure_of("s3://bucket/model")
    assert error.kind is FailureKind.UNREACHABLE
    assert "connection refused" in error.message


@pytest.mark.parametrize("endpoint", ["nonsense", "http://127.0.0.1:1"])
def test_settings_that_are_no_settings(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    error = failure_of("s3://not a bucket/model")
    assert error.kind is FailureKind.INTERNAL


def test_without_credentials_requests_are_anonymous(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    signed: list[bool] = []

    def look(handler: Handler, _: str) -> bool:
        signed.append("Authorization" in handler.headers)
        return True

    buckets.before_get = look
    assert fetch("s3://bucket/single.gz") == {"single.gz": b"zipped"}
    assert signed == [False]


def test_half_of_the_credentials_is_denied(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    del buckets
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = failure_of("s3://bucket/model")
    assert error.kind is FailureKind.DENIED
    assert "AWS_SECRET_ACCESS_KEY" in error.message


NAMED = {"AWS_ACCESS_KEY_ID": "named", "AWS_SECRET_ACCESS_KEY": "s3cret-named"}


def keys_of(buckets: Buckets, credentials: Credentials | None) -> set[str]:
    """Whose keys sign the reads with these credentials; "" for those that are not signed."""
    found: set[str] = set()

    def look(handler: Handler, _: str) -> bool:
        query = parse_qs(urlsplit(handler.path).query)
        found.update(value.partition("/")[0] for value in query.get("X-Amz-Credential", [""]))
        return True

    buckets.before_get = look
    assert fetch("s3://bucket/single.gz", credentials) == {"single.gz": b"zipped"}
    return found


def test_named_credentials_are_used_and_the_agents_fill_no_gap(buckets: Buckets) -> None:
    endpoint = {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]}
    assert keys_of(buckets, None) == {"key"}
    assert keys_of(buckets, Credentials.of(NAMED | endpoint)) == {"named"}
    assert keys_of(buckets, Credentials.of(endpoint)) == {""}
    anonymous = Credentials.of(NAMED | endpoint | {"awsAnonymousCredential": "true"})
    assert keys_of(buckets, anonymous) == {""}


def test_the_agents_environment_may_ask_for_no_signature(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("awsAnonymousCredential", "True")
    assert keys_of(buckets, None) == {""}


def test_endpoint_as_kserve_writes_it(buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    host = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for name, value in {"S3_ENDPOINT": host, "S3_USE_HTTPS": "0"}.items():
        monkeypatch.setenv(name, value)
    assert keys_of(buckets, None) == {"key"}
    named = Credentials.of(NAMED | {"S3_ENDPOINT": host, "S3_USE_HTTPS": "0"})
    assert keys_of(buckets, named) == {"named"}


def test_named_credentials_without_an_endpoint_are_for_amazon(buckets: Buckets) -> None:
    del buckets
    source = S3Source(Transports(max_connections=2))
    for region, host in (("", "us-east-1"), ("eu-west-1", "eu-west-1")):
        settings = NAMED | ({"AWS_DEFAULT_REGION": region} if region else {})
        client = source._client(Credentials.of(settings))
        assert client.s3.meta.endpoint_url == f"https://s3.{host}.amazonaws.com"


def test_bucket_in_the_path_or_in_the_name_of_the_host(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]
    # A host whose subdomains are on loopback too.
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://localhost:{port}")
    monkeypatch.setenv("S3_USER_VIRTUAL_BUCKET", "1")
    real = socket.getaddrinfo

    def resolved(host: str, *args: Any, **kwargs: Any) -> Any:
        hosts.append(host)
        return real("127.0.0.1", *args, **kwargs)

    hosts: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    buckets.virtual = True
    assert fetch("s3://bucket/single.gz") == {"single.gz": b"zipped"}
    # What was looked up is connected to by its address.
    assert set(hosts) == {"bucket.localhost", "127.0.0.1"}
    monkeypatch.setenv("S3_USER_VIRTUAL_BUCKET", "0")
    buckets.virtual = False
    hosts.clear()
    assert fetch("s3://bucket/single.gz") == {"single.gz": b"zipped"}
    assert set(hosts) == {"localhost", "127.0.0.1"}


@pytest.mark.parametrize("listed", [True, False])
def test_checksums_of_large_objects_are_asked_for(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    monkeypatch.setattr(s3_checksums, "CHECKSUM_BYTES", 3)
    value = zlib.crc32(BIG).to_bytes(4, "big")
    if listed:
        given = ("CRC32C", base64.b64encode(value).decode())
        buckets.checksums = {"model/sub/w&b.bin": given, "model/config.json": given}
    found = {file.path: file.checksum for file in resolve("s3://bucket/model").files}
    expected = Checksum(ChecksumAlgorithm.CRC32C, value.hex()) if listed else None
    assert found == {"config.json": None, "empty": None, "sub/w&b.bin": expected}


def test_what_an_origin_asks_to_wait_is_kept(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    with serving(lambda handler, _: handler.reply(503, b"", {"Retry-After": "7"})) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        error = failure_of("s3://bucket/model")
    assert (error.kind, error.retry_after) == (FailureKind.THROTTLED, 7)
    assert buckets.objects


def test_a_store_that_redirects_everything_is_told(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(handler: Handler, _: str) -> None:
        handler.reply(307, headers={"Location": f"{target}{handler.path}"})

    target = os.environ["AWS_ENDPOINT_URL"]
    with serving(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        error = failure_of("s3://bucket/model")
    assert error.kind is FailureKind.UNSUPPORTED
    assert "s3://bucket/model redirects in circles" in error.message
    assert buckets.objects


KEYS = ("w.bin", "a b/c+d", "ü/~x", "%20", "x//y", "a&b=c?d#e", "q'(!)*")


@pytest.mark.parametrize(
    ("settings", "endpoint", "style"),
    [
        ({}, None, "auto"),
        ({}, "http://127.0.0.1:9000", "path"),
        ({"region_name": "eu-west-1"}, None, "virtual"),
        ({"aws_session_token": "a/b+c=="}, "https://s3.example.com/below", "path"),
        ({"aws_access_key_id": "A/K+ID="}, None, "path"),
    ],
)
def test_urls_are_those_of_botocore(
    settings: dict[str, str], endpoint: str | None, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"region_name": "us-east-1", "aws_access_key_id": "id", "aws_secret_access_key": "s/k"}
    session = boto3.session.Session(**(base | settings))
    config = Config(signature_version="s3v4", s3={"addressing_style": style})
    client = session.client("s3", endpoint_url=endpoint, config=config)
    credentials = session.get_credentials()
    urls = BucketUrls(client, "bucket", credentials)
    with monkeypatch.context() as patch:
        left = left_to_botocore(client, patch)
        assert all(map(urls.url, KEYS))
        assert left == []
    for key in KEYS:
        theirs = urlsplit(
            client.generate_presigned_url(
                "get_object", Params={"Bucket": "bucket", "Key": key}, ExpiresIn=SIGNED_SECONDS
            )
        )
        query = parse_qs(theirs.query)
        at = query["X-Amz-Date"][0]
        ours = urlsplit(Signer(urls.place, credentials.get_frozen_credentials(), at).url(key))
        assert ours[:3] == theirs[:3]
        # With another order, which the signature does not depend on.
        assert parse_qs(ours.query) == query


def test_each_url_has_the_time_and_the_credentials_of_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although those of a second have most of it in common."""
    session = boto3.session.Session("id", "secret", region_name="us-east-1")
    client = session.client("s3", config=Config(signature_version="s3v4"))
    credentials = session.get_credentials()
    urls = BucketUrls(client, "bucket", credentials)
    for second, name in ((1, "id"), (2, "id"), (2, "other"), (2, "id")):
        now = datetime.fromtimestamp(second, UTC).timetuple()
        monkeypatch.setattr(time, "gmtime", lambda now=now: now)
        credentials.access_key = name
        query = parse_qs(urlsplit(urls.url("key")).query)
        assert query["X-Amz-Credential"][0].startswith(f"{name}/")
        assert query["X-Amz-Date"][0].endswith(f"0{second}Z")


def test_what_botocore_signs_in_another_way_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    session = boto3.session.Session("id", "secret", region_name="us-east-1")
    # Its port is left out of what is signed, although it is written.
    client = session.client(
        "s3", endpoint_url="https://s3.example.com:443", config=Config(signature_version="s3v4")
    )
    urls = BucketUrls(client, "bucket", session.get_credentials())
    left = left_to_botocore(client, monkeypatch)
    assert parse_qs(urlsplit(urls.url("a b")).query)["X-Amz-Signature"]
    assert left == ["a b"]


def left_to_botocore(client: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that botocore signs from now on."""
    keys: list[str] = []
    sign = client.generate_presigned_url

    def note(*arguments: Any, **named: Any) -> Any:
        keys.append(named["Params"]["Key"])
        return sign(*arguments, **named)

    monkeypatch.setattr(client, "generate_presigned_url", note)
    return keys


def test_urls_of_nobody_are_not_signed() -> None:
    client = boto3.client("s3", region_name="us-east-1", config=Config(signature_version=UNSIGNED))
    urls = BucketUrls(client, "bucket", None)
    assert urls.url("a b/~c") == "https://bucket.s3.amazonaws.com/a%20b/~c"
