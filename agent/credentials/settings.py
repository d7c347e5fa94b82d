"""Checks and normal forms of settings, for secrets and entries of every kind. Pure.

No message holds a value, since values are secrets.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.structs.credentials import GCS_KEY_FILE, HEADERS_SUFFIX, S3_AUTHORITIES
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.urls import server_of

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYTAB = "KERBEROS_KEYTAB"
CA_PATH = "AWS_CA_BUNDLE"
CA_CONFIG_MAP = "AWS_CA_BUNDLE_CONFIGMAP"
_ENDPOINT = "AWS_ENDPOINT_URL"
_HOST = "S3_ENDPOINT"
_USE_HTTPS = "S3_USE_HTTPS"
_VERIFY = "S3_VERIFY_SSL"
_SWITCHES = ("awsAnonymousCredential", "S3_USER_VIRTUAL_BUCKET", "S3_USE_ACCELERATE")
# The words that KServe takes for false.
_NO = {"0", "false"}
_LONG = {GCS_KEY_FILE, S3_AUTHORITIES, KEYTAB, CA_PATH, "HEADERS", "TLS_CERT", "TLS_KEY", "TLS_CA"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PEM = "-----BEGIN CERTIFICATE-----"
# The largest bundle of certificates in bytes of PEM, of which each kept client takes about four
# times as much memory: the bundle of all public authorities has 240 KB.
MAX_AUTHORITIES_BYTES = 256 << 10


@dataclass(frozen=True)
class Setting:
    """A value as written. `where` names its place in messages."""

    value: str = field(repr=False)
    where: str


def denied(problem: str, todo: str) -> DownloadError:
    """The failure (Denied) for wrong credentials, with what to do."""
    return DownloadError(FailureKind.DENIED, f"{problem}: {todo}")


def settle(written: Mapping[str, Setting]) -> dict[str, str]:
    """The settings of one place, checked and in normal form, without empty ones.

    Raises DownloadError (Denied), naming the place and what is wrong with it.
    """
    found = {
        name: Setting(setting.value.strip(), setting.where)
        for name, setting in written.items()
        if setting.value.strip()
    }
    _check_s3_keys(found)
    for name, setting in found.items():
        if name == GCS_KEY_FILE:
            _check_key_file(setting)
        elif name.endswith(HEADERS_SUFFIX):
            _check_headers(setting)
        elif name == S3_AUTHORITIES:
            check_authorities(setting)
        elif name == KEYTAB:
            decoded(setting)
        elif name not in _LONG and _CONTROL.search(setting.value):
            raise denied(
                f"{setting.where} has a line break or another control character inside",
                "write it again as one line",
            )
    values = {name: setting.value for name, setting in found.items()}
    values |= _endpoint(found) | _switches(values) | _authorities(found)
    return {name: value for name, value in values.items() if value}


def _check_s3_keys(found: Mapping[str, Setting]) -> None:
    pair = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    there = [found[name] for name in pair if name in found]
    if len(there) == 1:
        (missing,) = (name for name in pair if name not in found)
        raise denied(
            f"{there[0].where} is there, and there is no {missing} with it",
            "S3 needs both, so add the other one",
        )


def _endpoint(found: Mapping[str, Setting]) -> dict[str, str]:
    """AWS_ENDPOINT_URL in place of S3_ENDPOINT and S3_USE_HTTPS, as KServe computes it."""
    setting = found.get(_HOST) or found.get(_ENDPOINT)
    if setting is None:
        return {_USE_HTTPS: ""}
    url = setting.value
    if "://" not in url:
        plain = _USE_HTTPS in found and found[_USE_HTTPS].value.lower() in _NO
        url = f"{'http' if plain else 'https'}://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme.lower() in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise denied(f"{setting.where} is no URL of a server", "write it as https://host:port")
    return {_ENDPOINT: url, _HOST: "", _USE_HTTPS: ""}


def _switches(values: Mapping[str, str]) -> dict[str, str]:
    switches = {
        name: "true" if values[name].lower() in {"1", "true", "yes"} else "false"
        for name in _SWITCHES
        if name in values
    }
    if _VERIFY in values:
        # An unknown word must not switch the verification off.
        switches[_VERIFY] = "0" if values[_VERIFY].lower() in _NO else "1"
    return switches


def _authorities(found: Mapping[str, Setting]) -> dict[str, str]:
    """The certificates, where they stand in place of the path that KServe has there."""
    path = found.get(CA_PATH)
    if path is None or "-----BEGIN" not in path.value:
        return {}
    return {CA_PATH: "", S3_AUTHORITIES: check_authorities(path)}


def check_authorities(setting: Setting) -> str:
    """Certificates as PEM, of a bounded size. Raises DownloadError (Denied)."""
    size = len(setting.value.encode())
    if size > MAX_AUTHORITIES_BYTES:
        raise denied(
            f"{setting.where} has {-(-size >> 10)} KiB of certificates, and the agent takes "
            f"{MAX_AUTHORITIES_BYTES >> 10} at most",
            "keep only the certificates of the S3 server's authority there",
        )
    if _PEM not in setting.value:
        raise denied(
            f"{setting.where} is no certificate",
            f"it must be PEM, that is begin with {_PEM}",
        )
    return setting.value


def _check_key_file(setting: Setting) -> None:
    if not isinstance(_json(setting.value), dict):
        raise denied(
            f"{setting.where} is no key file of a Google service account",
            "put the JSON file there that Google gives for its key",
        )


def web_server(setting: Setting) -> str:
    """The server for which headers are, by the value of `https-host`.

    A host without a scheme, as in KServe, means https; http is used only with `http://`. Raises
    DownloadError (Denied).
    """
    written = setting.value.strip()
    url = written if "://" in written else f"https://{written}"
    try:
        parts = urlsplit(url)
        whole = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and whole
        if usable and not _CONTROL.search(written) and "\\" not in written:
            return server_of(url)
    except ValueError:
        pass
    raise denied(
        f"{setting.where} is no web server",
        "write its host, or the host and the port, and http:// before it where it has no TLS",
    )


def _check_headers(setting: Setting) -> None:
    headers = _json(setting.value)
    if not isinstance(headers, dict) or not all(
        isinstance(value, str) and not _CONTROL.search(name + value)
        for name, value in headers.items()
    ):
        raise denied(
            f"{setting.where} is no JSON object of headers and their values",
            'write it as {"Authorization": "Bearer ..."}',
        )


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def decoded(setting: Setting) -> bytes:
    """The bytes that base64 encodes. Raises DownloadError (Denied)."""
    try:
        return base64.b64decode("".join(setting.value.split()), validate=True)
    except binascii.Error:
        raise denied(f"{setting.where} is not base64", "encode it once more") from None


def decoded_text(setting: Setting) -> Setting:
    """The text that base64 encodes. Raises DownloadError (Denied)."""
    return Setting(as_text(decoded(setting), setting.where), setting.where)


def as_text(raw: bytes, where: str) -> str:
    """The text of a value. Raises DownloadError (Denied)."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise denied(f"{where} is not text", "write it again, as UTF-8") from None
