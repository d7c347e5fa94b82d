"""Access tokens for Google's services, by the agent's own credentials or a tenant's key file."""

from __future__ import annotations

import json
import posixpath
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google.auth
from google.auth import compute_engine
from google.auth import transport as google_transport
from google.auth.credentials import TokenState
from google.auth.exceptions import GoogleAuthError
from google.oauth2.credentials import Credentials as UserCredentials
from google.oauth2.service_account import Credentials as ServiceAccountCredentials

from agent.sources.addresses import ANYWHERE
from agent.sources.answers import code_of
from agent.sources.transport import Transport
from agent.structs.credentials import GCS_KEY_FILE
from agent.structs.failures import DownloadError, FailureKind, public_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.structs.credentials import Credentials

SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"

_GCE_PRODUCT = Path("/sys/class/dmi/id/product_name")
_ERRORS = (GoogleAuthError, ValueError, TypeError, KeyError, AttributeError)


class Token:
    """An access token, fetched when a request needs it and again before it expires."""

    def __init__(self, credentials: Any, transport: Transport) -> None:
        self._credentials = credentials
        self._request = _Request(transport)
        self._lock = threading.Lock()

    def headers(self, where: str) -> dict[str, str]:
        """The headers of a request. Raises DownloadError."""
        with self._lock:
            if self._credentials.token_state is not TokenState.FRESH:
                try:
                    self._credentials.refresh(self._request)
                except _ERRORS as error:
                    raise _no_token(error, where) from None
            return {"Authorization": f"Bearer {self._credentials.token}"}

    def forget(self) -> None:
        """Drop a refused token: a new one may have rights that were granted since."""
        with self._lock:
            self._credentials.token = None


class _Request(google_transport.Request):  # type: ignore[misc, unused-ignore]
    """Sends google-auth's requests by a transport, since a key file names its token server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002
        **_: Any,
    ) -> _Answer:
        """The answer. Raises DownloadError."""
        answer = self._transport.call(
            method,
            url,
            public_uri(url),
            # The proof of the account must not follow a redirect.
            allow_redirects=False,
            data=body,
            headers=headers,
        )
        return _Answer(answer.status_code, answer.headers, answer.content)


@dataclass(frozen=True)
class _Answer:
    """An answer as google-auth wants it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def own_token(settings: Credentials) -> Token | None:
    """The token of the agent's own credentials; None if the agent has none.

    google-auth searches a metadata server for seconds, so it is used only where a key file or a
    metadata server is known to exist.
    """
    # The token may come from the metadata server, which no tenant's request may reach.
    transport = Transport(max_connections=1, rules=ANYWHERE)
    if _key_files(settings):
        load: Callable[..., Any] = google.auth.default
        try:
            credentials, _ = load(scopes=[SCOPE], request=_Request(transport))
        except _ERRORS:
            raise DownloadError(
                FailureKind.DENIED,
                "the agent's Google credentials cannot be read: check the file that "
                "GOOGLE_APPLICATION_CREDENTIALS names",
            ) from None
        return Token(credentials, transport)
    if on_google(settings):
        make: Callable[..., Any] = compute_engine.Credentials
        return Token(make(scopes=[SCOPE]), transport)
    return None


def on_google(settings: Credentials) -> bool:
    """Whether Google's metadata server exists here, without a request to the network."""
    if settings.get("GCE_METADATA_HOST"):
        return True
    try:
        return _GCE_PRODUCT.read_text().startswith("Google")
    except OSError:
        return False


def _key_files(settings: Credentials) -> bool:
    if settings.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return True
    folder = settings.get("CLOUDSDK_CONFIG") or posixpath.expanduser("~/.config/gcloud")
    return Path(folder, "application_default_credentials.json").exists()


def named_token(credentials: Credentials, transport: Transport, where: str) -> Token | None:
    """The token of a key file; None for credentials without one."""
    content = credentials.get(GCS_KEY_FILE)
    if not content:
        return None
    try:
        info = json.loads(content)
        kind = info.get("type")
        # Other types run programs and read files of the agent, which no tenant may choose.
        if kind == "service_account":
            make: Callable[..., Any] = ServiceAccountCredentials.from_service_account_info
        elif kind == "authorized_user":
            make = UserCredentials.from_authorized_user_info
        else:
            raise ValueError(kind)
        return Token(make(info, scopes=[SCOPE]), transport)
    except _ERRORS:
        raise DownloadError(
            FailureKind.DENIED,
            f"{where} cannot be asked for: {GCS_KEY_FILE} in the cache's secret is no key of a "
            "service account; download a new JSON key and put it there as it is",
        ) from None


def _no_token(error: Exception, where: str) -> DownloadError:
    """The failure for credentials that give no access token."""
    details = error.args[1] if len(error.args) > 1 else None
    code = code_of(details.get("error")) if isinstance(details, dict) else ""
    reason = f" ({code})" if code else ""
    if getattr(error, "retryable", False):
        return DownloadError(
            FailureKind.UNREACHABLE,
            f"Google gives no access token for {where} at present{reason}; it is tried again by "
            "itself",
        )
    return DownloadError(
        FailureKind.DENIED,
        f"Google gives no access token for {where}{reason}: check that the service account and its "
        "key still exist, and give a new key",
    )
