"""The client of the API server, and the agent's LocalModelNode there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from agent.cluster.kube_watch import CALL_TIMEOUT, KubeWatch, reason
from agent.cluster.node_api import ApiUnavailableError
from crds.base import API_VERSION, GROUP, VERSION

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from agent.cluster.kube_watch import KubeObject
    from agent.cluster.node_api import NodeObject

PLURAL = "localmodelnodes"
FIELD_MANAGER = "localmodel-agent"

_NOT_FOUND = 404
_CONFLICT = 409

log = structlog.get_logger(__name__)


class ConfigError(Exception):
    """No client for the API server can be made. The message says why, and what to do."""


class _CountingClient(client.ApiClient):
    """A client that calls `requested` with the status of each answer; None: no answer."""

    def __init__(
        self, settings: client.Configuration, requested: Callable[[int | None], None]
    ) -> None:
        super().__init__(settings)
        self._requested = requested

    def call_api(self, *args: Any, **options: Any) -> Any:
        try:
            answer = super().call_api(*args, **options)
        except Exception:
            self._requested(None)
            raise
        self._requested(answer.status)
        return answer


def connect(
    kubeconfig: Path | None,
    context: str | None = None,
    *,
    requested: Callable[[int | None], None] = lambda _code: None,
) -> client.ApiClient:
    """A client for the kubeconfig's cluster, or without a kubeconfig for the pod's own cluster.

    context: a context of the kubeconfig; None: its current context. requested: is called with the
    status of each answer, and with None for a request without an answer. Proxies and CA bundles of
    the environment are for the models' sources and are ignored; a kubeconfig may have its own
    proxy-url. Raises ConfigError.
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
    except Exception as error:  # noqa: BLE001 - its parsers raise errors of many types
        if kubeconfig is None:
            raise ConfigError(
                "not in a cluster, and no --kubeconfig: name a kubeconfig for the API server"
            ) from None
        raise ConfigError(f"cannot use the kubeconfig {kubeconfig}: {_detail(error)}") from None
    return _CountingClient(settings, requested)


def _detail(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if isinstance(error, ConfigException) else f"{type(error).__name__} in it"


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
