"""Requests to the core API of the API server (/api/v1), with objects as JSON.

The client's own class for it imports the types of all kinds: a third of the start of an agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kubernetes.client.exceptions import ApiException
from pydantic.alias_generators import to_camel

from agent.cluster.kube_watch import CALL_TIMEOUT

if TYPE_CHECKING:
    import urllib3
    from kubernetes import client

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class CoreApi:
    """Objects by the segments of their paths: `"namespaces", "team", "secrets", "name"`.

    Any thread may call it. All raise ApiException for a status other than 2xx, and HTTPError.
    """

    def __init__(self, api_client: client.ApiClient) -> None:
        self._client = api_client

    def get(self, *path: str) -> bytes:
        """An object, as JSON."""
        content: bytes = self._request("GET", path).data
        return content

    def create(self, *path: str, body: dict[str, Any]) -> None:
        """Create an object of the kind that the path ends with."""
        self._send("POST", path, body, "application/json")

    def patch(self, *path: str, body: dict[str, Any] | list[dict[str, Any]], how: str) -> None:
        """Patch an object. `how` is the content type of the patch."""
        self._send("PATCH", path, body, how)

    def list_all(self, kind: str, **options: Any) -> urllib3.HTTPResponse:
        """The unread answer to a list or a watch, with options as the client's list methods."""
        del options["_preload_content"]
        timeout = options.pop("_request_timeout")
        query = {to_camel(name.lstrip("_")): value for name, value in options.items()}
        return self._request("GET", (kind,), query=query, timeout=timeout)

    def _send(self, method: str, path: tuple[str, ...], body: object, content_type: str) -> None:
        # The connection can be used again once the answer is read.
        self._request(method, path, body, {"Content-Type": content_type}).read()

    def _request(
        self,
        method: str,
        path: tuple[str, ...],
        body: object = None,
        headers: dict[str, str] | None = None,
        *,
        query: dict[str, Any] | None = None,
        timeout: tuple[float, float] | None = None,
    ) -> urllib3.HTTPResponse:
        # In each call, because this refreshes the token.
        request = self._client.param_serialize(
            method,
            "/".join(("/api/v1", *(quote(segment, safe="") for segment in path))),
            query_params=query,
            header_params={"Accept": "application/json", **(headers or {})},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer: Any = self._client.call_api(*request, _request_timeout=timeout or CALL_TIMEOUT)
        if not 200 <= answer.status <= 299:
            answer.read()
            raise ApiException.from_response(http_resp=answer, body=None, data=None)
        response: urllib3.HTTPResponse = answer.response
        return response
