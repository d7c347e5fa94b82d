from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.credentials.attached_secrets import attached_settings, secret_settings
from agent.credentials.secret_api import Secret, ServiceAccount
from agent.structs.credentials import GCS_KEY_FILE
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = {"AWS_ACCESS_KEY_ID": b"id", "AWS_SECRET_ACCESS_KEY": b"s3cret"}
SETTLED = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s3cret"}
PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def secret(data: Mapping[str, bytes], name: str = "s", **annotations: str) -> Secret:
    return Secret("jobs", name, data, _annotations(annotations))


def account(**annotations: str) -> ServiceAccount:
    return ServiceAccount("jobs", "reader", (), _annotations(annotations))


def _annotations(given: Mapping[str, str]) -> dict[str, str]:
    return {
        "serving.kserve.io/s3-" + name.replace("_", "-"): value for name, value in given.items()
    }


def refused(data: Mapping[str, bytes], **annotations: str) -> str:
    with pytest.raises(DownloadError) as caught:
        secret_settings(secret(data, **annotations))
    assert caught.value.kind is FailureKind.DENIED
    assert "s3cret" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ({}, {}),
        ({"token": b"of something else", "TLS_CERT": b"x", "HEADERS": b"x"}, {}),
        (KEYS, SETTLED),
        ({"awsAccessKeyID": b"id", "awsSecretAccessKey": b"s3cret"}, SETTLED),
        # As `echo | base64` makes them, and editors.
        ({"AWS_ACCESS_KEY_ID": b"id\n", "AWS_SECRET_ACCESS_KEY": b"s3cret\r\n"}, SETTLED),
        (KEYS | {"AWS_SESSION_TOKEN": b"t"}, SETTLED | {"AWS_SESSION_TOKEN": "t"}),
        ({"AWS_REGION": b"eu-1"}, {"AWS_DEFAULT_REGION": "eu-1"}),
        ({"AWS_REGION": b"a", "AWS_DEFAULT_REGION": b"b"}, {"AWS_DEFAULT_REGION": "b"}),
        ({"S3_ENDPOINT": b"minio:9000"}, {"AWS_ENDPOINT_URL": "https://minio:9000"}),
        (
            {"S3_ENDPOINT": b"minio:9000", "S3_USE_HTTPS": b"0"},
            {"AWS_ENDPOINT_URL": "http://minio:9000"},
        ),
        ({"S3_USE_HTTPS": b"0"}, {}),
        # The URL's own scheme counts.
        (
            {"S3_ENDPOINT": b"https://minio", "S3_USE_HTTPS": b"0"},
            {"AWS_ENDPOINT_URL": "https://minio"},
        ),
        ({"AWS_ENDPOINT_URL": b"http://minio\n"}, {"AWS_ENDPOINT_URL": "http://minio"}),
        ({"S3_VERIFY_SSL": b"False"}, {"S3_VERIFY_SSL": "0"}),
        ({"S3_VERIFY_SSL": b"0"}, {"S3_VERIFY_SSL": "0"}),
        # Not understood is no reason to trust everybody.
        ({"S3_VERIFY_SSL": b"off"}, {"S3_VERIFY_SSL": "1"}),
        ({"S3_VERIFY_SSL": b""}, {}),
        ({"awsAnonymousCredential": b"True"}, {"awsAnonymousCredential": "true"}),
        ({"awsAnonymousCredential": b"no"}, {"awsAnonymousCredential": "false"}),
        ({"S3_USER_VIRTUAL_BUCKET": b"1"}, {"S3_USER_VIRTUAL_BUCKET": "true"}),
        ({"AWS_CA_BUNDLE": b"/ca/a.crt"}, {"AWS_CA_BUNDLE": "/ca/a.crt"}),
        ({"AWS_CA_BUNDLE": PEM}, {"AWS_CA_BUNDLE_PEM": PEM.decode().strip()}),
        ({"AWS_CA_BUNDLE_CONFIGMAP": b"c"}, {"AWS_CA_BUNDLE_CONFIGMAP": "c"}),
        ({GCS_KEY_FILE: b'{\n"type": "x"}\n'}, {GCS_KEY_FILE: '{\n"type": "x"}'}),
        ({"AZ_CLIENT_ID": b"c"}, {"AZ_CLIENT_ID": "c"}),
        ({"AZURE_CLIENT_ID": b"c", "AZ_CLIENT_ID": b"d"}, {"AZ_CLIENT_ID": "d"}),
        (
            {"AZURE_TENANT_ID": b"t", "AZURE_CLIENT_SECRET": b"c"},
            {"AZ_TENANT_ID": "t", "AZ_CLIENT_SECRET": "c"},
        ),
        ({"AZURE_STORAGE_ACCESS_KEY": b"k"}, {"AZURE_STORAGE_ACCESS_KEY": "k"}),
        ({"HF_TOKEN": b"hf_1\n"}, {"HF_TOKEN": "hf_1"}),
        (
            {"https-host": b"Files.Example.com\n", "headers": b'{"Authorization": "Bearer x"}'},
            {"https://files.example.com:443-headers": '{"Authorization": "Bearer x"}'},
        ),
        (
            {"https-host": b"files.example.com:8443", "headers": b"{}"},
            {"https://files.example.com:8443-headers": "{}"},
        ),
        (
            {"https-host": b"http://Files.example.com", "headers": b"{}"},
            {"http://files.example.com:80-headers": "{}"},
        ),
        (
            {"https-host": b"https://[2001:DB8::1]:8443/", "headers": b"{}"},
            {"https://[2001:db8::1]:8443-headers": "{}"},
        ),
        ({"https-host": b"files.example.com"}, {}),
        (
            {
                "HDFS_NAMENODE": b"http://n",
                "HEADERS": b'{\n"a": "b"}',
                "KERBEROS_KEYTAB": b"\xff\x00",
                "TLS_CA": PEM,
            },
            {
                "HDFS_NAMENODE": "http://n",
                "HEADERS": '{\n"a": "b"}',
                "KERBEROS_KEYTAB": "/wA=",
                "TLS_CA": PEM.decode().strip(),
            },
        ),
    ],
)
def test_what_a_secret_gives(data: dict[str, bytes], settings: dict[str, str]) -> None:
    assert secret_settings(secret(data)) == settings


