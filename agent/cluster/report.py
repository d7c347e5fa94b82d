"""The agent's LocalModelNode on the API server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from agent.cluster.kube_watch import CALL_TIMEOUT, KubeWatch, reason
from agent.cluster.node_api import ApiUnavailableError
from agent.structs.log import log
from crds.base import API_VERSION, GROUP, VERSION

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from agent.cluster.kube_watch import KubeObject
    from agent.cluster.node_api import NodeObject

PLURAL = "localmodelnodes"
FIELD_MANAGER = "localmodel-agent"

_NOT_FOUND = 404
_CONFLICT = 409


class NodeReport:
    """The NodeApi (agent.cluster.node_api) of one LocalModelNode on the API server."""

    def __init__(self, node_name: str, api_client: client.ApiClient) -> None:
        self._name = node_name
        self._api = client.CustomObjectsApi(api_client)

    def read(self) -> NodeObject | None:
        """The object as it is now; None if the API server says that it does not exist."""
        try:
            found: Any = self._api.get_cluster_custom_object(
                GROUP, VERSION, PLURAL, self._name, _request_timeout=CALL_TIMEOUT
            )
        except ApiException as error:
            if _says_absent(error):
                return None
            raise _unavailable(error) from None
        except urllib3.exceptions.HTTPError as error:
            raise _unavailable(error) from None
        return cast("NodeObject", found)

    def write_status(self, version: str, status: dict[str, Any]) -> NodeObject | None:
        """Replace the whole status by server-side apply.

        The request carries the resourceVersion, because the status belongs to one spec. Server-side
        apply ignores a uid, so without the version the status could be written to a new object of
        the same name.
        """
        body = {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNode",
            "metadata": {"name": self._name, "resourceVersion": version},
            "status": status,
        }
        try:
            stored: Any = self._api.patch_cluster_custom_object_status(
                GROUP,
                VERSION,
                PLURAL,
                self._name,
                body,
                field_manager=FIELD_MANAGER,
                force=True,
                _content_type="application/apply-patch+yaml",
                _request_timeout=CALL_TIMEOUT,
            )
        except ApiException as error:
            if error.status in {_NOT_FOUND, _CONFLICT}:
                return None
            raise _unavailable(error) from None
        except urllib3.exceptions.HTTPError as error:
            raise _unavailable(error) from None
        return cast("NodeObject", stored)

    def watch(self, observe: Callable[[NodeObject | None], None], stopped: threading.Event) -> None:
        """Call `observe` with the object now and after each change, until stopped."""
        call = partial(self._api.list_cluster_custom_object, GROUP, VERSION, PLURAL)
        KubeWatch(call, f"metadata.name={self._name}").run(_NodeListener(observe), stopped)


class _NodeListener:
    def __init__(self, observe: Callable[[NodeObject | None], None]) -> None:
        self._observe = observe

    def listed(self, found: list[KubeObject]) -> None:
        self._observe(found[0] if found else None)

    def changed(self, change: str, found: KubeObject) -> None:
        self._observe(None if change == "DELETED" else found)

    def broke(self, error: Exception, _silent: float) -> None:
        if isinstance(error, ApiException) and _says_absent(error):
            # The CRD was deleted, and every object with it.
            self._observe(None)
        log.warning("Watch of the LocalModelNode broke", reason=reason(error))


def _says_absent(error: ApiException) -> bool:
    return bool(error.status == _NOT_FOUND)


def _unavailable(error: Exception) -> ApiUnavailableError:
    return ApiUnavailableError(reason(error))
