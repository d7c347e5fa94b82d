"""Whatever is killed, the cluster reaches the same end by itself, and no published file changes."""

from __future__ import annotations

import time

import pytest

from deploy.kube.kinds import CACHES
from tests.content import weights
from tests.e2e.world import API_GONE_SECONDS, RETURN_SECONDS, World

NODES = ("node-1", "node-2")


def _setup(world: World, name: str) -> dict[str, dict[str, tuple[int, int, int]]]:
    """Publish a model that must not change. Returns what its files are."""
    uri = world.http.put(f"{name}-kept.bin", weights(100_000))
    for node in NODES:
        world.node(node, name)
    world.group(name)
    world.cache(f"{name}-kept", uri, name)
    world.wait_ready(f"{name}-kept", len(NODES))
    return {node: world.identity(node, uri) for node in NODES}


def _check_kept(world: World, name: str, before: dict[str, object]) -> None:
    world.wait_ready(f"{name}-kept", len(NODES))
    uri = world.http.url(f"{name}-kept.bin")
    assert {node: world.identity(node, uri) for node in NODES} == before


@pytest.mark.parametrize("process", ["hooks", "metacontroller"])
def test_a_killed_controller(world: World, process: str) -> None:
    name = f"kill-{process}"
    before = _setup(world, name)
    doomed = world.http.put(f"{name}-doomed.bin", b"doomed")
    world.cache(f"{name}-doomed", doomed, name)
    world.wait_ready(f"{name}-doomed", len(NODES))

    killed = world.cluster.kill(process)
    # What is asked for while it is away is done when it is back.
    uri = world.http.put(f"{name}-new.bin", b"new")
    world.cache(f"{name}-new", uri, name)
    world.delete(CACHES, f"{name}-doomed")
    world.cluster.wait_for_pid(process, after=killed)

    world.wait_ready(f"{name}-new", len(NODES))
    world.until(
        lambda: not any(world.published(node, doomed) for node in NODES), "the doomed model to go"
    )
    _check_kept(world, name, before)  # type: ignore[arg-type]
    world.remove_caches(f"{name}-kept", f"{name}-new")


def test_an_agent_killed_in_the_middle_of_a_download(world: World) -> None:
    before = _setup(world, "kill-agent")
    content = weights(6 << 20)
    uri = world.http.put("kill-agent-slow.bin", content)
    world.http.bytes_per_second = 2 << 20
    try:
        world.cache("kill-agent-slow", uri, "kill-agent")
        world.until(
            lambda: 0 < world.report("node-1", uri).get("downloadedBytes", 0) < len(content),
            "the download to be on its way",
        )
        world.cluster.kill("agent-node-1")
        # Never half a model, not for a moment.
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert not world.published("node-1", uri)
            time.sleep(0.05)
    finally:
        world.http.bytes_per_second = 0
    world.wait_ready("kill-agent-slow", len(NODES))
    for node in NODES:
        assert (world.copy(node, uri) / "kill-agent-slow.bin").read_bytes() == content
    _check_kept(world, "kill-agent", before)  # type: ignore[arg-type]
    world.remove_caches("kill-agent-kept", "kill-agent-slow")


def test_an_api_server_that_is_killed_and_away_for_a_while(world: World) -> None:
    before = _setup(world, "kill-api")
    uri = world.http.put("kill-api-slow.bin", weights(4 << 20))
    world.http.bytes_per_second = 1 << 20
    try:
        world.cache("kill-api-slow", uri, "kill-api")
        world.until(
            lambda: all(world.report(n, uri).get("state") == "Downloading" for n in NODES),
            "all downloads to start",
        )
        world.cluster.kill("kube-apiserver")
        world.cluster.stop("kube-apiserver")
        time.sleep(API_GONE_SECONDS)
        # The agents need no API server to finish what they were told.
        assert all(world.published(node, uri) for node in NODES)
    finally:
        world.http.bytes_per_second = 0
        world.cluster.start("kube-apiserver")
    world.until(lambda: _answers(world), "the API server to be back")
    # The API server has not read the parameters of the policies yet.
    world.cache("kill-api-new", world.http.put("kill-api-new.bin", b"new"), "kill-api")
    world.wait_ready("kill-api-slow", len(NODES), RETURN_SECONDS)
    world.wait_ready("kill-api-new", len(NODES))
    _check_kept(world, "kill-api", before)  # type: ignore[arg-type]
    world.remove_caches("kill-api-kept", "kill-api-slow", "kill-api-new")


def _answers(world: World) -> bool:
    return world.cluster.kubectl("get", "--raw", "/readyz").returncode == 0