@pytest.mark.parametrize(
    ("annotations", "settings"),
    [
        ({"endpoint": "minio:9000"}, {"AWS_ENDPOINT_URL": "https://minio:9000"}),
        (
            {"endpoint": "minio:9000", "usehttps": "0"},
            {"AWS_ENDPOINT_URL": "http://minio:9000"},
        ),
        ({"region": "eu-1"}, {"AWS_DEFAULT_REGION": "eu-1"}),
        ({"verifyssl": "0"}, {"S3_VERIFY_SSL": "0"}),
        ({"usevirtualbucket": "true"}, {"S3_USER_VIRTUAL_BUCKET": "true"}),
        ({"useaccelerate": "true"}, {"S3_USE_ACCELERATE": "true"}),
        ({"useanoncredential": "true"}, {"awsAnonymousCredential": "true"}),
        ({"cabundle": "/ca/a.crt"}, {"AWS_CA_BUNDLE": "/ca/a.crt"}),
        ({"cabundle_configmap": "c"}, {"AWS_CA_BUNDLE_CONFIGMAP": "c"}),
    ],
)
def test_annotations_stand_on_the_secret_or_on_the_account(
    annotations: dict[str, str], settings: dict[str, str]
) -> None:
    assert secret_settings(secret(KEYS, **annotations)) == SETTLED | settings
    assert attached_settings(account(**annotations), [secret(KEYS)]) == SETTLED | settings


