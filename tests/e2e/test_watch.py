"""The agent's watch on a real API server, from a version that is still to come."""

from __future__ import annotations

import json
import queue
import threading
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from agent.cluster import kube_watch
from agent.cluster.connection import connect
from agent.cluster.kube_watch import KubeWatch

if TYPE_CHECKING:
    from tests.e2e.world import World

AHEAD = 1_000_000_000


class Heard:
    """What a watch has told: names of ConfigMaps that were listed and changed, or that it broke."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[tuple[str, list[str]]] = queue.SimpleQueue()

    def listed(self, found: list[dict[str, Any]]) -> None:
        self.told.put(("listed", [one["metadata"]["name"] for one in found]))

    def changed(self, change: str, found: dict[str, Any]) -> None:
        self.told.put((change, [found["metadata"]["name"]]))

    def broke(self, error: Exception, _silent: float, /) -> None:
        self.told.put(("broke", [kube_watch.reason(error)]))


def test_a_watch_of_a_server_that_went_back_lists_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restore of etcd, whose versions are behind those that the agent has seen."""
    monkeypatch.setattr(kube_watch, "WATCH_TIMEOUT", (3.0, 5.0))
    world.namespace("watched")
    core = client.CoreV1Api(connect(world.cluster.kubeconfig))
    real: Any = partial(core.list_namespaced_config_map, "watched")
    is_ahead = threading.Event()
    is_ahead.set()

    def call(**query: Any) -> Any:
        answer = real(**query)
        if "watch" in query or "resource_version" in query or not is_ahead.is_set():
            return answer
        body = json.loads(answer.data)
        body["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + AHEAD)
        return SimpleNamespace(data=json.dumps(body))

    watch, heard, stopped = KubeWatch(call, "metadata.name=one"), Heard(), threading.Event()
    thread = threading.Thread(target=watch.run, args=(heard, stopped), daemon=True)
    thread.start()
    try:
        assert heard.told.get(timeout=30) == ("listed", [])
        is_ahead.clear()
        with pytest.raises(ApiException, match="504"):
            watch.list_now()
        # Nothing is told of it: what the agent has seen is said to be newer.
        world.make(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "one", "namespace": "watched"},
            }
        )
        assert heard.told.get(timeout=30)[0] == "broke"
        assert heard.told.get(timeout=30) == ("listed", ["one"])
        assert [one["metadata"]["name"] for one in watch.list_now()] == ["one"]
    finally:
        stopped.set()
        thread.join(30)
