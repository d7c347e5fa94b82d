"""The watch of the node's own pods."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import urllib3
from kubernetes.client.exceptions import ApiException

from agent.cluster.core_api import CoreApi
from agent.cluster.kube_watch import KubeWatch, reason
from agent.cluster.node_api import ApiUnavailableError
from agent.cluster.pod_mounts import parse_pod
from agent.structs.log import log

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from kubernetes import client

    from agent.cluster.kube_watch import KubeObject
    from agent.cluster.pod_mounts import PodMounts

    Observe = Callable[[tuple[PodMounts, ...] | None], None]

# How long the last observed pods count while the watch is broken.
TRUSTED_SECONDS = 60.0
# An API server that has just started answers 403 to all requests until it has loaded the roles.
REFUSED_SECONDS = 8.0

_FORBIDDEN = 403


class PodWatch:
    """Observes which claims and models the pods of a node mount."""

    def __init__(self, node_name: str, api_client: client.ApiClient) -> None:
        call = partial(CoreApi(api_client).list_all, "pods")
        self._watch = KubeWatch(call, f"spec.nodeName={node_name}")

    def watch(self, observe: Observe, stopped: threading.Event) -> None:
        """Call `observe` with all pods that may use a model, after each change of what they mount.

        `observe` gets None when the pods are not known: the agent has no permission to list pods,
        or the watch has been broken and silent for TRUSTED_SECONDS. Retries after every error, and
        raises nothing. A pod that has ended counts as deleted.
        """
        self._watch.run(_PodListener(observe), stopped)

    def read(self) -> tuple[PodMounts, ...] | None:
        """All pods that may use a model now; None without the permission to list pods.

        Raises ApiUnavailableError.
        """
        try:
            found = self._watch.list_now()
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
        # By uid: the node's pods. Each list has all of them.
        self._pods: dict[str, PodMounts] = {}
        self._reported: tuple[PodMounts, ...] | None = None
        self._has_reported = False
        # Since when the API server answers 403 (monotonic seconds), and whether that was logged.
        self._refused_at: float | None = None
        self._has_warned = False

    def listed(self, found: list[KubeObject]) -> None:
        self._pods = {}
        for pod in found:
            self._store(pod)
        self._report(self._sorted_pods())

    def changed(self, change: str, found: KubeObject) -> None:
        self._refused_at, self._has_warned = None, False
        if change == "DELETED":
            self._pods.pop(found["metadata"]["uid"], None)
        else:
            self._store(found)
        self._report(self._sorted_pods())

    def broke(self, error: Exception, silent: float) -> None:
        if isinstance(error, ApiException) and error.status == _FORBIDDEN:
            self._report(None)
            self._warn_of_refusal()
            return
        log.warning("Watch of the pods broke", reason=reason(error), silentSeconds=round(silent))
        self._refused_at = None
        if silent > TRUSTED_SECONDS:
            self._report(None)

    def _warn_of_refusal(self) -> None:
        now = time.monotonic()
        if self._refused_at is None:
            self._refused_at = now
        if now - self._refused_at < REFUSED_SECONDS or self._has_warned:
            return
        self._has_warned = True
        log.warning(
            "May not list the pods of the node: the ClusterRole localmodel-agent needs the verbs "
            "list and watch on pods, see rbac.yaml in deploy/base"
        )

    def _store(self, pod: KubeObject) -> None:
        uid = pod["metadata"]["uid"]
        mounts = parse_pod(pod)
        if mounts is None:
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = mounts

    def _sorted_pods(self) -> tuple[PodMounts, ...]:
        return _sorted(self._pods.values())

    def _report(self, pods: tuple[PodMounts, ...] | None) -> None:
        if self._has_reported and pods == self._reported:
            return
        self._observe(pods)
        self._has_reported, self._reported = True, pods


def _sorted(pods: Iterable[PodMounts]) -> tuple[PodMounts, ...]:
    return tuple(sorted(pods, key=lambda pod: (pod.namespace, pod.name)))
