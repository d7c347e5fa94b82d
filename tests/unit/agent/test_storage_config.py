from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from agent.credentials.secret_api import Secret
from agent.credentials.storage_config import stored_settings
from agent.structs.credentials import GCS_KEY_FILE
from agent.structs.failures import DownloadError, FailureKind

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
S3 = {"type": "s3", "access_key_id": "id", "secret_access_key": "s3cret"}
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s3cret"}
GS = {"type": "gs", "base64_service_account": base64.b64encode(b'{"s3cret": 1}').decode()}
HF = {"type": "hf", "token": "s3cret"}
AZURE = {"type": "azure", "AZ_CLIENT_ID": "c", "AZ_CLIENT_SECRET": "s3cret"}
HDFS = {"type": "hdfs", "HDFS_NAMENODE": "http://n", "HEADERS": '{"a": "s3cret"}'}


def stored(entry: object, **parameters: str) -> dict[str, str]:
    data = {"k": entry if isinstance(entry, bytes) else json.dumps(entry).encode()}
    return stored_settings(Secret("jobs", "storage-config", data), "k", parameters)


def refused(entry: object, **parameters: str) -> str:
    with pytest.raises(DownloadError) as caught:
        stored(entry, **parameters)
    assert caught.value.kind is FailureKind.DENIED
    assert "s3cret" not in caught.value.message
    return caught.value.message


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("entry", "settings"),
    [
        (S3, KEYS),
        (S3 | {"secret_access_key": "s3cret\n", "bucket": "b", "unknown": "x"}, KEYS),
        (S3 | {"endpoint_url": "http://m:9000"}, KEYS | {"AWS_ENDPOINT_URL": "http://m:9000"}),
        (S3 | {"endpoint_url": "m:9000"}, KEYS | {"AWS_ENDPOINT_URL": "https://m:9000"}),
        (S3 | {"endpoint_url": "", "region": None}, KEYS),
        (S3 | {"region": "eu-1"}, KEYS | {"AWS_DEFAULT_REGION": "eu-1"}),
        (S3 | {"verify_ssl": "0"}, KEYS | {"S3_VERIFY_SSL": "0"}),
        (S3 | {"verify_ssl": False}, KEYS | {"S3_VERIFY_SSL": "0"}),
        (S3 | {"verify_ssl": 1}, KEYS | {"S3_VERIFY_SSL": "1"}),
        ({"type": "s3", "anonymous": "True"}, {"awsAnonymousCredential": "true"}),
        (S3 | {"certificate": PEM + "\n"}, KEYS | {"AWS_CA_BUNDLE_PEM": PEM}),
        (S3 | {"ca_bundle": "/ca/a.crt"}, KEYS | {"AWS_CA_BUNDLE": "/ca/a.crt"}),
        (S3 | {"cabundle_configmap": "c"}, KEYS | {"AWS_CA_BUNDLE_CONFIGMAP": "c"}),
        (GS, {GCS_KEY_FILE: '{"s3cret": 1}'}),
        (GS | {"type": "gcs"}, {GCS_KEY_FILE: '{"s3cret": 1}'}),
        (HF, {"HF_TOKEN": "s3cret"}),
        (
            {"type": "hf", "HF_TOKEN": "s3cret", "endpoint": "https://h"},
            {"HF_TOKEN": "s3cret", "HF_ENDPOINT": "https://h"},
        ),
        (AZURE, {"AZ_CLIENT_ID": "c", "AZ_CLIENT_SECRET": "s3cret"}),
        (
            {"type": "azure", "AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t"},
            {"AZ_CLIENT_ID": "c", "AZ_TENANT_ID": "t"},
        ),
        (HDFS, {"HDFS_NAMENODE": "http://n", "HEADERS": '{"a": "s3cret"}'}),
        (
            HDFS | {"type": "webhdfs", "KERBEROS_KEYTAB": "/wA=", "TLS_CA": _b64(PEM)},
            {
                "HDFS_NAMENODE": "http://n",
                "HEADERS": '{"a": "s3cret"}',
                "KERBEROS_KEYTAB": "/wA=",
                "TLS_CA": PEM,
            },
        ),
    ],
)
def test_what_an_entry_gives(entry: dict[str, Any], settings: dict[str, str]) -> None:
    assert stored(entry) == settings
    assert stored(entry, bucket="b") == settings
    assert stored(entry, type=entry["type"]) == settings


