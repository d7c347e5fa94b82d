"""What the API server serves, refreshed every now and then."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests

from deploy.local.kubeapi import ApiError, KubeApi, Resource
from deploy.local.standin.errors import NotServedError

if TYPE_CHECKING:
    from collections.abc import Iterable

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedResource(Resource):
    """A kind, and whether its status is a subresource."""

    has_status: bool


class Discovery:
    """Knows the kinds of every group version that was asked for once.

    Like the real one it answers from its last look, so a kind that came or went is noticed at
    the next refresh.
    """

    def __init__(self, api: KubeApi, interval: float) -> None:
        self._api = api
        self._interval = interval
        self._lock = threading.Lock()
        self._served: dict[str, list[ServedResource]] = {}

    def resource(self, api_version: str, plural: str) -> ServedResource:
        """The kind with this plural. Raises NotServedError."""
        for served in self._in(api_version):
            if served.plural == plural:
                return served
        raise NotServedError(f"discovery: can't find resource {plural} in apiVersion {api_version}")

    def kind(self, api_version: str, kind: str) -> ServedResource:
        """The resource of a kind. Raises NotServedError."""
        for served in self._in(api_version):
            if served.kind == kind:
                return served
        raise NotServedError(f"discovery: can't find kind {kind} in apiVersion {api_version}")

    def run(self, stop: threading.Event) -> None:
        """Refresh until told to stop."""
        while not stop.wait(self._interval):
            with self._lock:
                known = list(self._served)
            for api_version in known:
                try:
                    self._refresh(api_version)
                except (ApiError, requests.RequestException) as error:
                    LOG.debug("discovery of %s: %s", api_version, error)

    def _in(self, api_version: str) -> Iterable[ServedResource]:
        with self._lock:
            served = self._served.get(api_version)
        return self._refresh(api_version) if served is None else served

    def _refresh(self, api_version: str) -> list[ServedResource]:
        root = "/apis/" if "/" in api_version else "/api/"
        try:
            found = self._api.request("GET", root + api_version)["resources"]
        except ApiError as error:
            if error.status != requests.codes.not_found:
                raise
            found = []
        names = {entry["name"] for entry in found}
        served = [
            ServedResource(
                api_version,
                entry["name"],
                entry["kind"],
                entry["namespaced"],
                has_status=f"{entry['name']}/status" in names,
            )
            for entry in found
            if "/" not in entry["name"]
        ]
        with self._lock:
            self._served[api_version] = served
        return served
