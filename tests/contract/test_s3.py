from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.sources import s3_checksums
from agent.structs.failures import FailureKind
from agent.structs.remote import ChecksumAlgorithm
from tests.contract.servers_s3 import ACCESS, BUCKET, REGION, SECRET, Gateway, s3_storage
from tests.contract.suite import (
    CONTENT,
    SourceContract,
    Store,
    bytes_of,
    checksum_of,
    failure_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

FOREIGN = ("AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3")


class OwnGateway(Gateway):
    """The same with the agent's own credentials, in its environment."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.good = own_credentials()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_storage(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(s3_checksums, "CHECKSUM_BYTES", 1)
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


class TestNamed(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, endpoint: str) -> Store:
        return Gateway(endpoint)


class TestOwn(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, endpoint: str) -> Store:
        return OwnGateway(endpoint)


@pytest.fixture
def gateway(endpoint: str) -> Gateway:
    return Gateway(endpoint)


@pytest.mark.parametrize("name", ["CRC64NVME", "CRC32C", "SHA256"])
def test_a_checksum_of_the_upload_is_given(gateway: Gateway, name: str) -> None:
    gateway.upload(f"checksums/{name}", CONTENT, name)
    (file,) = gateway.resolve(f"s3://{BUCKET}/checksums/{name}").files

    assert file.checksum is not None
    assert file.checksum.algorithm is ChecksumAlgorithm[name]
    assert file.checksum.value == checksum_of(file.checksum.algorithm, CONTENT)


def test_who_may_not_list_reads_one_object(gateway: Gateway) -> None:
    gateway.upload("public/model.gguf", CONTENT)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": f"arn:aws:s3:::{BUCKET}/public/*",
            }
        ],
    }
    gateway.client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    try:
        model = gateway.source.resolve(f"s3://{BUCKET}/public/model.gguf", gateway.nobody, None)
        assert [file.path for file in model.files] == ["model.gguf"]
        assert bytes_of(model, model.files[0], 5, 9) == CONTENT[5:9]
        error = failure_of(gateway, f"s3://{BUCKET}/public", gateway.nobody)
        assert error.kind is FailureKind.DENIED
        assert "s3:ListBucket" in error.message
    finally:
        gateway.client.delete_bucket_policy(Bucket=BUCKET)


def test_small_objects_are_not_asked_for_checksums(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = gateway.put({"large": CONTENT, "small": CONTENT[:-1]})
    monkeypatch.setattr(s3_checksums, "CHECKSUM_BYTES", len(CONTENT))
    found = {file.path: file.checksum for file in gateway.resolve(uri).files}

    assert found["small"] is None
    assert found["large"]


def test_checksums_of_parts_are_no_checksums_of_a_file(gateway: Gateway) -> None:
    key = "parts/m.bin"
    parts = (b"a" * (5 << 20), b"b" * 100)
    made = gateway.client.create_multipart_upload(
        Bucket=BUCKET, Key=key, ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE"
    )
    named = {"Bucket": BUCKET, "Key": key, "UploadId": made["UploadId"]}
    done = []
    for number, part in enumerate(parts, 1):
        answer = gateway.client.upload_part(
            **named, PartNumber=number, Body=part, ChecksumAlgorithm="SHA256"
        )
        done.append(
            {
                "PartNumber": number,
                "ETag": answer["ETag"],
                "ChecksumSHA256": answer["ChecksumSHA256"],
            }
        )
    gateway.client.complete_multipart_upload(**named, MultipartUpload={"Parts": done})
    model = gateway.resolve(f"s3://{BUCKET}/{key}")

    assert model.files[0].checksum is None
    assert bytes_of(model, model.files[0]) == b"".join(parts)


def test_a_label_of_an_encoding_changes_nothing_of_the_bytes(gateway: Gateway) -> None:
    gateway.upload("labels/packed", CONTENT, ContentEncoding="gzip")
    model = gateway.resolve(f"s3://{BUCKET}/labels/packed")

    assert bytes_of(model, model.files[0]) == CONTENT


def test_a_missing_bucket_is_not_found(gateway: Gateway) -> None:
    error = failure_of(gateway, "s3://nothing-here/x", gateway.good)
    assert error.kind is FailureKind.NOT_FOUND
    assert "s3://nothing-here/x" in error.message


def test_a_bucket_is_a_model(gateway: Gateway) -> None:
    gateway.client.create_bucket(Bucket="whole")
    gateway.client.put_object(Bucket="whole", Key="a/b", Body=b"x")

    for uri in ("s3://whole", "s3://whole/"):
        assert [file.path for file in gateway.resolve(uri).files] == ["a/b"]


def test_the_agents_own_wrong_credentials_are_denied(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = gateway.put({"a": b"1"})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-s3cret")
    error = failure_of(gateway, uri, own_credentials())
    assert error.kind is FailureKind.DENIED
    assert "wrong-s3cret" not in error.message
    # Those of a cache are its own.
    model = gateway.source.resolve(uri, gateway.good, None)
    assert bytes_of(model, model.files[0]) == b"1"


def test_the_agent_without_credentials_is_denied(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = gateway.put({"a": b"1"})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert failure_of(gateway, uri, own_credentials()).kind is FailureKind.DENIED
