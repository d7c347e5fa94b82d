"""Calls to the API server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, cast

import urllib3

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from localmodel.takeover.kinds import Kind, KubeObject, Ref

CALL_TIMEOUT = (5.0, 30.0)
PAGE_OBJECTS = 500
_NOT_FOUND = 404
# Too many requests, or a kind whose CRD was changed a moment ago.
_LATER = 429
TRIES = 5
LATER_SECONDS = 1.0

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


class ApiError(Exception):
    """The API server refused a call, or did not answer. The message says what and why.

    status: the HTTP status; 0 without an answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Objects as JSON, by kind and name."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def find(self, ref: Ref) -> KubeObject | None:
        """An object, or None where it or its kind is not there. Raises ApiError."""
        try:
            return self._call("GET", ref.kind.path(ref.name, ref.namespace), f"reading {ref}")
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def list(self, kind: Kind, namespace: str = "", labels: str = "") -> tuple[KubeObject, ...]:
        """All objects of a kind; none where the cluster does not know it. Raises ApiError."""
        found: list[KubeObject] = []
        query = {"limit": str(PAGE_OBJECTS), "labelSelector": labels, "continue": ""}
        where = f" in {namespace}" if namespace else ""
        while True:
            try:
                page = self._call(
                    "GET",
                    kind.path(namespace=namespace),
                    f"listing {kind.plural}{where}",
                    query={key: value for key, value in query.items() if value},
                )
            except ApiError as error:
                if error.status == _NOT_FOUND:
                    return ()
                raise
            found += page.get("items") or ()
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return tuple(found)

    def serves(self, kind: Kind) -> bool:
        """Whether the cluster has a kind. Raises ApiError."""
        group = self._call("GET", kind.root, f"looking for {kind.plural}")
        return any(resource["name"] == kind.plural for resource in group["resources"])

    def patch(self, ref: Ref, body: Any, content_type: str) -> None:
        """Change an object. Raises ApiError."""
        path = ref.kind.path(ref.name, ref.namespace)
        self._call("PATCH", path, f"changing {ref}", body=body, content_type=content_type)

    def delete(self, ref: Ref, uid: str, *, foreground: bool) -> None:
        """Delete an object if it is the one with this uid. Raises ApiError.

        foreground: it stays until what it owns is gone.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Foreground" if foreground else "Background",
        }
        path = ref.kind.path(ref.name, ref.namespace)
        self._call("DELETE", path, f"deleting {ref}", body=body)

    def _call(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> KubeObject:
        request = self._client.param_serialize(
            method=method,
            resource_path=path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        for attempt in range(1, TRIES + 1):
            try:
                answer: Any = self._client.call_api(*request, _request_timeout=CALL_TIMEOUT)
                content = _parsed(answer.read())
            except urllib3.exceptions.HTTPError as error:
                raise ApiError(0, f"{doing}: the API server does not answer: {error}") from None
            if answer.status < 400:
                return content
            if answer.status != _LATER or attempt == TRIES:
                break
            time.sleep(LATER_SECONDS)
        raise ApiError(answer.status, f"{doing}: {content.get('message') or answer.reason}")


def _parsed(text: bytes) -> KubeObject:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return cast("KubeObject", found) if isinstance(found, dict) else {}
