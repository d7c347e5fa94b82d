"""Writes Events about one object of the node: the EventSink of agent.cluster.events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from agent.cluster.event_series import EventSeries
from agent.cluster.kube_watch import CALL_TIMEOUT
from agent.cluster.outbox import Outbox
from crds.base import API_VERSION, GROUP

if TYPE_CHECKING:
    from agent.cluster.events import NodeEvent

CONTROLLER = f"localmodel.{GROUP}/agent"
# The namespace of Events about cluster-scoped objects, in which kubectl lists them.
NAMESPACE = "default"
ACTION = "KeepModels"

# API version and kind of what Events are about. The object has the node's name.
LOCAL_MODEL_NODE = (API_VERSION, "LocalModelNode")
NODE = ("v1", "Node")

# Limits of the API server.
_NOTE_BYTES = 1024
_INSTANCE_LENGTH = 128
_NODE_LENGTH = 230

_NOT_FOUND = 404
_CONFLICT = 409

_FORBIDDEN_MESSAGE = (
    "May not write Events: the ClusterRole localmodel-agent needs the verbs create and patch on "
    "events of events.k8s.io, see rbac.yaml in deploy/base"
)


@dataclass(frozen=True)
class _Queued:
    """An event, and the uid of the object that it is about. at: nanoseconds since 1970."""

    event: NodeEvent
    uid: str
    at: int

    def __str__(self) -> str:
        return self.event.reason


class EventWriter:
    """An EventSink that writes to the API server, in a thread.

    Events are for people and are no record: an event that cannot be written soon is dropped.
    """

    def __init__(
        self,
        node_name: str,
        api_client: client.ApiClient,
        regarding: tuple[str, str] = LOCAL_MODEL_NODE,
    ) -> None:
        self._node = node_name
        self._regarding = regarding
        self._api = client.CustomObjectsApi(api_client)
        self._uid = ""
        self._series: EventSeries[tuple[NodeEvent, str]] = EventSeries()
        self._outbox = Outbox(
            "events", self._write, forbidden=_FORBIDDEN_MESSAGE, failed="Could not write Events"
        )

    def about(self, uid: str) -> None:
        """Set the uid of the object in later Events, by which kubectl finds them."""
        self._uid = uid

    def tell(self, event: NodeEvent) -> None:
        """Queue an event for writing. Never raises, and never waits."""
        self._outbox.put(_Queued(event, self._uid, time.time_ns()))

    def _write(self, queued: _Queued) -> None:
        self._series.write(
            (queued.event, queued.uid),
            lambda: self._create(queued),
            lambda name, count: self._count(name, count, queued.at),
        )

    def _create(self, queued: _Queued) -> str:
        """Create an Event. Returns its name."""
        # The name is the same on each try: the response to a successful try may be lost.
        name = f"{self._node[:_NODE_LENGTH].rstrip('-.')}.{queued.at:x}"
        api_version, kind = self._regarding
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "eventTime": _micro_time(queued.at),
            "reportingController": CONTROLLER,
            "reportingInstance": self._node[:_INSTANCE_LENGTH],
            "action": ACTION,
            "reason": queued.event.reason,
            "type": "Warning" if queued.event.warning else "Normal",
            "note": cut_note(queued.event.message),
            # No namespace, as the object is cluster-scoped: kubectl filters by that too.
            "regarding": {
                "apiVersion": api_version,
                "kind": kind,
                "name": self._node,
                **({"uid": queued.uid} if queued.uid else {}),
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

    def _count(self, name: str, count: int, at: int) -> bool:
        """Raise the count of an Event, as client-go does. False: the Event does not exist."""
        series = {"count": count, "lastObservedTime": _micro_time(at)}
        try:
            self._api.patch_namespaced_custom_object(
                "events.k8s.io",
                "v1",
                NAMESPACE,
                "events",
                name,
                {"series": series},
                _content_type="application/merge-patch+json",
                _request_timeout=CALL_TIMEOUT,
            )
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return False
            raise
        return True


def _micro_time(at: int) -> str:
    return datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def cut_note(text: str) -> str:
    """The text, cut to what the API server takes of an Event's note."""
    encoded = text.encode()
    if len(encoded) <= _NOTE_BYTES:
        return text
    return encoded[: _NOTE_BYTES - 3].decode(errors="ignore") + "..."
