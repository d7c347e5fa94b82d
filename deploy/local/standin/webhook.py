"""Calls hooks over HTTP."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import requests

from deploy.local.standin.answers import A, decode, shorten
from deploy.local.standin.endpoints import authorization
from deploy.local.standin.errors import SyncError, TooManyRequestsError, brief

if TYPE_CHECKING:
    from deploy.local.standin.spec import Hook

CONNECTIONS = 32


def retry_after(header: str, now: datetime) -> int:
    """Seconds of a Retry-After header, which is a number or a date; 0 if it is neither."""
    if header.strip().isdecimal():
        return int(header)
    try:
        then = parsedate_to_datetime(header)
    except ValueError:
        return 0
    return math.ceil((then - now).total_seconds())


class HookClient:
    """Calls one hook. Threads may share a client.

    authorizations: the header Authorization for each host that gets one.
    """

    def __init__(self, hook: Hook, name: str, authorizations: dict[str, str]) -> None:
        self.name = name
        self._url = hook.webhook.url
        self._timeout = hook.webhook.timeout_seconds
        self._session = requests.Session()
        # Requests on loopback must not go through a proxy of the environment.
        self._session.trust_env = False
        header = authorization(self._url, authorizations)
        if header is not None:
            self._session.headers["Authorization"] = header
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def call(self, request: dict[str, Any], answer: type[A]) -> A:
        """Post a request. Raises SyncError unless the answer is a 200 that decodes strictly."""
        try:
            response = self._session.post(
                self._url,
                data=json.dumps(request, separators=(",", ":")).encode(),
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
            )
        except requests.RequestException as error:
            raise SyncError(f"{self.name} hook failed: http error: {brief(error)}") from error
        if response.status_code == requests.codes.too_many_requests:
            header = response.headers.get("Retry-After", "")
            raise TooManyRequestsError(retry_after(header, datetime.now(UTC)))
        if response.status_code != requests.codes.ok:
            raise SyncError(
                f"{self.name} hook failed: unsupported status code: {response.status_code} "
                f"body: {shorten(response.content)}"
            )
        try:
            return decode(answer, response.content)
        except SyncError as error:
            raise SyncError(f"{self.name} hook failed: {error}") from error
