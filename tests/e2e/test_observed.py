"""What Prometheus and kubelet read from the agent of a node that joins, works and leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import requests

from deploy.kube.kinds import CLAIMS, PODS
from tests.e2e.world import World, an_object
from tests.unit.agent.scrape import Scrape

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "observed-1"
GROUP = "observed"
MIB = 1 << 20


def _targets(world: World) -> dict[str, str]:
    """The endpoints that Prometheus finds, by node; those of the hooks have none."""
    groups = json.loads(world.cluster.layout.targets.read_text())
    return {group["labels"].get("node", ""): group["targets"][0] for group in groups}


def _get(world: World, path: str) -> tuple[int, str]:
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(f"http://{_targets(world)[NODE]}{path}", timeout=10)
        except requests.ConnectionError:
            return 0, ""
    return answer.status_code, answer.text


def _scrape(world: World) -> Scrape:
    status, text = _get(world, "/metrics")
    assert status == 200
    return Scrape(text)


def _pod(name: str, cache: str) -> dict[str, object]:
    mount = {"name": "model", "mountPath": "/mnt/models"}
    claim = {"persistentVolumeClaim": {"claimName": f"{cache}-{GROUP}", "readOnly": True}}
    return an_object(
        PODS,
        name,
        GROUP,
        spec={
            "nodeName": NODE,
            "automountServiceAccountToken": False,
            "containers": [{"name": "server", "image": "server", "volumeMounts": [mount]}],
            "volumes": [{"name": "model"} | claim],
        },
    )


def _uris(world: World) -> Iterator[str]:
    for name in ("observed-a", "observed-b"):
        yield world.http.put(f"{name}.bin", name.encode().ljust(MIB, b"."))


def test_an_agent_is_observed(world: World) -> None:
    first, second = _uris(world)
    world.namespace(GROUP, observed="yes")
    world.node(NODE, GROUP)
    world.group(
        GROUP,
        storageLimit="1536Ki",
        eviction={"policy": "LRU", "highPercent": 100, "lowPercent": 100},
    )
    world.until(lambda: _get(world, "/readyz") == (200, "ok\n"), "the agent to be ready")
    assert _get(world, "/healthz") == (200, "ok\n")
    assert _scrape(world).value("synced") == 1
    spec = {"modelSize": "1Mi", "namespaceSelector": {"matchLabels": {"observed": "yes"}}}

    # A download.
    world.cache("observed-a", first, GROUP, **spec)
    world.wait_ready("observed-a", 1)
    found = _scrape(world)
    assert found.series("downloads_total") == {("published", "http"): 1}
    assert found.value("download_bytes_total", "http") == MIB
    assert (found.value("download_size_bytes_sum"), found.value("models_bytes")) == (MIB, MIB)
    assert found.series("models") == {("downloaded",): 1}
    assert found.value("condition", "True", "Ready") == 1
    assert found.value("api_requests_total", "200") > 0

    # A pod that starts with the copy that is there.
    world.until(lambda: world.find(CLAIMS, f"observed-a-{GROUP}", GROUP), "the claim")
    assert found.series("pod_starts_total") == {}
    world.make(_pod("warm", "observed-a"))
    world.until(lambda: _scrape(world).series("pod_starts_total"), "the start to be counted")
    found = _scrape(world)
    assert found.series("pod_starts_total") == {("warm",): 1}
    assert found.value("saved_bytes_total") == MIB
    world.kubectl("delete", "pod", "-n", GROUP, "warm", "--force")

    # An eviction.
    world.cache("observed-b", second, GROUP, **spec)
    world.wait_ready("observed-b", 1)
    found = _scrape(world)
    assert found.series("evictions_total") == {("MadeRoom",): 1}
    assert found.value("evicted_bytes_total", "MadeRoom") == MIB

    # A disk that is away.
    private = world.cluster.layout.disk(NODE) / ".localmodel"
    away = private.with_name("away")
    private.rename(away)
    world.until(lambda: _get(world, "/readyz")[0] == 503, "the agent to be unready")
    assert _get(world, "/readyz")[1].startswith("disk: ")
    assert _scrape(world).value("disk_writable") == 0
    assert _get(world, "/healthz") == (200, "ok\n")
    away.rename(private)
    world.until(lambda: _get(world, "/readyz")[0] == 200, "the agent to be ready again")

    # A restart: the same port, and counters from zero.
    before = world.cluster.kill(f"agent-{NODE}")
    world.cluster.wait_for_pid(f"agent-{NODE}", after=before)
    world.until(lambda: _get(world, "/readyz")[0] == 200, "the restarted agent to be ready")
    assert _scrape(world).series("downloads_total") == {}

    # Prometheus finds all that is there, and not what is gone.
    assert {"", "node-1", NODE} <= _targets(world).keys()
    world.remove_caches("observed-a", "observed-b")
    world.cluster.node_down(NODE)
    assert NODE not in _targets(world)
    hooks = requests.get(f"http://{_targets(world)['']}/metrics", timeout=10)
    assert "localmodel_hook_calls_total" in hooks.text
