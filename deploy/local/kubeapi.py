"""A small client of the Kubernetes API for the local cluster's own tools and tests.

Objects are plain dicts, as JSON has them. It reads the kubeconfig files that the local cluster
writes (server, certificate authority, bearer token), and nothing more general.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import requests
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Object = dict[str, Any]

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0


class ApiError(Exception):
    """An answer of the API server with a status of 400 or above."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Resource:
    """One kind as the API server serves it."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of a collection, an object or a subresource."""
        root = "api" if "/" not in self.api_version else "apis"
        parts = [root, self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


class KubeApi:
    """Calls an API server as one user. Safe to share between threads."""

    def __init__(self, server: str, token: str, ca_file: str) -> None:
        self.server = server.rstrip("/")
        self._session = requests.Session()
        # A proxy or a CA bundle of the environment must not get between two loopback ports.
        self._session.trust_env = False
        self._session.verify = ca_file
        self._session.headers["Authorization"] = f"Bearer {token}"
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=64)
        self._session.mount("https://", adapter)
        self.discover = cache(self._discover)

    @classmethod
    def from_kubeconfig(cls, path: Path) -> KubeApi:
        """Client for the only cluster and user of a kubeconfig file."""
        config = yaml.safe_load(path.read_text())
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        return cls(cluster["server"], user["token"], cluster["certificate-authority"])

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """JSON answer to one call. Raises ApiError, or a requests exception if unreachable."""
        response = self._session.request(
            method,
            self.server + path,
            data=None if body is None else json.dumps(body),
            params=params,
            headers={"Content-Type": content_type},
            timeout=(CONNECT_SECONDS, READ_SECONDS),
        )
        if response.status_code >= 400:
            raise _error(response)
        if "json" not in response.headers.get("Content-Type", ""):
            return response.text
        return response.json()

    def _discover(self, api_version: str) -> dict[str, Resource]:
        root = "/api/" if "/" not in api_version else "/apis/"
        found = self.request("GET", root + api_version)["resources"]
        return {
            r["name"]: Resource(api_version, r["name"], r["kind"], r["namespaced"])
            for r in found
            if "/" not in r["name"]
        }

    def resource(self, api_version: str, plural: str) -> Resource:
        """The kind with this plural. Raises ApiError (404) when it is not served."""
        resources = self.discover(api_version)
        if plural not in resources:
            self.discover.cache_clear()
            resources = self.discover(api_version)
        if plural not in resources:
            raise ApiError(404, "NotFound", f"{api_version} has no resource {plural}")
        return resources[plural]

    def of_kind(self, api_version: str, kind: str) -> Resource:
        """The resource that serves a kind. Raises ApiError (404) when there is none."""
        for attempt in range(2):
            for resource in self.discover(api_version).values():
                if resource.kind == kind:
                    return resource
            if attempt == 0:
                self.discover.cache_clear()
        raise ApiError(404, "NotFound", f"{api_version} has no kind {kind}")

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """One object. Raises ApiError (404) when there is none."""
        return self.request("GET", resource.path(namespace, name))  # type: ignore[no-any-return]

    def list(self, resource: Resource, namespace: str = "", **params: str) -> Object:
        """A list object: `items`, and `metadata.resourceVersion` to watch from."""
        return self.request(  # type: ignore[no-any-return]
            "GET", resource.path(namespace), params=params
        )

    def apply(self, obj: Object, *, manager: str, subresource: str = "") -> Object:
        """Server-side apply with force. Returns the object as stored."""
        resource = self.of_kind(obj["apiVersion"], obj["kind"])
        metadata = obj["metadata"]
        return self.request(  # type: ignore[no-any-return]
            "PATCH",
            resource.path(metadata.get("namespace", ""), metadata["name"], subresource),
            body=obj,
            params={"fieldManager": manager, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    def watch(
        self, resource: Resource, resource_version: str, *, timeout_seconds: int = 300
    ) -> Iterator[Object]:
        """Events (`type`, `object`) after a version, until the server ends the watch."""
        with self._session.get(
            self.server + resource.path(),
            params={
                "watch": "true",
                "resourceVersion": resource_version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(timeout_seconds),
            },
            stream=True,
            timeout=(CONNECT_SECONDS, timeout_seconds + READ_SECONDS),
        ) as response:
            if response.status_code >= 400:
                raise _error(response)
            for line in response.iter_lines(chunk_size=None):
                if line:
                    yield json.loads(line)


def _error(response: requests.Response) -> ApiError:
    try:
        status = response.json()
        return ApiError(response.status_code, status.get("reason", ""), status.get("message", ""))
    except (ValueError, AttributeError):
        return ApiError(response.status_code, "", response.text[:500])
