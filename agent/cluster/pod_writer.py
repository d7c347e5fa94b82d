"""Writes about the node's waiting pods: their Events, and the annotation that a model is cached."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kubernetes.client.exceptions import ApiException

from agent.cluster.core_api import MERGE_PATCH, CoreApi
from agent.cluster.event_series import EventSeries
from agent.cluster.event_writer import CONTROLLER, cut_note
from agent.cluster.outbox import Outbox
from crds.naming import CACHED_AT_ANNOTATION

if TYPE_CHECKING:
    from kubernetes import client

    from agent.cluster.events import PodEvent
    from agent.cluster.pod_mounts import PodUse

# Limits of the API server, with room for a time.
_NAME_LENGTH = 230
_INSTANCE_LENGTH = 128

_NOT_FOUND = 404
_CONFLICT = 409
# The pod is gone, or is another one of the same name.
_GONE = {_NOT_FOUND, _CONFLICT, 410}

_MAY_NOT_WRITE = (
    "May not write Events of pods: the ClusterRole localmodel-agent needs the verbs create and "
    "patch on events of the core group, see rbac.yaml in deploy/base"
)
_MAY_NOT_ANNOTATE = (
    "May not annotate pods: the ClusterRole localmodel-agent needs the verb patch on pods, see "
    "rbac.yaml in deploy/base. Waiting pods then start up to a quarter of a minute later"
)


@dataclass(frozen=True)
class _Queued:
    """An Event to write. at: seconds since 1970."""

    event: PodEvent
    at: float

    def __str__(self) -> str:
        pod = self.event.pod
        return f"{self.event.reason} of {pod.namespace}/{pod.name}"


@dataclass(frozen=True)
class _Cached:
    """A pod to annotate, and when its model was published. at: seconds since 1970."""

    pod: PodUse
    at: float

    def __str__(self) -> str:
        return f"{self.pod.namespace}/{self.pod.name}"


class PodWriter:
    """A PodSink (agent.cluster.events) that writes to the API server, in two threads.

    An Event that goes on is one object of the core group, whose message changes: those of
    events.k8s.io keep their first one. What cannot be written soon is dropped: kubelet tries to
    start a waiting container again by itself, and Events are for people.
    """

    def __init__(self, node_name: str, api_client: client.ApiClient) -> None:
        self._node = node_name
        self._api = CoreApi(api_client)
        # By the uid of the pod, and the series of its event.
        self._series: EventSeries[tuple[str, str]] = EventSeries()
        self._events = Outbox(
            "pod-events",
            self._write_event,
            forbidden=_MAY_NOT_WRITE,
            failed="Could not write Events of pods",
        )
        self._annotations = Outbox(
            "pod-annotations",
            self._annotate,
            forbidden=_MAY_NOT_ANNOTATE,
            failed="Could not annotate pods",
        )

    def tell(self, event: PodEvent) -> None:
        """Queue an Event for writing. Never raises, and never waits."""
        self._events.put(_Queued(event, time.time()))

    def cached(self, pod: PodUse) -> None:
        """Queue the annotation of a pod whose model is cached. Never raises, and never waits."""
        self._annotations.put(_Cached(pod, time.time()))

    def _annotate(self, cached: _Cached) -> None:
        pod = cached.pod
        # With another uid the API server answers 409.
        uid = {"uid": pod.uid} if pod.uid else {}
        body = {"metadata": {**uid, "annotations": {CACHED_AT_ANNOTATION: _time(cached.at)}}}
        try:
            # Kubelet sees a change of the pod, and tries at once to start its containers.
            path = ("namespaces", pod.namespace, "pods", pod.name)
            self._api.patch(*path, body=body, how=MERGE_PATCH)
        except ApiException as error:
            if error.status not in _GONE:
                raise

    def _write_event(self, queued: _Queued) -> None:
        self._series.write(
            (queued.event.pod.uid, queued.event.series),
            lambda: self._create(queued),
            lambda name, count: self._update(name, count, queued),
        )

    def _create(self, queued: _Queued) -> str:
        """Create an Event. Returns its name."""
        event, pod, at = queued.event, queued.event.pod, _time(queued.at)
        # The name is the same on each try: the response to a successful try may be lost.
        name = f"{pod.name[:_NAME_LENGTH].rstrip('-.')}.{int(queued.at * 1e9):x}"
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name}
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": pod.namespace},
            "involvedObject": involved | ({"uid": pod.uid} if pod.uid else {}),
            "reason": event.reason,
            "message": cut_note(event.message),
            "type": "Warning" if event.warning else "Normal",
            "source": {"component": CONTROLLER, "host": self._node},
            "reportingComponent": CONTROLLER,
            "reportingInstance": self._node[:_INSTANCE_LENGTH],
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            self._api.create("namespaces", pod.namespace, "events", body=body)
        except ApiException as error:
            if error.status not in _GONE and not _is_ending(error):
                raise
        return name

    def _update(self, name: str, count: int, queued: _Queued) -> bool:
        """Write the present message into an Event. False: the Event does not exist."""
        body = {
            "count": count,
            "lastTimestamp": _time(queued.at),
            "message": cut_note(queued.event.message),
        }
        path = ("namespaces", queued.event.pod.namespace, "events", name)
        try:
            self._api.patch(*path, body=body, how=MERGE_PATCH)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return False
            raise
        return True


def _is_ending(error: ApiException) -> bool:
    """Whether the pod's namespace is being deleted, which the API server answers by 403."""
    return "NamespaceTerminating" in str(error.body)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
