"""Pods that run on real kubelets and mount real claims."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from deploy.kube.errors import NotFoundError
from deploy.kube.kinds import NODES, PODS
from deploy.local.cluster import Cluster
from deploy.local.real import cgroups
from deploy.local.real.nodes import process_name
from deploy.local.real.pods import MOUNT_PATH, first_line, lines, pod
from deploy.local.waiting import wait_until
from tests.e2e.real import (
    MIB,
    NODE,
    OTHER_NODE,
    RESTART_SECONDS,
    START_SECONDS,
    XDIST_GROUP,
    offer,
    release,
    remove,
    run,
    skip_unless_possible,
    slow,
    wait_blocked,
    wait_line_after,
)

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject
    from tests.e2e.world import World

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)


def test_the_agents_are_pods_of_the_daemon_set(real: World) -> None:
    def agents() -> dict[str, KubeObject]:
        pods = real.api.list(PODS, "localmodel", labels="app.kubernetes.io/name=localmodel-agent")
        running = [one for one in pods if one.get("status", {}).get("phase") == "Running"]
        return {one["spec"]["nodeName"]: one for one in running}

    # The agent of the simulated node is a process.
    assert sorted(agents()) == ["real-1", "real-2"]
    assert real.cluster.pid("agent-node-1")
    uri = offer(real, "daemon", b"weights", NODE)
    real.wait_ready("daemon", 1)
    before = agents()[NODE]["metadata"]["name"]
    real.api.delete(PODS, before, "localmodel")
    real.until(
        lambda: agents().get(NODE, {}).get("metadata", {}).get("name", before) != before,
        "a new pod of the agent",
    )
    assert real.published(NODE, uri)
    remove(real, "daemon")
    real.until(lambda: not real.published(NODE, uri), "the new agent to remove the model")


def test_the_pods_of_the_daemon_set_have_one_port_on_addresses_of_their_own(real: World) -> None:
    groups = json.loads(real.cluster.layout.targets.read_text())
    targets = {group["labels"].get("node"): group["targets"][0] for group in groups}
    assert targets[NODE] != targets[OTHER_NODE]
    for node in (NODE, OTHER_NODE):
        address = real.api.get(NODES, node)["status"]["addresses"][0]["address"]
        assert targets[node] == f"{address}:8081"

        def answer(endpoint: str = targets[node]) -> str:
            with suppress(requests.ConnectionError):
                return requests.get(f"http://{endpoint}/readyz", timeout=10).text
            return ""

        real.until(lambda: answer() == "ok\n", f"the agent of {node} to be ready")


def test_a_pod_reads_its_model_and_cannot_write(real: World) -> None:
    content = os.urandom(MIB)
    uri = offer(real, "warm", content, "real-1", "real-2")
    real.wait_ready("warm", 2)
    asked = real.http.gets("warm.bin")
    script = f"cd {MOUNT_PATH} && sha256sum warm.bin; touch new 2>&1; find . -type f"
    run(real, "warm", "model", uri, script)
    first_line(real.api, "model", "warm", seconds=START_SECONDS)
    expected = hashlib.sha256(content).hexdigest()
    command = ("sha256sum", f"{MOUNT_PATH}/warm.bin")
    assert real.kubectl("-n", "warm", "exec", "model", "--", *command).split()[0] == expected
    printed = [line.text for line in lines(real.api, "model", "warm")]
    assert printed == [
        f"{expected}  warm.bin",
        "touch: new: Read-only file system",
        "./warm.bin",
    ]
    # A warm pod costs the origin nothing.
    assert real.http.gets("warm.bin") == asked
    remove(real, "warm", "model")


def test_a_warm_pod_starts_like_a_pod_without_a_model(real: World) -> None:
    uri = offer(real, "quick", os.urandom(MIB), NODE)
    real.wait_ready("quick", 1)
    seconds: dict[str, list[float]] = {"bare": [], "warm": []}
    for number in range(5):
        for kind, mounted in (("bare", ""), ("warm", uri)):
            name = f"{kind}-{number}"
            created = run(real, "quick", name, mounted, "echo started")
            started = first_line(real.api, name, "quick", seconds=START_SECONDS)
            seconds[kind].append(started.at - created)
            real.api.delete(PODS, name, "quick", grace_seconds=0)
    bare, warm = (statistics.median(seconds[kind]) for kind in ("bare", "warm"))
    # A benchmark measures the difference; here a busy machine must not fail.
    assert warm - bare < 2, seconds
    remove(real, "quick")


def test_a_cold_pod_waits_and_starts_after_the_publication(real: World) -> None:
    with slow(real):
        uri = offer(real, "cold", os.urandom(4 * MIB), NODE)
        run(real, "cold", "model", uri, f"ls {MOUNT_PATH}")
        wait_blocked(real, "cold", "model")
        assert not real.published(NODE, uri)
        published = release(real, NODE, uri)
    line = first_line(real.api, "model", "cold", seconds=START_SECONDS)
    # Never on an empty or a partial folder.
    assert line.text == "cold.bin"
    # By the agent's annotation; kubelet alone tries again every 10 to 15 seconds.
    assert -1 <= line.at - published < 5
    remove(real, "cold", "model")


def test_a_node_that_dies_comes_back_with_its_pods(real: World) -> None:
    uri = offer(real, "reboot", b"weights", NODE)
    real.wait_ready("reboot", 1)
    run(real, "reboot", "model", uri, f"cat {MOUNT_PATH}/reboot.bin; echo")
    first_line(real.api, "model", "reboot", seconds=START_SECONDS)
    real.cluster.kill(process_name(NODE))
    died = time.time()
    assert wait_line_after(real, "reboot", "model", died, RESTART_SECONDS).text == "weights"
    assert real.published(NODE, uri)
    remove(real, "reboot", "model")


def test_simulated_nodes_take_no_pods(real: World) -> None:
    real.namespace("nowhere")
    real.api.create(pod("lost", "nowhere", node="node-1"))

    def refused() -> str:
        status = (real.find(PODS, "lost", "nowhere") or {}).get("status", {})
        conditions = status.get("conditions") or ()
        return next((c["message"] for c in conditions if c.get("reason") == "Unschedulable"), "")

    assert "Too many pods" in real.until(refused, "the scheduler to refuse the pod")
    real.api.delete(PODS, "lost", "nowhere", grace_seconds=0)


def test_a_real_node_joins_and_leaves(real: World) -> None:
    real.cluster.node_up("real-3", real=True)
    real.namespace("joins")
    real.api.create(pod("first", "joins", node="real-3"))
    first_line(real.api, "first", "joins", seconds=START_SECONDS)
    real.cluster.node_down("real-3")
    assert real.find(NODES, "real-3") is None
    assert not real.cluster.layout.machine("real-3").exists()
    assert not _cgroups(real.cluster.root, "real-3")
    with suppress(NotFoundError):
        real.api.delete(PODS, "first", "joins", grace_seconds=0)


def _cgroups(root: Path, node: str = "") -> list[Path]:
    name = f"{cgroups.name_of(root)}/{node}".rstrip("/")
    return [*cgroups.ROOT.glob(name), *cgroups.ROOT.glob(f"*/{name}")]


def _processes(root: Path) -> list[str]:
    """The command lines that name a folder, or that run in a node's cgroup."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(root) in command or cgroups.name_of(root) in (folder / "cgroup").read_text():
                found.append(command)
    return found


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    root = tmp_path / "local"
    skip_unless_possible(root)
    cluster = Cluster(root)
    cluster.up(
        0,
        real_nodes=1,
        real_agents="processes",
        metacontroller="standin",
        owner_pid=os.getpid(),
    )
    try:
        cluster.api.create(pod("left", "default"))
        first_line(cluster.api, "left", "default", seconds=START_SECONDS)
        assert _cgroups(root)
        assert any("sleep" in command for command in _processes(root))
        os.kill(int(cluster.layout.supervisor_pid.read_text()), signal.SIGKILL)
        wait_until(
            lambda: not _processes(root) and not _cgroups(root),
            "the processes and cgroups to be gone",
            seconds=START_SECONDS,
        )
    finally:
        cluster.down()
    assert not cluster.layout.machines.exists()
