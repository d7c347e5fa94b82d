"""What permits a request to read Azure's blobs: a signature, an account's key, or a token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode

from localmodel.agent.sources.azure_token import application, managed_identity
from localmodel.agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from localmodel.agent.sources.transport import Transport
    from localmodel.agent.structs.credentials import Credentials

# How long a signature of a key lasts: each request has its own.
SIGNED_SECONDS = 3600

# The value of AZURE_TOKEN_CREDENTIALS, as Azure's own libraries have it.
_MANAGED = "managedidentitycredential"
# The version of signatures: `sv`.
_SIGNED_VERSION = "2020-12-06"
_AUTHORITIES = {
    ".chinacloudapi.cn": "https://login.chinacloudapi.cn",
    ".usgovcloudapi.net": "https://login.microsoftonline.us",
}


class AzureAccess(Protocol):
    """The permission for requests to a storage account."""

    @property
    def anonymous(self) -> bool:
        """Whether requests carry nothing, so that only public blobs can be read."""
        ...

    def query(self, account: str, container: str) -> str:
        """The query of a container's URLs; may be empty."""
        ...

    def headers(self, where: str) -> dict[str, str]:
        """The headers of a request. Raises DownloadError."""
        ...

    def refused(self) -> None:
        """Called after a request was denied."""
        ...


@dataclass(frozen=True)
class Shared:
    """A shared access signature from a URI or a setting; empty: anonymous."""

    signature: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether there is no signature."""
        return not self.signature

    def query(self, _account: str, _container: str) -> str:
        """The signature."""
        return self.signature

    def headers(self, _where: str) -> dict[str, str]:
        """Nothing."""
        return {}

    def refused(self) -> None:
        """A given signature cannot be renewed."""


@dataclass(frozen=True)
class Key:
    """An account's key. It signs for one container, and for reading only."""

    key: str
    anonymous = False

    def query(self, account: str, container: str) -> str:
        """A fresh signature."""
        return sign(account, container, self.key, time.time() + SIGNED_SECONDS)

    def headers(self, _where: str) -> dict[str, str]:
        """Nothing."""
        return {}

    def refused(self) -> None:
        """Each request has a new signature anyway."""


def access_of(credentials: Credentials, transport: Transport, host: str) -> AzureAccess:
    """What permits requests to a host, by the settings. Raises DownloadError (Denied).

    An application comes before a key, as for KServe. The names that begin with AZURE_ are Azure's
    own, those with AZ_ KServe's former ones. Files and identities of the node are only for the
    agent's own credentials, and an identity only where they ask for it: Azure refuses even public
    blobs to a token without a role.
    """
    client = _setting(credentials, "CLIENT_ID")
    tenant = _setting(credentials, "TENANT_ID")
    secret = _setting(credentials, "CLIENT_SECRET")
    file = credentials.get("AZURE_FEDERATED_TOKEN_FILE") if credentials.own else ""
    if client and tenant and (secret or file):
        url = f"{_authority(credentials, host)}/{quote(tenant, safe='')}/oauth2/v2.0/token"
        return application(transport, url, client, secret=secret, file=file)
    key = _setting(credentials, "STORAGE_ACCESS_KEY").strip()
    if key:
        return Key(_checked(key))
    uses_node = credentials.get("AZURE_TOKEN_CREDENTIALS").strip().lower() == _MANAGED
    if credentials.own and not tenant and not secret and (client or uses_node):
        return managed_identity(credentials.get("AZURE_POD_IDENTITY_AUTHORITY_HOST"), client)
    if client or secret:
        raise DownloadError(
            FailureKind.DENIED,
            "the credentials for Azure are only a part: give AZ_TENANT_ID, AZ_CLIENT_ID and "
            "AZ_CLIENT_SECRET, or AZURE_STORAGE_ACCESS_KEY alone",
        )
    return Shared(credentials.get("AZURE_STORAGE_SAS_TOKEN").strip().lstrip("?"))


def sign(account: str, container: str, key: str, until: float) -> str:
    """A signature that reads and lists a container until a time in Unix seconds.

    As learn.microsoft.com/rest/api/storageservices/create-service-sas has it. Raises ValueError for
    a key that is not Base64.
    """
    fields = {
        "sp": "rl",
        "se": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until)),
        "sv": _SIGNED_VERSION,
        "sr": "c",
    }
    resource = f"/blob/{account}/{container}"
    # The lines of what is not used are empty: start, policy, addresses, protocol; and at the end
    # snapshot, encryption scope and five headers of answers.
    lines = [fields["sp"], "", fields["se"], resource, "", "", "", fields["sv"], fields["sr"]]
    text = "\n".join(lines + [""] * 7)
    digest = hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)
    return urlencode(fields | {"sig": base64.b64encode(digest).decode()})


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
