from __future__ import annotations

import gzip
import ipaddress
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import requests

from agent.commands.assemble import own_credentials
from agent.sources import google_token, gs
from agent.sources.addresses import Rules
from agent.sources.gs import GoogleStorageSource
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.contract.servers_gs import (
    BUCKET,
    Bucket,
    GatedBucket,
    TokenGate,
    google_storage,
    key_file,
)
from tests.contract.suite import CONTENT, SourceContract, Store, bytes_of, failure_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with google_storage(tmp_path_factory.mktemp("gcs")) as url:
        yield url


@pytest.fixture
def gate(server: str) -> Iterator[TokenGate]:
    made = TokenGate(server)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def bucket(server: str, gate: TokenGate) -> GatedBucket:
    return GatedBucket(server, gate)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "GCE_METADATA_HOST",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "STORAGE_EMULATOR_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setattr(google_token, "_GCE_PRODUCT", tmp_path / "none")


class TestPublic(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, server: str) -> Store:
        return Bucket(server)


class TestPrivate(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, server: str) -> Iterator[Store]:
        gate = TokenGate(server)
        try:
            yield GatedBucket(server, gate)
        finally:
            gate.close()


def test_a_listing_has_many_pages(bucket: GatedBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gs, "PAGE", 2)
    model = bucket.resolve(bucket.put({f"{i}": b"x" for i in range(7)}))

    assert [file.path for file in model.files] == [f"{i}" for i in range(7)]


def test_a_whole_bucket_is_a_model(bucket: GatedBucket, server: str) -> None:
    created = requests.post(f"{server}/storage/v1/b", json={"name": "whole"}, timeout=20)
    created.raise_for_status()
    upload = f"{server}/upload/storage/v1/b/whole/o?uploadType=media&name=a/b"
    requests.post(upload, data=b"x", timeout=20).raise_for_status()

    for uri in ("gs://whole", "gs://whole/"):
        assert [file.path for file in bucket.resolve(uri).files] == ["a/b"]


def test_a_missing_bucket_is_not_found(bucket: GatedBucket) -> None:
    assert failure_of(bucket, "gs://nothing/x", bucket.good).kind is FailureKind.NOT_FOUND
    assert failure_of(bucket, "gs://", bucket.good).kind is FailureKind.UNSUPPORTED


def test_a_token_serves_many_requests(bucket: GatedBucket, gate: TokenGate) -> None:
    uri = bucket.put({"a": b"1", "b": b"2"})
    for _ in range(2):
        model = bucket.resolve(uri)
        assert [bytes_of(model, file) for file in model.files] == [b"1", b"2"]

    assert gate.sign_ins == 1


def test_a_token_is_replaced_before_it_expires(bucket: GatedBucket, gate: TokenGate) -> None:
    gate.lifetime = 60
    model = bucket.resolve(bucket.put({"a": b"1"}))
    assert bytes_of(model, model.files[0]) == b"1"

    assert gate.sign_ins == 2


def test_a_refused_token_is_replaced(bucket: GatedBucket, gate: TokenGate) -> None:
    uri = bucket.put({"a": b"1"})
    model = bucket.resolve(uri)
    gate.tokens.clear()
    with pytest.raises(DownloadError) as caught:
        bytes_of(model, model.files[0])

    assert caught.value.kind is FailureKind.DENIED
    assert bytes_of(model, model.files[0]) == b"1"


def test_who_may_not_list_reads_one_object(bucket: GatedBucket, gate: TokenGate) -> None:
    uri = bucket.put({"model.gguf": CONTENT})
    gate.listing_allowed = False
    model = bucket.resolve(f"{uri}/model.gguf")

    assert [file.path for file in model.files] == ["model.gguf"]
    assert bytes_of(model, model.files[0], 5, 9) == CONTENT[5:9]
    error = failure_of(bucket, uri, bucket.good)
    assert error.kind is FailureKind.DENIED
    assert "storage.objects.list" in error.message


def test_markers_of_folders_are_no_files(server: str) -> None:
    bucket = Bucket(server)
    uri = bucket.put({"sub/a": b"1", "empty": b""})
    for marker in ("sub", "sub/", "other_$folder$"):
        bucket.upload(f"{uri.removeprefix(f'gs://{BUCKET}/')}/{marker}", b"")

    assert {file.path for file in bucket.resolve(uri).files} == {"sub/a", "empty"}


def test_a_limit_is_no_denial(bucket: GatedBucket, gate: TokenGate) -> None:
    uri = bucket.put({"a": b"1"})
    gate.throttled = True

    assert failure_of(bucket, uri, bucket.good).kind is FailureKind.THROTTLED


