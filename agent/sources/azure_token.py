"""Access tokens for Azure's storage.

A token is that of an application, which proves itself by a secret or by a file (workload identity),
or that of a managed identity of the node.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.sources.addresses import ANYWHERE
from agent.sources.answers import answered, code_of
from agent.sources.transport import Transport
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

# A token is replaced so long before it expires.
EARLY_SECONDS = 300
# learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
METADATA_SERVICE = "http://169.254.169.254"

_RESOURCE = "https://storage.azure.com/"
_SCOPE = f"{_RESOURCE}.default"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Statuses of a sign-in that may do better later.
_PASSING = {410, 429}


class Token:
    """An access token, fetched when a request needs it and again before it expires.

    `ask` requests a token. `todo` is what to check where the answer has none.
    """

    def __init__(self, ask: Callable[[str], requests.Response], todo: str) -> None:
        self._ask = ask
        self._todo = todo
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def headers(self, where: str) -> dict[str, str]:
        """The token. Raises DownloadError."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._fetch(where)
            return {"Authorization": f"Bearer {self._token}"}

    def forget(self) -> None:
        """Drop a refused token: a new one may have rights that were granted since."""
        with self._lock:
            self._until = 0.0

    def _fetch(self, where: str) -> None:
        asked = time.monotonic()
        answer = self._ask(f"the sign-in for {where}")
        try:
            found = answer.json()
            if answer.status_code != 200:
                raise self._failure(answer, where, found.get("error"))
            self._token = str(found["access_token"])
            lasts = float(found.get("expires_in", 0))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._failure(answer, where, None) from None
        self._until = asked + max(lasts - EARLY_SECONDS, lasts / 2)

    def _failure(self, answer: requests.Response, where: str, code: object) -> DownloadError:
        status = answer.status_code
        if status in _PASSING or status >= 500:
            # 410 is the answer of a metadata service that is being updated.
            status = 503 if status == 410 else status
            return answered(answer, f"the sign-in for {where}", status=status)
        reason = f" ({found})" if (found := code_of(code)) else ""
        return DownloadError(
            FailureKind.DENIED, f"Azure gives no access token for {where}{reason}: {self._todo}"
        )


def application(
    transport: Transport, url: str, client: str, *, secret: str = "", file: str = ""
) -> Token:
    """The token of an application.

    It proves itself by a secret, or by the token in a file that Kubernetes renews.
    """

    def proof() -> dict[str, str]:
        if secret:
            return {"client_secret": secret}
        try:
            assertion = Path(file).read_text()
        except OSError:
            raise DownloadError(
                FailureKind.DENIED,
                "the agent's token for Azure cannot be read: check AZURE_FEDERATED_TOKEN_FILE, and "
                "that workload identity is on for the agent",
            ) from None
        return {"client_assertion_type": _ASSERTION, "client_assertion": assertion.strip()}

    def ask(where: str) -> requests.Response:
        form = {"grant_type": "client_credentials", "client_id": client, "scope": _SCOPE}
        # What proves the application must not follow a redirect.
        return transport.call("POST", url, where, allow_redirects=False, data=form | proof())

    return Token(ask, "check AZ_TENANT_ID and AZ_CLIENT_ID, and that the secret has not expired")


def managed_identity(service: str, client: str) -> Token:
    """The token of an identity of the node: that of a client ID, or the only one that it has.

    The node's metadata service gives it to every process that asks, so this is for the agent's own
    credentials alone. `service` is its URL; empty: that of Azure's virtual machines.
    """
    url = f"{service.rstrip('/') or METADATA_SERVICE}/metadata/identity/oauth2/token"
    # No tenant's request may go there, and no proxy leads to this very node.
    transport = Transport(max_connections=1, rules=ANYWHERE)
    query = {"api-version": "2018-02-01", "resource": _RESOURCE}
    query |= {"client_id": client} if client else {}

    def ask(where: str) -> requests.Response:
        return transport.call(
            "GET",
            url,
            where,
            allow_redirects=False,
            params=query,
            headers={"Metadata": "true"},
            proxies={"http": "", "https": ""},
        )

    return Token(
        ask,
        "check that the node has a managed identity, that AZURE_CLIENT_ID names it, and name one "
        "there if the node has several",
    )
