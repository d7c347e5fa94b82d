"""Settings of the secrets attached to a ServiceAccount, as KServe reads them. Pure."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from agent.credentials.settings import (
    KEYTAB,
    Setting,
    as_text,
    denied,
    settle,
    web_server,
)
from agent.structs.credentials import GCS_KEY_FILE, HEADERS_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.credentials.secret_api import Secret, ServiceAccount

_ANNOTATION = "serving.kserve.io/s3-"
# Settings by the end of the annotation's name.
_ANNOTATED = {
    "endpoint": "S3_ENDPOINT",
    "usehttps": "S3_USE_HTTPS",
    "region": "AWS_DEFAULT_REGION",
    "verifyssl": "S3_VERIFY_SSL",
    "usevirtualbucket": "S3_USER_VIRTUAL_BUCKET",
    "useaccelerate": "S3_USE_ACCELERATE",
    "useanoncredential": "awsAnonymousCredential",
    "cabundle": "AWS_CA_BUNDLE",
    "cabundle-configmap": "AWS_CA_BUNDLE_CONFIGMAP",
}
# Settings by the key in the secret; a later key of this list overrides an earlier one.
_KEYS = {
    "awsAccessKeyID": "AWS_ACCESS_KEY_ID",
    "awsSecretAccessKey": "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION": "AWS_DEFAULT_REGION",
    "AZURE_SUBSCRIPTION_ID": "AZ_SUBSCRIPTION_ID",
    "AZURE_TENANT_ID": "AZ_TENANT_ID",
    "AZURE_CLIENT_ID": "AZ_CLIENT_ID",
    "AZURE_CLIENT_SECRET": "AZ_CLIENT_SECRET",
} | {
    name: name
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        *_ANNOTATED.values(),
        GCS_KEY_FILE,
        "AZ_SUBSCRIPTION_ID",
        "AZ_TENANT_ID",
        "AZ_CLIENT_ID",
        "AZ_CLIENT_SECRET",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_ACCESS_TOKEN",
        "AZURE_ACCESS_EXPIRES_ON_SECONDS",
        "AZURE_ACCOUNT_NAME",
        "AZURE_SERVICE_URL",
        "HF_TOKEN",
        "HF_ENDPOINT",
    )
}
# Names that are too common: they are read only from a secret with HDFS_NAMENODE.
HDFS_KEYS = (
    "HDFS_NAMENODE",
    "HDFS_ROOTPATH",
    "USER_PROXY",
    "HEADERS",
    "N_THREADS",
    "KERBEROS_PRINCIPAL",
    KEYTAB,
    "TLS_CERT",
    "TLS_KEY",
    "TLS_CA",
    "TLS_SKIP_VERIFY",
)
# Annotations by which a cloud grants a role to a pod's ServiceAccount.
_ROLES = (
    "eks.amazonaws.com/role-arn",
    "iam.gke.io/gcp-service-account",
    "azure.workload.identity/client-id",
)


def attached_settings(account: ServiceAccount, secrets: Iterable[Secret]) -> dict[str, str]:
    """All settings: those of the account's annotations, overridden by each secret's in turn.

    Raises DownloadError (Denied).
    """
    merged: dict[str, str] = {}
    for secret in secrets:
        merged |= secret_settings(secret)
    role = next((name for name in _ROLES if name in account.annotations), None)
    if role and not merged:
        raise denied(
            f"{account.where} has no secret with credentials, only the cloud role of its "
            f"annotation {role}, which is for pods that run with it",
            "attach a secret to it, or give the agent itself such a role and take "
            "serviceAccountName out of the cache",
        )
    return settle(dict(_annotated(account.annotations, account.where))) | merged


def secret_settings(secret: Secret) -> dict[str, str]:
    """The settings of one secret; empty for a secret that is not for models.

    Raises DownloadError (Denied).
    """
    written = dict(_of_data(secret)) | dict(_annotated(secret.annotations, secret.where))
    return settle(written)


def _annotated(annotations: Mapping[str, str], where: str) -> Iterator[tuple[str, Setting]]:
    for end, name in _ANNOTATED.items():
        annotation = _ANNOTATION + end
        if annotation in annotations:
            place = f"the annotation {annotation} of {where}"
            yield name, Setting(annotations[annotation], place)


def _of_data(secret: Secret) -> Iterator[tuple[str, Setting]]:
    for key, name in _KEYS.items():
        if key in secret.data:
            yield name, _text(secret, key)
    if "HDFS_NAMENODE" in secret.data:
        for key in HDFS_KEYS:
            if key == KEYTAB and key in secret.data:
                encoded = base64.b64encode(secret.data[key]).decode()
                yield key, Setting(encoded, f"{key} of {secret.where}")
            elif key in secret.data:
                yield key, _text(secret, key)
    if "https-host" in secret.data and "headers" in secret.data:
        server = web_server(_text(secret, "https-host"))
        yield f"{server}{HEADERS_SUFFIX}", _text(secret, "headers")


def _text(secret: Secret, key: str) -> Setting:
    where = f"{key} of {secret.where}"
    return Setting(as_text(secret.data[key], where), where)
