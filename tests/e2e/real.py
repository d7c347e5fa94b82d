"""Helpers of the tests on real nodes: a cluster with two kubelets, its models, its pods."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from crds.keys import model_key
from deploy.kube.errors import ApiError, NotFoundError
from deploy.kube.kinds import EVENTS, PODS
from deploy.local.cluster import Cluster
from deploy.local.errors import LocalError
from deploy.local.origin import S3Origin
from deploy.local.real import packages
from deploy.local.real.pods import Line, lines, pod, waiting_reason
from tests.e2e import audit
from tests.e2e.origin import HttpOrigin
from tests.e2e.world import GRACE_SECONDS, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.kube.kinds import KubeObject

# Clusters with real nodes need memory and CPU, so their tests run one after the other.
XDIST_GROUP = "real-nodes"
NODE = "real-1"
OTHER_NODE = "real-2"
MODEL_LABEL = "localmodel.serving.kserve.io/model"
MIB = 1 << 20
# Bytes per second, so that a model of a MiB is not there before kubelet has missed it.
SLOW = MIB / 32
# Far beyond the seconds that a pod's start takes, for a busy machine.
START_SECONDS = 60.0
# A node that starts again imports its images, and kubelet finds out what has ended.
RESTART_SECONDS = 180.0


def skip_unless_possible(folder: Path) -> None:
    """Skip the test where the machine cannot run real nodes in a folder."""
    try:
        packages.require(folder)
    except LocalError as error:
        pytest.skip(error.text())


@contextmanager
def real_world(folder: Path) -> Iterator[World]:
    """A cluster with a simulated node and two real ones, whose agents are pods.

    Raises LocalError where the machine cannot run real nodes.
    """
    cluster = Cluster(folder)
    http = HttpOrigin()
    cluster.up(
        1,
        real_nodes=2,
        metacontroller="standin",
        default_storage_class=True,
        grace_seconds=GRACE_SECONDS,
        progress_seconds=0.5,
        overlay="standalone",
        pod_policies=True,
        owner_pid=os.getpid(),
    )
    try:
        yield World(cluster, http, S3Origin())
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()


# Models.


def offer(world: World, name: str, content: bytes, *nodes: str) -> str:
    """Make a cache, its group of nodes, and a namespace with a claim, all of one name."""
    uri = world.http.put(f"{name}.bin", content)
    offer_uri(world, name, uri, *nodes)
    return uri


def offer_uri(world: World, name: str, uri: str, *nodes: str) -> None:
    """Like `offer`, of a URI."""
    offer_group(world, name, *nodes)
    add(world, name, name, uri)


def offer_group(world: World, name: str, *nodes: str, **spec: Any) -> None:
    """Make a group of nodes, and the namespace that the group's caches select."""
    for node in nodes:
        world.node(node, name)
    world.group(name, **spec)
    world.namespace(name, **{name: "yes"})


def add(world: World, name: str, cache: str, uri: str, **spec: Any) -> None:
    """Make a cache in an offered group, and wait for its claim in the group's namespace."""
    world.cache(cache, uri, name, namespaceSelector={"matchLabels": {name: "yes"}}, **spec)
    world.wait_bound(name, f"{cache}-{name}")


@contextmanager
def slow(world: World, bytes_per_second: float = SLOW) -> Iterator[None]:
    """Serve slowly, until the end or `release`."""
    world.http.bytes_per_second = bytes_per_second
    try:
        yield
    finally:
        world.http.bytes_per_second = 0


def release(world: World, node: str, uri: str) -> float:
    """Let a slow download end. Returns the time of the publication, in seconds since 1970."""
    world.http.bytes_per_second = 0
    deadline = time.time() + START_SECONDS
    while not world.published(node, uri):
        assert time.time() < deadline, f"{uri} is not published on {node}"
        time.sleep(0.005)
    return time.time()


# Pods.


def run(
    world: World,
    namespace: str,
    name: str,
    uri: str,
    script: str,
    *,
    cache: str = "",
    node: str = NODE,
    by_label: bool = False,
) -> float:
    """Create a pod, which mounts a model of the namespace if a URI is named. Returns when.

    cache: the model's, by default that of the namespace's name. by_label: the pod names the cache,
    and not its claim.
    """
    cache = cache or namespace
    mount: dict[str, Any] = {}
    if by_label:
        mount = {"labels": {MODEL_LABEL: cache}}
    elif uri:
        mount = {"claim": f"{cache}-{namespace}", "sub_path": f"models/{model_key(uri)}"}
    created = time.time()
    world.api.create(pod(name, namespace, script, node=node, **mount))
    return created


def wait_blocked(world: World, namespace: str, name: str) -> None:
    """Wait until kubelet says that it cannot start a pod's container yet."""
    world.until(
        lambda: waiting_reason(world.api, name, namespace) == "CreateContainerConfigError",
        f"kubelet to wait for the model of {namespace}/{name}",
    )


def wait_line_after(
    world: World, namespace: str, name: str, after: float, seconds: float = START_SECONDS
) -> Line:
    """Wait for the first line that a pod's container has printed after a time."""

    def found() -> Line | None:
        with suppress(ApiError):  # kubelet is not there, or does not know the pod yet
            return next((one for one in lines(world.api, name, namespace) if one.at > after), None)
        return None

    line = world.until(found, f"{namespace}/{name} to print a line", seconds)
    assert line is not None
    return line


def events(world: World, namespace: str, name: str, reason: str = "") -> list[KubeObject]:
    """The Events about a pod, or those of one reason."""
    return [
        event
        for event in world.api.list(EVENTS, namespace)
        if event["involvedObject"]["name"] == name and reason in {"", event["reason"]}
    ]


def wait_event(world: World, namespace: str, name: str, reason: str, text: str = "") -> KubeObject:
    """Wait for an Event about a pod of this reason, whose message has this text."""

    def found() -> KubeObject | None:
        told = events(world, namespace, name, reason)
        return next((event for event in told if text in event["message"]), None)

    event = world.until(found, f"the Event {reason} with {text!r} about {namespace}/{name}")
    assert event is not None
    return event


def remove_pods(world: World, namespace: str, *names: str) -> None:
    """Delete pods at once, of which some may be gone already."""
    for name in names:
        with suppress(NotFoundError):
            world.api.delete(PODS, name, namespace, grace_seconds=0)


def remove(world: World, name: str, *pods: str) -> None:
    """Delete pods, and the cache of their namespace's name."""
    remove_pods(world, name, *pods)
    world.remove_caches(name)
