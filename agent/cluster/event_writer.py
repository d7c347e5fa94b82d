"""Writes Events of the node's LocalModelNode. See agent.cluster.events for the contract."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from localmodel.agent.cluster.kube_watch import CALL_TIMEOUT, reason
from localmodel.crds.base import API_VERSION, GROUP

if TYPE_CHECKING:
    from localmodel.agent.cluster.events import NodeEvent

CONTROLLER = f"localmodel.{GROUP}/agent"
# Where Events of objects go that have no namespace: kubectl looks there.
NAMESPACE = "default"
ACTION = "KeepModels"

QUEUE_EVENTS = 100
# The same event again within this time is counted in the first one.
SERIES_SECONDS = 600.0
# Of so many it is known that they were told.
MAX_SERIES = 1000
TRIES = 3
RETRY_SECONDS = 5.0

# What the API server takes.
_NOTE_BYTES = 1024
_INSTANCE_LENGTH = 128
_NODE_LENGTH = 230

_FORBIDDEN = 403
_NOT_FOUND = 404
_CONFLICT = 409
_THROTTLED = 429

_FORBIDDEN_MESSAGE = (
    "May not write Events: the ClusterRole localmodel-agent needs the verbs create and patch on "
    "events of events.k8s.io, see rbac.yaml in deploy/base"
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Told:
    """An event, and the uid of the LocalModelNode that it is about. at: nanoseconds since 1970."""

    event: NodeEvent
    uid: str
    at: int


@dataclass
class _Series:
    """An Event on the API server, and how often it has been told. seen: monotonic seconds."""

    name: str
    count: int
    seen: float


class EventWriter:
    """An EventSink that writes to the API server in a thread of its own.

    Events are told to people, and are no record: what cannot be written soon is dropped.
    """

    def __init__(self, node_name: str, api_client: client.ApiClient) -> None:
        self._node = node_name
        self._api = client.CustomObjectsApi(api_client)
        self._uid = ""
        self._queue: queue.Queue[_Told] = queue.Queue(QUEUE_EVENTS)
        # The one that was told longest ago is the first. At most MAX_SERIES.
        self._written: OrderedDict[tuple[NodeEvent, str], _Series] = OrderedDict()
        self._is_failing = False
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def about(self, uid: str) -> None:
        """Events are about the LocalModelNode with this uid from now on: kubectl looks for that."""
        self._uid = uid

    def tell(self, event: NodeEvent) -> None:
        """Write an event soon. It never raises, and never waits."""
        # A full queue means a server that does not answer: the event is dropped with the others.
        with suppress(queue.Full):
            self._queue.put_nowait(_Told(event, self._uid, time.time_ns()))

    def _run(self) -> None:
        while True:
            told = self._queue.get()
            try:
                self._write(told)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                self._drop(told, error)
            except Exception:
                log.exception("Event could not be made", eventReason=told.event.reason)
            else:
                self._is_failing = False

    def _drop(self, told: _Told, error: Exception) -> None:
        """Give up on this event, and on those that wait, where the server does not answer."""
        dropped = 1
        if _may_pass(error):
            with suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
                    dropped += 1
        if self._is_failing:
            return
        self._is_failing = True
        forbidden = isinstance(error, ApiException) and error.status == _FORBIDDEN
        log.warning(
            _FORBIDDEN_MESSAGE if forbidden else "Could not write Events",
            reason=reason(error),
            dropped=dropped,
            firstDropped=told.event.reason,
        )

    def _write(self, told: _Told) -> None:
        """Write it, with a few tries. Raises ApiException, HTTPError."""
        for _ in range(TRIES - 1):
            try:
                return self._write_once(told)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                if not _may_pass(error):
                    raise
            time.sleep(RETRY_SECONDS)
        return self._write_once(told)

    def _write_once(self, told: _Told) -> None:
        now = time.monotonic()
        while self._written and (
            len(self._written) >= MAX_SERIES or now - self._first().seen >= SERIES_SECONDS
        ):
            self._written.popitem(last=False)
        key = told.event, told.uid
        series = self._written.get(key)
        if series is None or not self._count(series, told.at, now):
            self._written[key] = _Series(self._create(told), 1, now)
        self._written.move_to_end(key)

    def _first(self) -> _Series:
        return next(iter(self._written.values()))

    def _create(self, told: _Told) -> str:
        """Write a new Event. Returns its name."""
        # The same on the next try, in case that the answer to this one gets lost.
        name = f"{self._node[:_NODE_LENGTH].rstrip('-.')}.{told.at:x}"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "eventTime": _micro_time(told.at),
            "reportingController": CONTROLLER,
            "reportingInstance": self._node[:_INSTANCE_LENGTH],
            "action": ACTION,
            "reason": told.event.reason,
            "type": "Warning" if told.event.warning else "Normal",
            "note": _cut(told.event.message),
            # Without a namespace, as the object is: kubectl looks for that too.
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": "LocalModelNode",
                "name": self._node,
                **({"uid": told.uid} if told.uid else {}),
            },
        }
        try:
            self._api.create_namespaced_custom_object(
                "events.k8s.io", "v1", NAMESPACE, "events", body, _request_timeout=CALL_TIMEOUT
            )
        except ApiException as error:
            if error.status != _CONFLICT:
                raise
        return name

    def _count(self, series: _Series, at: int, now: float) -> bool:
        """Count one more in an Event that is there, as client-go does. False: it is gone."""
        count = {"count": series.count + 1, "lastObservedTime": _micro_time(at)}
        try:
            self._api.patch_namespaced_custom_object(
                "events.k8s.io",
                "v1",
                NAMESPACE,
                "events",
                series.name,
                {"series": count},
                _content_type="application/merge-patch+json",
                _request_timeout=CALL_TIMEOUT,
            )
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return False
            raise
        series.count, series.seen = series.count + 1, now
        return True


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed soon: no answer, or one of a server in trouble.

    A server that has just started refuses everybody for a moment, until it has read the roles.
    """
    if not isinstance(error, ApiException):
        return True
    return not error.status or error.status >= 500 or error.status in {_FORBIDDEN, _THROTTLED}


def _micro_time(at: int) -> str:
    return datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= _NOTE_BYTES:
        return text
    return encoded[: _NOTE_BYTES - 3].decode(errors="ignore") + "..."
