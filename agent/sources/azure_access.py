"""What permits a request to read Azure's blobs: a signature, an account's key, or a token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from agent.sources.azure_token import application, managed_identity
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.sources.azure_token import Token
    from agent.sources.transport import Transport
    from agent.structs.credentials import Credentials

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


@dataclass(frozen=True)
class AzureAccess:
    """The permission for requests to a storage account.

    `sign` makes the query of an account's container, `token` is sent in headers. Without both,
    requests are anonymous, and only public blobs can be read.
    """

    sign: Callable[[str, str], str] | None = field(default=None, repr=False)
    token: Token | None = None

    @property
    def anonymous(self) -> bool:
        """Whether requests carry nothing."""
        return self.sign is None and self.token is None

    def query(self, account: str, container: str) -> str:
        """The query of a container's URLs; may be empty."""
        return self.sign(account, container) if self.sign else ""

    def headers(self, where: str) -> dict[str, str]:
        """The headers of a request. Raises DownloadError."""
        return self.token.headers(where) if self.token else {}

    def refused(self) -> None:
        """Drop a token with which a request was denied."""
        if self.token:
            self.token.forget()


def given(signature: str) -> AzureAccess:
    """The access by a shared access signature; empty: anonymous."""
    return AzureAccess(sign=lambda *_: signature) if signature else AzureAccess()


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
        return AzureAccess(token=application(transport, url, client, secret=secret, file=file))
    key = _setting(credentials, "STORAGE_ACCESS_KEY").strip()
    if key:
        _check_key(key)
        return AzureAccess(partial(sign, key))
    uses_node = credentials.get("AZURE_TOKEN_CREDENTIALS").strip().lower() == _MANAGED
    if credentials.own and not tenant and not secret and (client or uses_node):
        service = credentials.get("AZURE_POD_IDENTITY_AUTHORITY_HOST")
        return AzureAccess(token=managed_identity(service, client))
    if client or secret:
        raise DownloadError(
            FailureKind.DENIED,
            "the credentials for Azure are only a part: give AZ_TENANT_ID, AZ_CLIENT_ID and "
            "AZ_CLIENT_SECRET, or AZURE_STORAGE_ACCESS_KEY alone",
        )
    return given(credentials.get("AZURE_STORAGE_SAS_TOKEN").strip().lstrip("?"))


def sign(key: str, account: str, container: str) -> str:
    """A signature by an account's key, which reads and lists one container for SIGNED_SECONDS.

    See learn.microsoft.com/rest/api/storageservices/create-service-sas. Raises ValueError for a key
    that is not Base64.
    """
    fields = {
        "sp": "rl",
        "se": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + SIGNED_SECONDS)),
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


def _check_key(key: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except ValueError:
        raise DownloadError(
            FailureKind.DENIED,
            "AZURE_STORAGE_ACCESS_KEY is no storage account's key, which is Base64: copy it again",
        ) from None
