"""Pods for real nodes, and the times of their steps, for tests, demos and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from deploy.kube.errors import ApiError
from deploy.kube.kinds import PODS
from deploy.local.real.images import BUSYBOX
from deploy.local.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject

# Where pods mount their model.
MOUNT_PATH = "/mnt/models"
CONTAINER = "main"
# An idle pod, which ends at once when it is asked to.
STAY = "trap exit TERM; while :; do sleep 1000 & wait $!; done"


@dataclass(frozen=True)
class Line:
    """A line that a container printed. at: when, in seconds since 1970."""

    at: float
    text: str


def pod(
    name: str,
    namespace: str,
    script: str = "echo started",
    *,
    node: str = "",
    claim: str = "",
    sub_path: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> KubeObject:
    """A pod with one container of busybox, which runs a script and stays.

    node: the only node for it, chosen by the scheduler. claim: is mounted, its sub-path at
    MOUNT_PATH.
    """
    container: KubeObject = {
        "name": CONTAINER,
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", f"{script}\n{STAY}"],
    }
    spec: KubeObject = {"containers": [container], "terminationGracePeriodSeconds": 5}
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    if claim:
        mount = {"name": "model", "mountPath": MOUNT_PATH, "subPath": sub_path, "readOnly": True}
        container["volumeMounts"] = [mount]
        spec["volumes"] = [{"name": "model", "persistentVolumeClaim": {"claimName": claim}}]
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": dict(labels or {}),
        "annotations": dict(annotations or {}),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def waiting_reason(api: KubeClient, name: str, namespace: str) -> str:
    """Why a pod's container has not started, in kubelet's words; empty if kubelet says nothing."""
    found = api.find(PODS, name, namespace) or {}
    states = [entry["state"] for entry in found.get("status", {}).get("containerStatuses", ())]
    return next((state["waiting"].get("reason", "") for state in states if "waiting" in state), "")


def lines(api: KubeClient, name: str, namespace: str) -> list[Line]:
    """What a pod's container has printed since its start; empty before its start."""
    try:
        text = api.text(f"{PODS.path(name, namespace, 'log')}?timestamps=true")
    except ApiError as error:
        # Kubelet's answers for a container that has not started, and for a pod that is new to it.
        if error.status in {400, 404}:
            return []
        raise
    return [_line(line) for line in text.splitlines()]


def first_line(api: KubeClient, name: str, namespace: str, *, seconds: float) -> Line:
    """Wait until a pod's container prints its first line: the time of its start, to the ms.

    The times of kubelet's status and events are whole seconds. Raises LocalError on timeout.
    """
    printed = wait_until(
        lambda: lines(api, name, namespace),
        f"pod {namespace}/{name} to start",
        seconds=seconds,
    )
    return printed[0]


def _line(text: str) -> Line:
    stamp, _, rest = text.partition(" ")
    return Line(datetime.fromisoformat(stamp).timestamp(), rest)
