"""The client of the API server. Programs that only need this client load little else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
