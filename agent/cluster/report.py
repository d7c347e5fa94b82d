"""The agent's LocalModelNode on the API server, and the way to that server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from localmodel.agent.cluster.kube_watch import CALL_TIMEOUT, KubeWatch, reason
from localmodel.agent.cluster.node_api import ApiUnavailableError
from localmodel.crds.base import API_VERSION, GROUP, VERSION

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from localmodel.agent.cluster.kube_watch import KubeObject
    from localmodel.agent.cluster.node_api import NodeObject

PLURAL = "localmodelnodes"
FIELD_MANAGER = "localmodel-agent"

_NOT_FOUND = 404
_CONFLICT = 409

log = structlog.get_logger(__name__)


class ConfigError(Exception):
    """There is no usable way to the API server. The message says why, and what to do."""


def connect(kubeconfig: Path | None, context: str | None = None) -> client.ApiClient:
    """A client for the kubeconfig's cluster, or, without one, for the cluster around this pod.

    context: one of the kubeconfig's, other than its current one.
    Proxies and CA bundles of the environment are meant for the models' sources: the way to the API
    server is the kubeconfig's alone (it may name a proxy-url). Raises ConfigError.
    """
    settings = client.Configuration()
    untyped: Any = config
    settings.proxy = None
    settings.retries = False
    settings.keep_alive = True
    try:
        if kubeconfig is not None:
            untyped.load_kube_config(
                str(kubeconfig),
                context=context,
                client_configuration=settings,
                persist_config=False,
            )
        else:
            untyped.load_incluster_config(settings)
    except Exception as error:  # noqa: BLE001 - it lets through what its many parsers raise
        if kubeconfig is None:
            raise ConfigError(
                "not in a cluster, and no --kubeconfig given: name the file that leads to the API "
                "server"
            ) from None
        raise ConfigError(f"cannot use the kubeconfig {kubeconfig}: {_words(error)}") from None
    return client.ApiClient(settings)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if isinstance(error, ConfigException) else f"{type(error).__name__} in it"


class NodeReport:
    """Access to one LocalModelNode. See agent.cluster.node_api.NodeApi for the contract."""

    def __init__(self, node_name: str, api_client: client.ApiClient) -> None:
        self._name = node_name
        self._api = client.CustomObjectsApi(api_client)

    def read(self) -> NodeObject | None:
        """The object as it is now; None if it surely does not exist."""
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
        """Server-side apply of the whole status.

        With the version, because the status is that of one spec: a uid in it is not looked at, and
        the status would land on a new object of the same name.
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
        """Tell the object now and after each change, until stopped."""
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
            # The kind itself is gone, and every object with it.
            self._observe(None)
        log.warning("Watch of the LocalModelNode broke", reason=reason(error))


def _says_absent(error: ApiException) -> bool:
    return bool(error.status == _NOT_FOUND)


def _unavailable(error: Exception) -> ApiUnavailableError:
    return ApiUnavailableError(reason(error))
