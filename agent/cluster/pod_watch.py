"""The watch of the node's own pods."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from localmodel.agent.cluster.kube_watch import KubeWatch, reason
from localmodel.agent.cluster.node_api import ApiUnavailableError
from localmodel.agent.cluster.pods import parse_pod

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from localmodel.agent.cluster.kube_watch import KubeObject
    from localmodel.agent.cluster.pods import PodMounts

    Observe = Callable[[tuple[PodMounts, ...] | None], None]

# How long what the watch told last is believed, while it is broken.
BELIEVED_SECONDS = 60.0
# An API server that has just started refuses everybody, until it has read the roles.
REFUSED_SECONDS = 8.0

_FORBIDDEN = 403

log = structlog.get_logger(__name__)


class PodWatch:
    """Tells which pods of a node mount what."""

    def __init__(self, node_name: str, api_client: client.ApiClient) -> None:
        call = client.CoreV1Api(api_client).list_pod_for_all_namespaces
        self._watch = KubeWatch(call, f"spec.nodeName={node_name}")

    def watch(self, observe: Observe, stopped: threading.Event) -> None:
        """Call `observe` with all pods that may use a model, after each change of what they mount.

        With None when that is not known any more: the agent has no right to see pods, or the watch
        has been silent and broken for a minute. It never gives up, and raises nothing. A pod that
        ends is told as one that is gone.
        """
        self._watch.run(_PodListener(observe), stopped)

    def read(self) -> tuple[PodMounts, ...] | None:
        """All pods that may use a model, as they are now; None without the right to see pods.

        Raises ApiUnavailableError.
        """
        try:
            found = self._watch.look()
        except ApiException as error:
            if error.status == _FORBIDDEN:
                return None
            raise ApiUnavailableError(reason(error)) from None
        except urllib3.exceptions.HTTPError as error:
            raise ApiUnavailableError(reason(error)) from None
        return _sorted(mounts for mounts in map(parse_pod, found) if mounts is not None)


class _PodListener:
    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        # By uid: the node's pods, of which each list tells all.
        self._pods: dict[str, PodMounts] = {}
        self._told: tuple[PodMounts, ...] | None = None
        self._has_told = False
        # Since when the API server has refused us (monotonic seconds), and whether we said so.
        self._refused_at: float | None = None
        self._has_warned = False

    def listed(self, found: list[KubeObject]) -> None:
        self._pods = {}
        for pod in found:
            self._take(pod)
        self._tell(self._known())

    def changed(self, change: str, found: KubeObject) -> None:
        self._refused_at, self._has_warned = None, False
        if change == "DELETED":
            self._pods.pop(found["metadata"]["uid"], None)
        else:
            self._take(found)
        self._tell(self._known())

    def broke(self, error: Exception, silent: float) -> None:
        if isinstance(error, ApiException) and error.status == _FORBIDDEN:
            self._tell(None)
            self._warn_of_refusal()
            return
        log.warning("Watch of the pods broke", reason=reason(error), silentSeconds=round(silent))
        self._refused_at = None
        if silent > BELIEVED_SECONDS:
            self._tell(None)

    def _warn_of_refusal(self) -> None:
        now = time.monotonic()
        if self._refused_at is None:
            self._refused_at = now
        if now - self._refused_at < REFUSED_SECONDS or self._has_warned:
            return
        self._has_warned = True
        log.warning(
            "May not see the pods of the node: the ClusterRole localmodel-agent needs the verbs "
            "list and watch on pods, see rbac.yaml in deploy/base"
        )

    def _take(self, pod: KubeObject) -> None:
        uid = pod["metadata"]["uid"]
        mounts = parse_pod(pod)
        if mounts is None:
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = mounts

    def _known(self) -> tuple[PodMounts, ...]:
        return _sorted(self._pods.values())

    def _tell(self, pods: tuple[PodMounts, ...] | None) -> None:
        if self._has_told and pods == self._told:
            return
        self._observe(pods)
        self._has_told, self._told = True, pods


def _sorted(pods: Iterable[PodMounts]) -> tuple[PodMounts, ...]:
    return tuple(sorted(pods, key=lambda pod: (pod.namespace, pod.name)))