def test_what_is_stored_packed_is_read_in_one_stream(server: str) -> None:
    bucket = Bucket(server)
    uri = bucket.put({"plain": b"x"})
    name = f"{uri.removeprefix(f'gs://{BUCKET}/')}/packed.json"
    bucket.upload(name, gzip.compress(CONTENT), contentEncoding="gzip")
    model = bucket.resolve(uri)
    file = next(one for one in model.files if one.path == "packed.json")

    assert (file.size, file.ranges, file.checksum) == (None, False, None)
    assert bytes_of(model, file) == CONTENT


@pytest.mark.parametrize(
    ("label", "cached"),
    [
        ("br", ""),
        ("zstd", ""),
        ("x-gzip", ""),
        ("utf-8", ""),
        ("aws-chunked", ""),
        ("gzip", "no-transform"),
        ("gzip", "public, No-Transform"),
    ],
)
def test_a_label_of_a_coding_changes_nothing_of_the_bytes(
    server: str, label: str, cached: str
) -> None:
    bucket, packed = Bucket(server), gzip.compress(CONTENT)
    uri = bucket.put({"plain": b"x"})
    name = f"{uri.removeprefix(f'gs://{BUCKET}/')}/model.tar.gz"
    bucket.upload(name, packed, contentEncoding=label)
    if cached:
        at = f"{server}/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}"
        requests.patch(at, json={"cacheControl": cached}, timeout=20).raise_for_status()
    model = bucket.resolve(uri)
    file = next(one for one in model.files if one.path == "model.tar.gz")

    assert (file.size, file.ranges) == (len(packed), True)
    assert file.checksum is not None
    assert bytes_of(model, file) == packed
    assert bytes_of(model, file, 7, 40) == packed[7:40]


def test_a_key_cannot_make_the_agent_ask_the_metadata_server(
    bucket: GatedBucket, gate: TokenGate
) -> None:
    loopback = ipaddress.ip_network("127.0.0.0/8")
    source = GoogleStorageSource(Transports(max_connections=4, rules=Rules(refused=(loopback,))))
    with pytest.raises(DownloadError) as caught:
        source.resolve("gs://models/x", bucket.good, None)

    assert caught.value.kind is FailureKind.DENIED
    assert gate.asked == []


def test_a_token_server_that_is_down_is_unreachable(bucket: GatedBucket) -> None:
    credentials = bucket.with_key(key_file("http://127.0.0.1:9/token"))

    assert failure_of(bucket, "gs://models/x", credentials).kind is FailureKind.UNREACHABLE


def test_the_agents_own_key_file(
    bucket: GatedBucket, gate: TokenGate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.put({"a": b"1"})
    key = tmp_path / "key.json"
    key.write_text(key_file(gate.token_uri))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gate.host)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    model = bucket.source.resolve(uri, own_credentials(), None)

    assert bytes_of(model, model.files[0]) == b"1"
    # Named credentials without a key do not borrow the agent's.
    assert failure_of(bucket, uri, bucket.nobody).kind is FailureKind.DENIED


def test_an_unreadable_key_file_of_the_agents(
    bucket: GatedBucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    error = failure_of(bucket, "gs://models/x", own_credentials())

    assert error.kind is FailureKind.DENIED
    assert "GOOGLE_APPLICATION_CREDENTIALS" in error.message


def test_off_google_nobody_waits_for_a_metadata_server(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(server)
    uri = bucket.put({"a": b"1"})
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    started = time.monotonic()
    model = bucket.source.resolve(uri, own_credentials(), None)

    assert bytes_of(model, model.files[0]) == b"1"
    assert time.monotonic() - started < 2


READ = """
import sys
from agent.commands.assemble import own_credentials
from agent.sources.gs import GoogleStorageSource
from agent.sources.transport import Transports

source = GoogleStorageSource(Transports(max_connections=1))
print(source.resolve(sys.argv[1], own_credentials(), None).files[0].path)
"""


def test_on_google_the_metadata_server_gives_the_token(
    bucket: GatedBucket, gate: TokenGate, tmp_path: Path
) -> None:
    uri = bucket.put({"a": b"1"})
    # google-auth reads the server's address when it is imported.
    environment = os.environ | {
        "CLOUDSDK_CONFIG": str(tmp_path),
        "GCE_METADATA_HOST": gate.host,
        "GCE_METADATA_IP": gate.host,
        "STORAGE_EMULATOR_HOST": gate.url,
    }
    found = subprocess.run(
        [sys.executable, "-c", READ, uri],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert found.stdout == "a\n", found.stderr


@pytest.mark.parametrize(
    ("setting", "endpoint"),
    [
        ("", "https://storage.googleapis.com"),
        ("host:4443", "http://host:4443"),
        ("https://host/", "https://host"),
    ],
)
def test_the_endpoint(setting: str, endpoint: str) -> None:
    assert gs.endpoint(Credentials.of({"STORAGE_EMULATOR_HOST": setting})) == endpoint
