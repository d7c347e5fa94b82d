"""Secrets, ServiceAccounts and ConfigMaps of the API server. See agent.credentials.secret_api."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, Protocol

import urllib3
from kubernetes.client.exceptions import ApiException

from agent.credentials.secret_api import Secret, ServiceAccount
from agent.credentials.settings import denied
from agent.structs.causes import root_cause
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Mapping

# The name of a namespace or an object: with `..` as a name, the client would read another path.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NOT_FOUND = 404
_FORBIDDEN = 403


class CoreReader(Protocol):
    """Reads objects of the core API: see agent.cluster.core_api."""

    def get(self, *path: str) -> bytes:
        """An object, as JSON. Raises ApiException, HTTPError."""
        ...


class SecretReader:
    """Reads objects by name, as far as the Role of the agent's ServiceAccount permits."""

    def __init__(self, api: CoreReader) -> None:
        self._api = api

    def secret(self, namespace: str, name: str) -> Secret:
        """A secret. Raises DownloadError."""
        found = self._read("secret", namespace, name)
        return Secret(namespace, name, _decoded(found.get("data")), _annotations(found))

    def service_account(self, namespace: str, name: str) -> ServiceAccount:
        """A ServiceAccount. Raises DownloadError."""
        found = self._read("ServiceAccount", namespace, name)
        names = tuple(str(item["name"]) for item in found.get("secrets") or () if item.get("name"))
        return ServiceAccount(namespace, name, names, _annotations(found))

    def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        """The texts of a ConfigMap. Raises DownloadError."""
        found = self._read("ConfigMap", namespace, name)
        return dict(found.get("data") or {})

    def _read(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        where = f"{kind} {namespace}/{name}"
        if not _NAME.fullmatch(name):
            raise denied(
                f"{name[:80]!r} can be no name of a {kind}", "correct it in the cache that names it"
            )
        try:
            found = json.loads(self._api.get("namespaces", namespace, f"{kind.lower()}s", name))
        except ApiException as error:
            raise _failure(error, kind, where) from None
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(where, root_cause(error)) from None
        except ValueError:
            raise _unreachable(where, "its answer is not JSON") from None
        if not isinstance(found, dict):
            raise _unreachable(where, "its answer is no object")
        return found


def _failure(error: ApiException, kind: str, where: str) -> DownloadError:
    if error.status == _NOT_FOUND:
        return denied(
            f"there is no {where}",
            "create it there (the agent's --credentials-namespace), or name another in the cache",
        )
    if error.status == _FORBIDDEN:
        return denied(
            f"the agent may not read the {where}",
            f"its ServiceAccount needs a Role in that namespace with the verb get on {kind.lower()}"
            "s, and a RoleBinding to it: see rbac.yaml in deploy/base",
        )
    return _unreachable(where, f"{error.status} {error.reason}".strip())


def _unreachable(where: str, reason: str) -> DownloadError:
    return DownloadError(
        FailureKind.UNREACHABLE,
        f"the API server does not tell the agent the {where} ({reason}): it is tried again by "
        "itself",
    )


def _decoded(data: Mapping[str, str] | None) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (data or {}).items()}


def _annotations(found: dict[str, Any]) -> dict[str, str]:
    return dict((found.get("metadata") or {}).get("annotations") or {})