def test_an_annotation_counts_before_the_key_of_its_secret_and_that_before_the_account() -> None:
    one = secret(KEYS | {"S3_ENDPOINT": b"key"}, endpoint="note")
    assert secret_settings(one)["AWS_ENDPOINT_URL"] == "https://note"
    settings = attached_settings(account(endpoint="account", region="r"), [one])
    assert settings["AWS_ENDPOINT_URL"] == "https://note"
    assert settings["AWS_DEFAULT_REGION"] == "r"


def test_secrets_are_merged_in_order() -> None:
    first = secret({"HF_TOKEN": b"a", "AZ_CLIENT_ID": b"c"})
    second = secret({"HF_TOKEN": b"b"} | KEYS)
    merged = attached_settings(account(), [first, second])
    assert merged == SETTLED | {"HF_TOKEN": "b", "AZ_CLIENT_ID": "c"}


@pytest.mark.parametrize("role", ["eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account"])
def test_a_role_alone_is_refused(role: str) -> None:
    with_role = ServiceAccount("jobs", "reader", (), {role: "x"})
    with pytest.raises(DownloadError, match=f"only the cloud role of its annotation {role}"):
        attached_settings(with_role, [secret({})])
    assert attached_settings(with_role, [secret(KEYS)]) == SETTLED


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            {"AWS_ACCESS_KEY_ID": b"id"},
            "AWS_ACCESS_KEY_ID of the secret jobs/s is there, and there is no AWS_SECRET_ACCESS",
        ),
        (
            {"AWS_ACCESS_KEY_ID": b"\n", "AWS_SECRET_ACCESS_KEY": b"s3cret"},
            "AWS_SECRET_ACCESS_KEY of the secret jobs/s is there, and there is no AWS_ACCESS_KEY",
        ),
        ({"HF_TOKEN": b"s3cret\nx"}, "HF_TOKEN of the secret jobs/s has a line break"),
        ({"HF_TOKEN": b"\xff"}, "HF_TOKEN of the secret jobs/s is not text"),
        ({"S3_ENDPOINT": b"s3cret@ftp://h"}, "S3_ENDPOINT of the secret jobs/s is no URL"),
        ({"S3_ENDPOINT": b"http://[s3cret"}, "S3_ENDPOINT of the secret jobs/s is no URL"),
        ({"AWS_ENDPOINT_URL": b"http://h:s3cret"}, "AWS_ENDPOINT_URL of the secret jobs/s is no"),
        ({GCS_KEY_FILE: b"s3cret"}, f"{GCS_KEY_FILE} of the secret jobs/s is no key file"),
        ({GCS_KEY_FILE: b"[]"}, f"{GCS_KEY_FILE} of the secret jobs/s is no key file"),
        (
            {"AWS_CA_BUNDLE": b"-----BEGIN PRIVATE KEY-----s3cret"},
            "AWS_CA_BUNDLE of the secret jobs/s is no certificate",
        ),
        ({"https-host": b"h", "headers": b"s3cret"}, "headers of the secret jobs/s is no JSON"),
        ({"https-host": b"h", "headers": b'{"a": 1}'}, "headers of the secret jobs/s is no JSON"),
        *(
            ({"https-host": written, "headers": b"{}"}, "https-host of the secret jobs/s is no web")
            for written in (
                b"h/s3cret",
                b"s3cret@h",
                b"ftp://h",
                b"h:s3cret",
                b"h:0",
                b"h\\@other",
                b"a\nb",
                b"",
            )
        ),
        (
            {"https-host": b"h", "headers": json.dumps({"a": "b\r\nc"}).encode()},
            "headers of the secret jobs/s is no JSON",
        ),
    ],
)
def test_what_is_wrong_is_named_and_never_shown(data: dict[str, bytes], text: str) -> None:
    assert text in refused(data)


def test_a_wrong_annotation_is_named() -> None:
    text = refused(KEYS, endpoint="http://")
    assert "the annotation serving.kserve.io/s3-endpoint of the secret jobs/s is no URL" in text


def test_nothing_secret_is_shown() -> None:
    assert "s3cret" not in repr(secret(KEYS))
