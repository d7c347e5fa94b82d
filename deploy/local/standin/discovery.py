"""The kinds that the API server serves, refreshed periodically."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from deploy.kube.errors import ApiError, NotFoundError
from deploy.local.standin.errors import NotServedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import Kind

LOG = logging.getLogger(__name__)


class Discovery:
    """The kinds of every group version that a caller requested.

    As in Metacontroller, a new or deleted kind is noticed at the next refresh.
    """

    def __init__(self, api: KubeClient, interval: float) -> None:
        self._api = api
        self._interval = interval
        self._lock = threading.Lock()
        self._served: dict[str, tuple[Kind, ...]] = {}

    def resource(self, api_version: str, plural: str) -> Kind:
        """The kind with this plural. Raises NotServedError."""
        for served in self._in(api_version):
            if served.plural == plural:
                return served
        raise NotServedError(f"discovery: can't find resource {plural} in apiVersion {api_version}")

    def kind(self, api_version: str, kind: str) -> Kind:
        """The kind with this name. Raises NotServedError."""
        for served in self._in(api_version):
            if served.name == kind:
                return served
        raise NotServedError(f"discovery: can't find kind {kind} in apiVersion {api_version}")

    def run(self, stop: threading.Event) -> None:
        """Refresh all group versions until `stop` is set."""
        while not stop.wait(self._interval):
            with self._lock:
                known = list(self._served)
            for api_version in known:
                try:
                    self._refresh(api_version)
                except ApiError as error:
                    LOG.debug("discovery of %s: %s", api_version, error)

    def _in(self, api_version: str) -> Iterable[Kind]:
        with self._lock:
            served = self._served.get(api_version)
        return self._refresh(api_version) if served is None else served

    def _refresh(self, api_version: str) -> tuple[Kind, ...]:
        try:
            served = self._api.kinds(api_version)
        except NotFoundError:
            served = ()
        with self._lock:
            self._served[api_version] = served
        return served
