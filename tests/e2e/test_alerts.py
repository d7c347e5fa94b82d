"""A real Prometheus scrapes a local cluster: the dashboard has data, and alerts fire and end.

Each test makes the real cause of some alerts. Their times are divided by FACTORS
(`deploy.monitoring.rules.shortened`), which keeps each expression's logic; the real times are
tested by tests/unit/deploy/test_alerts.py. Only there: LocalModelAgentMissing, as there is
neither a DaemonSet controller nor kube-state-metrics here.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import re
import shutil
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from deploy.kube.kinds import CACHES, GROUPS, Kind
from deploy.local.process import Process, write_atomically
from deploy.local.product import agent_name
from deploy.local.prometheus import missing
from deploy.monitoring.panels import ROWS, filled
from deploy.monitoring.rules import rule_groups, shortened
from tests.content import weights
from tests.dashboard.load import CROWDED, MIB, NAMESPACE, SERVING, Load
from tests.dashboard.scene import Scene, scene
from tests.e2e.origin import HttpOrigin

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.xdist_group("monitoring"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.timeout(900),  # each waits for several alerts, and the first one for the load
]

EVERY_SECONDS = 1.0
# 10 minutes become 5 seconds, and an hour half a minute.
FACTOR = 120.0
FACTORS = {
    # A day becomes six minutes: all that this module does.
    "LocalModelCorruptFiles": 240.0,
    "LocalModelEvictionChurn": 240.0,
    "LocalModelDiskFull": 360.0,
    "LocalModelPodsWaitingLong": 1440.0,
    "LocalModelDownloadStalled": 360.0,
    # Four restarts take a while on a busy machine.
    "LocalModelAgentRestarting": 12.0,
    # Shorter ages would alert on the pauses between two steps, and on those between two tries.
    "LocalModelAgentStuck": 60.0,
    "LocalModelAgentNotReporting": 60.0,
    "LocalModelAgentApiErrors": 40.0,
}
WINDOW = "10s"
# The backoff of broken watches grows to half a minute and more.
SECONDS = 120.0
CLUSTER_ROLE_BINDINGS = Kind(
    "rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding"
)
# Of <sys/ptrace.h> and <sys/wait.h>.
PTRACE_CONT, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 17, 0x4206, 0x4207
WAIT_ALL = 0x40000000
TRIES = 3


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("monitoring")
    rules = shortened(rule_groups(), FACTORS, FACTOR)
    with scene(folder, EVERY_SECONDS, rules) as made:
        yield made


@pytest.fixture(scope="module")
def loaded(monitored: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, float]:
    """The scene after the load, and when the load began."""
    began = time.time()
    Load(monitored.world, tmp_path_factory.mktemp("models")).run()
    return monitored, began


@pytest.fixture(scope="module")
def trickling(loaded: tuple[Scene, float]) -> Iterator[Scene]:
    """The scene, with a download on each serving node that gets 4 kB a second.

    It keeps the loops busy: idle ones take a step each minute, later than the shortened times.
    """
    found, _ = loaded
    origin = HttpOrigin(bytes_per_second=4000.0)
    uri = origin.put("trickle.bin", weights(6 * MIB))
    found.world.cache("trickle", uri, "serving", modelSize="6Mi")
    for node in SERVING:
        found.world.until(
            lambda node=node: found.world.report(node, uri).get("state") == "Downloading",  # type: ignore[misc]
            f"{node} to download",
            SECONDS,
        )
    yield found
    origin.close()


def test_each_query_of_each_panel_has_data(loaded: tuple[Scene, float]) -> None:
    (found, began) = loaded
    empty = [
        f"{row.title} / {panel.title}: {query.expr}"
        for row in ROWS
        for panel in row.panels
        for query in panel.queries
        if not any(
            math.isfinite(float(value))
            for series in found.prometheus.over(
                filled(query.expr, WINDOW), began, time.time(), EVERY_SECONDS
            )
            for _, value in series["values"]
        )
    ]
    assert empty == []


def expect(scene: Scene, *names: str, node: str = "") -> None:
    """Wait until all these alerts fire, of this node if one is named."""
    labels = {"node": node} if node else {}
    for name in names:
        scene.world.until(
            lambda name=name: scene.prometheus.firing(name, **labels),  # type: ignore[misc]
            f"{name} {node} to fire",
            SECONDS,
        )


def expect_end(scene: Scene, *names: str, node: str = "") -> None:
    """Wait until none of these alerts fires, of this node if one is named."""
    labels = {"node": node} if node else {}
    for name in names:
        scene.world.until(
            lambda name=name: scene.prometheus.firing(name, **labels) is None,  # type: ignore[misc]
            f"{name} {node} to end",
            SECONDS,
        )


def test_what_the_load_has_left_alerts(loaded: tuple[Scene, float]) -> None:
    """A model without a source, a pod that waits for it, damage, churn, and a full disk."""
    found, _ = loaded
    expect(
        found,
        "LocalModelModelsFailing",
        "LocalModelPodsWaiting",
        "LocalModelPodsWaitingLong",
        "LocalModelCorruptFiles",
        "LocalModelEvictionChurn",
        "LocalModelDiskFull",
    )
    failing = found.prometheus.firing("LocalModelModelsFailing", node=SERVING[1])
    assert failing is not None
    assert "NotFound (" in failing["annotations"]["description"]
    for name in ("LocalModelEvictionChurn", "LocalModelDiskFull"):
        alert = found.prometheus.firing(name)
        assert alert is not None
        assert alert["labels"]["node"] == CROWDED
    found.world.kubectl("delete", "pod", "-n", NAMESPACE, "waits-for-broken", "--force")
    found.world.delete(CACHES, "broken")
    found.world.until(lambda: found.world.find(CACHES, "broken") is None, "it to be gone", SECONDS)
    expect_end(
        found, "LocalModelModelsFailing", "LocalModelPodsWaiting", "LocalModelPodsWaitingLong"
    )


def test_downloads_and_agents_that_stand_still(trickling: Scene) -> None:
    """An origin that trickles, crashes, a stopped process, another disk."""
    cluster = trickling.world.cluster
    stalled, stopped, dying = SERVING
    for _ in range(4):
        killed = cluster.kill(agent_name(dying))
        cluster.wait_for_pid(agent_name(dying), after=killed, seconds=SECONDS)
        _wait_scraped(trickling, dying)
    expect(trickling, "LocalModelDownloadStalled", node=stalled)
    expect(trickling, "LocalModelAgentRestarting", node=dying)
    causes = {"LocalModelAgentDown": stopped, "LocalModelDiskNotWritable": CROWDED}
    with (
        stopped_process(cluster.wait_for_pid(agent_name(stopped))),
        another_disk(cluster.layout.disk(CROWDED)),
    ):
        for name, node in causes.items():
            expect(trickling, name, node=node)
    for name, node in causes.items():
        expect_end(trickling, name, node=node)


def test_a_control_thread_that_stands_still(trickling: Scene) -> None:
    """Alone, as it is skipped where no process may be traced."""
    stuck = SERVING[0]
    expect_end(trickling, "LocalModelAgentStuck", node=stuck)
    with stopped_loop(trickling, stuck):
        expect(trickling, "LocalModelAgentStuck", node=stuck)
    expect_end(trickling, "LocalModelAgentStuck", node=stuck)


def _wait_scraped(scene: Scene, node: str) -> None:
    """Wait until Prometheus has the present process of a node's agent."""
    pid = scene.world.cluster.wait_for_pid(agent_name(node))
    started = Path(f"/proc/{pid}").stat().st_ctime
    expr = f'process_start_time_seconds{{node="{node}"}} > {started - 1}'
    scene.world.until(lambda: scene.prometheus.instant(expr), "the new process to be scraped")


