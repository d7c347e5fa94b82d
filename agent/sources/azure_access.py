"""What lets a request read Azure's blobs: an account's key, an application's token, or a SAS."""

from __future__ import annotations

import base64
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from localmodel.agent.sources.answers import retry_after
from localmodel.agent.structs.causes import status_failure
from localmodel.agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    import requests

    from localmodel.agent.sources.transport import Transport
    from localmodel.agent.structs.credentials import Credentials

# How long a signature of ours lasts: each request has its own.
SIGNED_SECONDS = 3600
# A token is replaced so long before it expires.
EARLY_SECONDS = 300

_SCOPE = "https://storage.azure.com/.default"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_WORD = re.compile(r"[A-Za-z_]{1,64}")
_AUTHORITIES = {
    ".chinacloudapi.cn": "https://login.chinacloudapi.cn",
    ".usgovcloudapi.net": "https://login.microsoftonline.us",
}


class AzureAccess(Protocol):
    """How requests are allowed."""

    @property
    def anonymous(self) -> bool:
        """Whether nothing is sent: only public blobs can be read."""
        ...

    def query(self, account: str, container: str) -> str:
        """What URLs of a container carry; may be empty."""
        ...

    def headers(self, where: str) -> dict[str, str]:
        """What requests carry. Raises DownloadError."""
        ...

    def refused(self) -> None:
        """A request was denied."""
        ...


@dataclass(frozen=True)
class Shared:
    """A shared access signature that somebody was given; empty for nothing at all."""

    signature: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether there is none."""
        return not self.signature

    def query(self, _account: str, _container: str) -> str:
        """The signature."""
        return self.signature

    def headers(self, _where: str) -> dict[str, str]:
        """Nothing."""
        return {}

    def refused(self) -> None:
        """It cannot be renewed."""


@dataclass(frozen=True)
class Key:
    """An account's key, which signs for one container and for reading only."""

    key: str
    anonymous = False

    def query(self, account: str, container: str) -> str:
        """A fresh signature."""
        return generate_container_sas(
            account,
            container,
            account_key=self.key,
            permission=ContainerSasPermissions(read=True, list=True),
            expiry=datetime.now(UTC) + timedelta(seconds=SIGNED_SECONDS),
        )

    def headers(self, _where: str) -> dict[str, str]:
        """Nothing."""
        return {}

    def refused(self) -> None:
        """Each signature is new."""


class Application:
    """An application's access token, fetched when it is needed and again before it expires.

    The application proves itself by a secret, or by the token in a file that Kubernetes renews.
    """

    anonymous = False

    def __init__(
        self, transport: Transport, url: str, client: str, *, secret: str = "", file: str = ""
    ) -> None:
        self._transport = transport
        self._url = url
        self._client = client
        self._secret = secret
        self._file = file
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def query(self, _account: str, _container: str) -> str:
        """Nothing."""
        return ""

    def headers(self, where: str) -> dict[str, str]:
        """The token. Raises DownloadError."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._fetch(where)
            return {"Authorization": f"Bearer {self._token}"}

    def refused(self) -> None:
        """The next request has a new token, with what may have been granted since."""
        with self._lock:
            self._until = 0.0

    def _fetch(self, where: str) -> None:
        asked = time.monotonic()
        answer = self._transport.call(
            "POST",
            self._url,
            f"the sign-in for {where}",
            check=False,
            # What proves the application must not go where the server says.
            allow_redirects=False,
            data={
                "grant_type": "client_credentials",
                "client_id": self._client,
                "scope": _SCOPE,
                **self._proof(),
            },
        )
        try:
            found = answer.json()
            if answer.status_code != 200:
                raise _no_token(answer, where, found.get("error"))
            self._token = str(found["access_token"])
            lasts = float(found.get("expires_in", 0))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _no_token(answer, where, None) from None
        self._until = asked + max(lasts - EARLY_SECONDS, lasts / 2)

    def _proof(self) -> dict[str, str]:
        if self._secret:
            return {"client_secret": self._secret}
        try:
            assertion = Path(self._file).read_text()
        except OSError:
            raise DownloadError(
                FailureKind.DENIED,
                "the agent's token for Azure cannot be read: check AZURE_FEDERATED_TOKEN_FILE, and "
                "that workload identity is on for the agent",
            ) from None
        return {"client_assertion_type": _ASSERTION, "client_assertion": assertion.strip()}


def access_of(credentials: Credentials, transport: Transport, host: str) -> AzureAccess:
    """What lets requests to a host read, by the settings. Raises DownloadError (Denied).

    An application comes before a key, as for KServe; the names that begin with AZURE_ are
    Azure's own, those with AZ_ KServe's former ones.
    """
    client = _setting(credentials, "CLIENT_ID")
    tenant = _setting(credentials, "TENANT_ID")
    secret = _setting(credentials, "CLIENT_SECRET")
    # A path is only what the agent's own environment may give.
    file = credentials.get("AZURE_FEDERATED_TOKEN_FILE") if credentials.own else ""
    if client and tenant and (secret or file):
        url = f"{_authority(credentials, host)}/{quote(tenant, safe='')}/oauth2/v2.0/token"
        return Application(transport, url, client, secret=secret, file=file)
    key = _setting(credentials, "STORAGE_ACCESS_KEY").strip()
    if key:
        return Key(_checked(key))
    if client or secret:
        raise DownloadError(
            FailureKind.DENIED,
            "the credentials for Azure are only a part: give AZ_TENANT_ID, AZ_CLIENT_ID and "
            "AZ_CLIENT_SECRET, or AZURE_STORAGE_ACCESS_KEY alone",
        )
    return Shared(credentials.get("AZURE_STORAGE_SAS_TOKEN").strip().lstrip("?"))


def _setting(settings: Credentials, name: str) -> str:
    return settings.get(f"AZURE_{name}") or settings.get(f"AZ_{name}")


def _authority(settings: Credentials, host: str) -> str:
    chosen = settings.get("AZURE_AUTHORITY_HOST").rstrip("/")
    if chosen:
        return chosen if "://" in chosen else f"https://{chosen}"
    for suffix, authority in _AUTHORITIES.items():
        if host.endswith(suffix):
            return authority
    return "https://login.microsoftonline.com"


def _checked(key: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except ValueError:
        raise DownloadError(
            FailureKind.DENIED,
            "AZURE_STORAGE_ACCESS_KEY is no storage account's key, which is Base64: copy it again",
        ) from None
    return key


def _no_token(answer: requests.Response, where: str, code: object) -> DownloadError:
    """The failure for an application that is given no token."""
    reason = f" ({code})" if isinstance(code, str) and _WORD.fullmatch(code) else ""
    if answer.status_code == 429 or answer.status_code >= 500:
        return status_failure(
            answer.status_code,
            f"the sign-in for {where}",
            retry_after=retry_after(answer.headers),
        )
    return DownloadError(
        FailureKind.DENIED,
        f"Azure gives no access token for {where}{reason}: check AZ_TENANT_ID and AZ_CLIENT_ID, "
        "and that the secret has not expired",
    )
