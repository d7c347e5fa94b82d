"""What evict and verify have in common: the write of a request, and the wait for its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from deploy.kube import meta
from deploy.kube.errors import ForbiddenError
from deploy.kube.kinds import LOCAL_MODEL_NODES
from deploy.kube.raw_client import MERGE_PATCH
from deploy.kubectl.change import MANAGER, Progress, request_patch
from deploy.kubectl.names import UnknownNameError, node_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from crds.node_requests import Operation
    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.snapshot import Snapshot

POLL_SECONDS = 0.5
NOT_DONE = 3


def local_model_node(snapshot: Snapshot, name: str) -> KubeObject:
    """The LocalModelNode of a node. Raises UnknownNameError."""
    found = snapshot.local_model_node_by_name.get(node_of(snapshot, name))
    if found is None:
        raise UnknownNameError(f"{name} has no LocalModelNode: it is in no LocalModelNodeGroup")
    return found


def request(
    client: KubeClient,
    node: KubeObject,
    operation: Operation,
    key: str,
    moment: datetime | None,
) -> None:
    """Write a request into a LocalModelNode, or withdraw it (no moment). Raises ApiError."""
    name = meta.name(node)
    try:
        client.request(
            "PATCH",
            LOCAL_MODEL_NODES.path(name),
            doing=f"changing LocalModelNode {name}",
            body=request_patch(node, operation, key, moment),
            query={"fieldManager": MANAGER},
            content_type=MERGE_PATCH,
        )
    except ForbiddenError as error:
        raise click.ClickException(
            f"{error}; requests need the right to patch localmodelnodes"
        ) from None


def wait(
    client: KubeClient, name: str, judge: Callable[[KubeObject], Progress], seconds: float
) -> Progress:
    """Wait until a request was carried out, at most so long. Returns where it stands."""
    deadline = time.monotonic() + seconds
    while True:
        node = client.find(LOCAL_MODEL_NODES, name)
        if node is None:
            return Progress(done=True, message="the LocalModelNode has gone")
        progress = judge(node)
        if progress.done or time.monotonic() >= deadline:
            return progress
        time.sleep(POLL_SECONDS)