@pytest.mark.parametrize(
    ("entry", "parameters", "settings"),
    [
        (
            S3 | {"endpoint_url": "http://a"},
            {"endpoint_url": "http://b"},
            KEYS | {"AWS_ENDPOINT_URL": "http://b"},
        ),
        # An empty one takes away what the entry has.
        (S3 | {"region": "a"}, {"region": ""}, KEYS),
        (S3, {"access_key_id": "other"}, KEYS | {"AWS_ACCESS_KEY_ID": "other"}),
        (S3, {"certificate": PEM}, KEYS | {"AWS_CA_BUNDLE_PEM": PEM}),
        (S3, {"unknown": "x"}, KEYS),
        ({"access_key_id": "id", "secret_access_key": "s3cret"}, {"type": "s3"}, KEYS),
        (
            {"type": "hdfs", "HDFS_NAMENODE": "http://n", "HDFS_ROOTPATH": "/a"},
            {"HDFS_ROOTPATH": "/b"},
            {"HDFS_NAMENODE": "http://n", "HDFS_ROOTPATH": "/b"},
        ),
    ],
)
def test_what_parameters_override(
    entry: dict[str, Any], parameters: dict[str, str], settings: dict[str, str]
) -> None:
    assert stored(entry, **parameters) == settings


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (HF, "endpoint"),
        (HF, "HF_ENDPOINT"),
        (HF, "token"),
        (HF, "anything"),
        (GS, "token_uri"),
        (GS, "base64_service_account"),
        (AZURE, "AZURE_SERVICE_URL"),
        (AZURE, "AZURE_AUTHORITY_HOST"),
        (AZURE, "AZ_TENANT_ID"),
        (HDFS, "HDFS_NAMENODE"),
        (HDFS, "TLS_SKIP_VERIFY"),
        (HDFS, "USER_PROXY"),
        (S3, "ca_bundle"),
    ],
)
def test_a_cache_cannot_have_a_token_sent_elsewhere(entry: dict[str, Any], name: str) -> None:
    text = refused(entry, **{name: "https://evil.example.com"})
    assert f"storage.parameters.{name} cannot be put over the entry 'k' of the secret" in text
    assert "evil" not in text


@pytest.mark.parametrize("asked", ["hf", "s3", "azure"])
def test_a_cache_cannot_have_an_entry_taken_for_another_type(asked: str) -> None:
    entry = HDFS if asked != "hdfs" else S3
    assert "storage.parameters.type of the cache is not the type" in refused(entry, type=asked)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (b"s3cret", "the entry 'k' of the secret jobs/storage-config is not JSON"),
        (b"\xff", "the entry 'k' of the secret jobs/storage-config is not text"),
        (["s3cret"], "the entry 'k' of the secret jobs/storage-config is no JSON object"),
        (S3 | {"region": {"s3cret": 1}}, "region of the entry 'k' of the secret"),
        ({"access_key_id": "s3cret"}, "has no type: its type must be one of s3, gs"),
        ({"type": "s3cret"}, "has a type that is not known"),
        ({"type": "s3", "secret_access_key": "s3cret"}, "there is no AWS_ACCESS_KEY_ID with it"),
        (S3 | {"endpoint_url": "ftp://s3cret"}, "endpoint_url of the entry 'k' of the secret"),
        (S3 | {"certificate": "s3cret"}, "certificate of the entry 'k' of the secret"),
        (GS | {"base64_service_account": "s3cret"}, "base64_service_account of the entry 'k'"),
        (
            GS | {"base64_service_account": _b64("s3cret")},
            "base64_service_account of the entry 'k' of the secret jobs/storage-config is no key",
        ),
        ({"type": "gs"}, "has none of base64_service_account: add what it has"),
        ({"type": "hf", "token": " "}, "has none of HF_TOKEN, token"),
        ({"type": "azure", "AZ_TENANT_ID": "t"}, "has none of AZURE_ACCESS_TOKEN, AZURE_CLIENT_ID"),
        (HDFS | {"KERBEROS_KEYTAB": "s3cret!"}, "KERBEROS_KEYTAB of the entry 'k' of the secret"),
    ],
)
def test_what_is_wrong_is_named_and_never_shown(entry: object, text: str) -> None:
    assert text in refused(entry)


def test_what_is_wrong_with_a_parameter_is_named() -> None:
    text = refused(S3, endpoint_url="ftp://s3cret")
    assert text.startswith("storage.parameters.endpoint_url is no URL of a server")


def test_a_key_that_is_not_there() -> None:
    with pytest.raises(DownloadError, match="jobs/storage-config has no key 'k': add it there"):
        stored_settings(Secret("jobs", "storage-config", {"other": b"{}"}), "k", {})
