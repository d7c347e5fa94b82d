"""Settings of an entry of the secret storage-config, overridden by a cache's. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.credentials.attached_secrets import HDFS_KEYS
from agent.credentials.settings import (
    CA_PATH,
    Setting,
    as_text,
    decoded_text,
    denied,
    settle,
)
from agent.structs.credentials import GCS_KEY_FILE, S3_AUTHORITIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.credentials.secret_api import Secret

STORAGE_CONFIG = "storage-config"

_TYPE = "type"
# Fields that are no settings: the URI names the bucket.
_IGNORED = {_TYPE, "bucket"}


@dataclass(frozen=True)
class _Kind:
    """A type of entries: its settings by the names in the entry.

    `overridable` are the fields that storage.parameters may set. None: all but paths, since S3's
    server gets a signature and never the key. Other stores get the token itself, and whoever may
    create a cache could have it sent to a server of theirs.
    """

    names: Mapping[str, str]
    # At least one of these fields must be set.
    needed: frozenset[str] = frozenset()
    overridable: frozenset[str] | None = frozenset()
    # Fields whose values are texts in base64.
    encoded: frozenset[str] = field(default=frozenset())


_S3 = _Kind(
    {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "endpoint_url": "AWS_ENDPOINT_URL",
        "region": "AWS_DEFAULT_REGION",
        "verify_ssl": "S3_VERIFY_SSL",
        "anonymous": "awsAnonymousCredential",
        "certificate": S3_AUTHORITIES,
        "ca_bundle": CA_PATH,
        "cabundle_configmap": "AWS_CA_BUNDLE_CONFIGMAP",
    },
    overridable=None,
)
_GS = _Kind(
    {"base64_service_account": GCS_KEY_FILE},
    needed=frozenset({"base64_service_account"}),
    encoded=frozenset({"base64_service_account"}),
)
_HF = _Kind(
    {
        "endpoint": "HF_ENDPOINT",
        "HF_ENDPOINT": "HF_ENDPOINT",
        "token": "HF_TOKEN",
        "HF_TOKEN": "HF_TOKEN",
    },
    needed=frozenset({"token", "HF_TOKEN"}),
)
_AZURE = _Kind(
    {
        f"{prefix}{name}": f"AZ_{name}"
        for prefix in ("AZURE_", "AZ_")
        for name in ("SUBSCRIPTION_ID", "TENANT_ID", "CLIENT_ID", "CLIENT_SECRET")
    }
    | {
        name: name
        for name in ("AZURE_STORAGE_ACCESS_KEY", "AZURE_ACCESS_TOKEN", "AZURE_ACCOUNT_NAME")
    }
    | {"AZURE_SERVICE_URL": "AZURE_SERVICE_URL"},
    needed=frozenset(
        {"AZ_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_STORAGE_ACCESS_KEY", "AZURE_ACCESS_TOKEN"}
    ),
)
_HDFS = _Kind(
    {name: name for name in HDFS_KEYS},
    needed=frozenset({"HDFS_NAMENODE"}),
    overridable=frozenset({"HDFS_ROOTPATH", "N_THREADS"}),
    encoded=frozenset({"TLS_CERT", "TLS_KEY", "TLS_CA"}),
)
_KINDS = {
    "s3": _S3,
    "gs": _GS,
    "gcs": _GS,
    "hf": _HF,
    "azure": _AZURE,
    "hdfs": _HDFS,
    "webhdfs": _HDFS,
}


def stored_settings(secret: Secret, key: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """The settings of the entry with this key, overridden by those of storage.parameters.

    Raises DownloadError (Denied).
    """
    place = f"the entry {key!r} of {secret.where}"
    if key not in secret.data:
        raise denied(
            f"{secret.where} has no key {key!r}",
            "add it there, or correct storage.key of the cache",
        )
    entry = _entry(as_text(secret.data[key], place), place)
    kind = _kind(entry.get(_TYPE, ""), parameters.get(_TYPE, ""), place)
    _check_parameters(kind, parameters, place)
    written = {
        kind.names[name]: _setting(kind, name, value, f"{name} of {place}")
        for name in kind.names
        if (value := entry.get(name, ""))
    }
    written |= {
        kind.names[name]: _setting(kind, name, value, f"storage.parameters.{name}")
        for name, value in parameters.items()
        if name in kind.names
    }
    if kind.needed and not kind.needed & {name for name, value in entry.items() if value.strip()}:
        raise denied(f"{place} has none of {', '.join(sorted(kind.needed))}", "add what it has")
    return settle(written)


def _setting(kind: _Kind, name: str, value: str, where: str) -> Setting:
    setting = Setting(value, where)
    return decoded_text(setting) if name in kind.encoded else setting


def _entry(text: str, place: str) -> dict[str, str]:
    """The entry's fields. KServe takes strings only; booleans and integers are converted here."""
    todo = 'write it as {"type": "s3", "access_key_id": ...}'
    try:
        found = json.loads(text)
    except ValueError:
        raise denied(f"{place} is not JSON", todo) from None
    if not isinstance(found, dict):
        raise denied(f"{place} is no JSON object", todo)
    fields: dict[str, str] = {}
    for name, value in found.items():
        if isinstance(value, bool):
            fields[name] = str(value).lower()
        elif isinstance(value, str | int):
            fields[name] = str(value)
        elif value is not None:
            raise denied(f"{name} of {place} is no text", "write it in quotes")
    return fields


def _kind(stored: str, asked: str, place: str) -> _Kind:
    if stored and asked and stored != asked:
        raise denied(
            f"storage.parameters.type of the cache is not the type of {place}, which is for "
            f"{stored}",
            "take it out of the parameters, or name another key",
        )
    name = stored or asked
    if name not in _KINDS:
        problem = "has a type that is not known" if name else "has no type"
        raise denied(f"{place} {problem}", f"its type must be one of {', '.join(_KINDS)}")
    return _KINDS[name]


def _check_parameters(kind: _Kind, parameters: Mapping[str, str], place: str) -> None:
    for name in sorted(parameters.keys() - _IGNORED):
        if kind.overridable is None:
            if kind.names.get(name) != CA_PATH:
                continue
            reason = "a cache may not name files of the agent"
        elif name in kind.overridable:
            continue
        else:
            reason = "a cache may not change whom its token or key is sent to, nor how"
        raise denied(
            f"storage.parameters.{name} cannot be put over {place} ({reason})",
            "take it out of the cache, and have it written into the entry",
        )