@contextmanager
def stopped_process(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def another_disk(root: Path) -> Iterator[None]:
    """Put an empty folder in the place of a disk."""
    away = root.with_name(f"{root.name}-away")
    root.rename(away)
    root.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(root)
        away.rename(root)


@contextmanager
def stopped_loop(scene: Scene, node: str) -> Iterator[None]:
    """Stop the control thread of an agent as a debugger does; its other threads go on.

    The control thread is the one without which no step is taken. Where it held Python's lock, the
    agent does not answer, and the next moment is tried.
    """
    pid = scene.world.cluster.wait_for_pid(agent_name(node))
    libc = ctypes.CDLL(None, use_errno=True)
    for thread in _busy_threads(pid):
        if libc.ptrace(PTRACE_SEIZE, thread, None, None) != 0:
            if ctypes.get_errno() == errno.ESRCH:
                continue  # the thread has ended
            pytest.skip(f"may not trace a process: {os.strerror(ctypes.get_errno())}")
        try:
            _stop(libc, thread)
            first, second = _two_steps(scene, node)
            for _ in range(TRIES):
                if first is not None:
                    break
                libc.ptrace(PTRACE_CONT, thread, None, None)
                # Until it waits for something, without the lock.
                time.sleep(0.2)
                _stop(libc, thread)
                first, second = _two_steps(scene, node)
            # None: the thread that answers requests.
            if first is not None and first == second:
                yield
                return
        finally:
            # Only a stopped thread can be let go; one that is still traced could not end.
            libc.ptrace(PTRACE_DETACH, thread, None, None)
    pytest.fail("no thread takes the steps")


def _busy_threads(pid: int) -> list[int]:
    """The threads that wake up again and again, the main thread left out."""

    def switches() -> dict[int, int]:
        counts = {}
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found = re.search(
                    r"^voluntary_ctxt.*?(\d+)$", (task / "status").read_text(), re.MULTILINE
                )
                counts[int(task.name)] = int(found[1]) if found else 0
        return counts

    before = switches()
    time.sleep(4.0)
    woken = {tid: count - before.get(tid, count) for tid, count in switches().items()}
    busy = [tid for tid, times in woken.items() if times >= 4 and tid != pid]
    return sorted(busy, key=lambda tid: woken[tid])


def _stop(libc: ctypes.CDLL, thread: int) -> None:
    libc.ptrace(PTRACE_INTERRUPT, thread, None, None)
    os.waitpid(thread, WAIT_ALL)


def _two_steps(scene: Scene, node: str) -> tuple[float | None, float | None]:
    """When the loop last completed a step, now and two seconds later, by the agent itself."""
    first = _last_step(scene, node)
    if first is None:
        return None, None
    time.sleep(2.0)
    return first, _last_step(scene, node)


def _last_step(scene: Scene, node: str) -> float | None:
    (address,) = (
        target
        for group in json.loads(scene.world.cluster.layout.targets.read_text())
        if group["labels"].get("node") == node
        for target in group["targets"]
    )
    with suppress(requests.RequestException), requests.Session() as session:
        session.trust_env = False
        text = session.get(f"http://{address}/metrics", timeout=3).text
        (line,) = re.findall(
            r"^localmodel_agent_last_step_timestamp_seconds (.*)$", text, re.MULTILINE
        )
        return float(line)
    return None


def test_hooks_that_are_slow_fail_refuse_or_are_gone(monitored: Scene) -> None:
    world, cluster = monitored.world, monitored.world.cluster
    file = cluster.layout.processes / "hooks.json"
    hooks = Process.from_json(file.read_text())

    def run(**environment: str) -> None:
        before = cluster.wait_for_pid("hooks")
        cluster.run("hooks", replace(hooks, env=hooks.env | environment))
        cluster.wait_for_pid("hooks", after=before, seconds=SECONDS)

    def call(alert: str) -> None:
        """Have Metacontroller and a stranger call, until an alert fires."""

        def once() -> bool:
            world.patch(GROUPS, "called", {"metadata": {"annotations": {"at": str(time.time())}}})
            with suppress(requests.RequestException), requests.Session() as session:
                session.trust_env = False
                session.post(f"{cluster.hooks_url}/caches/sync", data="{}", timeout=5)
            return monitored.prometheus.firing(alert) is not None

        world.until(once, f"{alert} to fire", SECONDS)

    world.group("called")
    try:
        # The group's hook takes longer than half of that; the stranger sends what is no request.
        run(LOCALMODEL_GROUP_HOOK_TIMEOUT="0.0001")
        call("LocalModelHooksSlow")
        call("LocalModelHooksFailing")
        token = cluster.root / "other-token"
        token.write_text("other")
        run(LOCALMODEL_HOOKS_TOKEN_FILE=str(token))
        call("LocalModelHooksRefusing")
        call("LocalModelHooksNotCalled")
        cluster.stop("hooks")
        expect(monitored, "LocalModelHooksDown", "LocalModelHooksUnavailable")
    finally:
        cluster.run("hooks", hooks)
        (cluster.layout.stopped / "hooks.json").unlink(missing_ok=True)
    expect_end(
        monitored,
        "LocalModelHooksSlow",
        "LocalModelHooksFailing",
        "LocalModelHooksRefusing",
        "LocalModelHooksDown",
        "LocalModelHooksUnavailable",
    )


def test_an_api_server_that_refuses_the_agents(trickling: Scene, tmp_path: Path) -> None:
    world, (behind, _, restarted) = trickling.world, SERVING
    role = world.find(CLUSTER_ROLE_BINDINGS, "localmodel-agent")
    assert role is not None
    kept = {key: role[key] for key in ("apiVersion", "kind", "roleRef", "subjects")}
    expect_end(trickling, "LocalModelAgentNotReporting", node=behind)
    world.delete(CLUSTER_ROLE_BINDINGS, "localmodel-agent")
    try:
        killed = world.cluster.kill(agent_name(restarted))
        world.cluster.wait_for_pid(agent_name(restarted), after=killed, seconds=SECONDS)
        # The watch of before goes on, and brings news to report.
        Load(world, tmp_path).pod("news", "llama", behind)
        expect(trickling, "LocalModelAgentNotReporting", node=behind)
        expect(trickling, "LocalModelAgentNotSynced", "LocalModelAgentApiErrors", node=restarted)
        assert trickling.prometheus.firing("LocalModelAgentApiErrors", code="403")
    finally:
        world.make({"metadata": {"name": "localmodel-agent"}, **kept})
    expect_end(trickling, "LocalModelAgentNotReporting", node=behind)
    expect_end(trickling, "LocalModelAgentNotSynced", "LocalModelAgentApiErrors", node=restarted)


def test_targets_that_prometheus_has_lost(monitored: Scene) -> None:
    file = monitored.world.cluster.layout.targets
    targets = file.read_text()
    names = ("LocalModelAgentsAbsent", "LocalModelHooksUnavailable")
    try:
        write_atomically(file, "[]")
        expect(monitored, *names)
    finally:
        write_atomically(file, targets)
    expect_end(monitored, *names)


def test_each_alert_is_made_here_or_named_above() -> None:
    text = Path(__file__).read_text()
    names = {rule["alert"] for group in rule_groups() for rule in group["rules"]}
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
