"""HTTP calls to the API server, by the path of the URL.

The kubernetes library reads kubeconfigs and ServiceAccounts, refreshes tokens and pools TCP
connections. RawClient adds timeouts, retries after the status 429, and typed errors.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import msgspec
import urllib3
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

from agent.cluster.connection import connect
from deploy.kube.errors import UnansweredError, UnreachableError, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from deploy.kube.kinds import KubeObject

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
# Idle connections in the pool: more than any tool has threads.
CONNECTIONS = 64
# Too many requests, or a CRD was changed a moment ago. The API server did nothing.
_BUSY = 429
TRIES = 5
BUSY_SECONDS = 1.0
_NO_CONNECTION = (
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ProxyError,
)
_SILENT = "the API server does not answer"

APPLY = "application/apply-patch+yaml"
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class RawClient:
    """Calls one API server as one user. Threads may share a client.

    A call waits 5 s for a connection and 30 s for the next bytes of the answer. When the API server
    is busy (429), the client waits a second and calls again, up to five times in all. A call that
    failed for another reason is not repeated.
    """

    def __init__(self, client: ApiClient) -> None:
        """Use the address, the credentials and the connections of the library's client."""
        self._client = client

    @classmethod
    def connect(
        cls,
        kubeconfig: Path | None,
        context: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """A client for the cluster of a kubeconfig; this makes no call yet.

        kubeconfig: None means the cluster that this pod runs in. context: of the kubeconfig; None
        means its current context. headers: HTTP headers of every call, such as Impersonate-User.
        Raises agent.cluster.connection.ConfigError, whose text says what is wrong and what to do.
        """
        settings = connect(kubeconfig, context).configuration
        settings.connection_pool_maxsize = CONNECTIONS
        client = ApiClient(settings)
        client.default_headers.update(headers or {})
        return cls(client)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    def request(
        self,
        method: str,
        path: str,
        *,
        doing: str = "",
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        seconds: float = READ_SECONDS,
    ) -> KubeObject:
        """Make any call, such as a POST to a subresource, and return the JSON object of the answer.

        path: see `Kind.path`. doing: the beginning of an error's text, as in "reading Node node-1".
        query: parameters of the URL; empty values are left out. accept: the form of the answer.
        seconds: how long to wait for the next bytes of the answer.
        """
        doing = doing or f"{method} {path}"
        answer = self.send(
            method,
            path,
            doing,
            body=body,
            query=query,
            content_type=content_type,
            accept=accept,
            seconds=seconds,
        )
        content = _parsed(_data(answer, doing))
        if content is None:
            raise UnansweredError(doing, "the answer is not a JSON object", answer.status)
        return content

    def text(self, path: str) -> str:
        """Make a GET, such as of /metrics, and return the text of the answer."""
        doing = f"GET {path}"
        return _data(self.send("GET", path, doing), doing).decode()

    def send(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        seconds: float = READ_SECONDS,
    ) -> urllib3.HTTPResponse:
        """Make a call and return the answer, with a status below 400 and its body not read yet."""
        for attempt in range(1, TRIES + 1):
            # In each try, because this refreshes the token.
            _, url, headers, _, _ = self._client.param_serialize(
                method,
                path,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": f"{accept}, */*", "Content-Type": content_type},
                auth_settings=["BearerToken"],
            )
            timeout = (CONNECT_SECONDS, seconds)
            try:
                called: Any = self._client.call_api(
                    method, url, headers, body, _request_timeout=timeout
                )
            except ApiException as error:
                # The library's exception wraps an SSLError; its text has two lines.
                cause = str(error.reason).replace("\n", ": ")
                raise UnreachableError(doing, f"{_SILENT}: {cause}") from None
            except _NO_CONNECTION as error:
                raise UnreachableError(doing, f"{_SILENT}: {error}") from None
            except urllib3.exceptions.HTTPError as error:
                raise UnansweredError(doing, f"{_SILENT}: {error}") from None
            answer: urllib3.HTTPResponse = called.response
            if answer.status < 400:
                return answer
            status = _parsed(_data(answer, doing)) or {}
            if answer.status != _BUSY or attempt == TRIES:
                break
            time.sleep(BUSY_SECONDS)
        message = status.get("message") or answer.reason or ""
        raise refusal(doing, message, answer.status, status.get("reason") or "")


def _data(answer: urllib3.HTTPResponse, doing: str) -> bytes:
    try:
        return answer.data
    except urllib3.exceptions.HTTPError as error:
        raise UnansweredError(doing, f"{_SILENT}: {error}") from None


def _parsed(text: bytes) -> KubeObject | None:
    try:
        # Half the time of json.loads, on lists of many megabytes.
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None
