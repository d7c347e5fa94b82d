"""A simulated cluster that calls the hooks, and applies their answers, as Metacontroller does.

What it counts does not depend on the machine: calls, bytes, writes.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from crds.base import API_VERSION
from crds.keys import model_key
from hooks.app import create_app
from hooks.settings import Settings

Object = dict[str, Any]

START = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
GROUP = "gpu"
GIB = 1 << 30


def kind(name: str) -> str:
    return f"{name}.{API_VERSION}"


def cache_object(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelCache",
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "generation": 1,
            "creationTimestamp": "2026-11-24T03:00:00Z",
        },
        "spec": {
            "sourceModelUri": f"s3://models/{name}",
            "modelSize": "1Gi",
            "nodeGroup": GROUP,
            **spec,
        },
        "status": {"observedGeneration": -1},
    }


@dataclass
class Fleet:
    """One group, its caches and nodes. Times are those of the hooks' clock."""

    group_spec: Object = field(default_factory=dict)
    nodes: dict[str, Object] = field(default_factory=dict)
    caches: dict[str, Object] = field(default_factory=dict)
    local_nodes: dict[str, Object] = field(default_factory=dict)
    plan: Object | None = None
    now: datetime = START
    due: datetime | None = None
    calls: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    # Nodes whose hook is due.
    stale: set[str] = field(default_factory=set)
    # Nodes whose agents do not respond.
    silent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.group: Object = {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNodeGroup",
            "metadata": {
                "name": GROUP,
                "uid": "uid-of-gpu",
                "generation": 1,
                "creationTimestamp": "2026-11-24T04:00:00Z",
            },
            "spec": {"nodeSelector": {"pool": GROUP}, "storageLimit": "100Ti", **self.group_spec},
            "status": {"observedGeneration": -1},
        }
        self._client = create_app(Settings(), clock=lambda: self.now).test_client()

    # Actions of people.

    def join(self, *names: str) -> None:
        for name in names:
            self.nodes[name] = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": {"pool": GROUP}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
        self.stale.update(names)

    def add(self, *names: str, **spec: Any) -> None:
        for name in names:
            self.caches[name] = cache_object(name, **spec)

    # Actions of Metacontroller.

    def call(self, path: str, request: Object) -> Object:
        body = json.dumps(request)
        self.calls[path] += 1
        self.sent[path] += len(body)
        response = self._client.post(path, data=body)
        assert response.status_code == 200, response.text
        answer: Object = response.get_json()
        return answer

    def sync_group(self) -> None:
        answer = self.call(
            "/nodegroups/sync",
            {
                "parent": self.group,
                "children": {
                    kind("LocalModelPlacement"): {GROUP: self.plan} if self.plan else {},
                    "PersistentVolume.v1": {},
                },
                "related": {
                    kind("LocalModelCache"): self.caches,
                    kind("LocalModelNamespaceCache"): {},
                    kind("LocalModelNode"): self.local_nodes,
                },
                "finalizing": False,
            },
        )
        (plan,) = answer["children"]
        if plan != self.plan:
            self.plan = plan
            self.writes["plan"] += 1
            self.stale.update(self.nodes)
        status = answer["status"] | {"observedGeneration": 1}
        if status != self.group["status"]:
            self.group["status"] = status
            self.writes["group"] += 1
        after = answer.get("resyncAfterSeconds")
        self.due = None if after is None else self.now + timedelta(seconds=after)

    def sync_caches(self) -> None:
        for name, cache in self.caches.items():
            answer = self.call(
                "/caches/sync",
                {
                    "parent": cache,
                    "children": {"PersistentVolume.v1": {}, "PersistentVolumeClaim.v1": {}},
                    "related": {kind("LocalModelNodeGroup"): {GROUP: self.group}},
                    "finalizing": False,
                },
            )
            status = answer["status"] | {"observedGeneration": 1}
            if status != cache["status"]:
                cache["status"] = status
                self.writes[f"cache {name}"] += 1

    def sync_node(self, name: str) -> None:
        self.stale.discard(name)
        node, local = self.nodes[name], self.local_nodes.get(name)
        answer = self.call(
            "/nodes/sync",
            {
                "object": node,
                "attachments": {kind("LocalModelNode"): {name: local} if local else {}},
                "related": {kind("LocalModelPlacement"): {GROUP: self.plan} if self.plan else {}},
                "finalizing": False,
            },
        )
        labels = node["metadata"]["labels"]
        changed = {key: value for key, value in labels.items() if key in answer["labels"]}
        wanted = {key: value for key, value in answer["labels"].items() if value is not None}
        if changed != wanted:
            self.writes[f"labels of {name}"] += 1
            for key in answer["labels"]:
                labels.pop(key, None)
            labels |= wanted
        for made in answer.get("attachments", ()):
            self._apply(name, made)

    def _apply(self, name: str, made: Object) -> None:
        local = self.local_nodes.get(name)
        if local and local["spec"] == made["spec"]:
            return
        self.writes[f"node {name}"] += 1
        generation = local["metadata"]["generation"] + 1 if local else 1
        self.local_nodes[name] = {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNode",
            "metadata": made["metadata"] | {"generation": generation},
            "spec": made["spec"],
            "status": local["status"] if local else {},
        }

    def sync(self) -> None:
        """Call the group's hook, then those of the nodes that are due."""
        self.sync_group()
        for name in sorted(self.stale):
            self.sync_node(name)

    def run(self, seconds: float, step: float = 0.5) -> None:
        """Advance the clock, with the requested resyncs and those of every minute."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            self.now += timedelta(seconds=step)
            self.sync()

    # Actions of agents.

    def listed(self, name: str) -> list[Object]:
        local = self.local_nodes.get(name)
        return local["spec"]["localModels"] if local else []

    def suspended(self, name: str) -> set[str]:
        return {model["modelName"] for model in self.listed(name) if model.get("suspend")}

    def begun(self, name: str) -> set[str]:
        return {m["modelName"] for m in self.listed(name) if not m.get("suspend")}

    def state(self, name: str, model: str) -> str:
        models = self.local_nodes[name]["status"].get("models", ())
        return next((one["state"] for one in models if one["name"] == model), "Pending")

    def report(self, name: str, **states: str) -> None:
        """The node's agent reports these states beside those that it reported before."""
        local = self.local_nodes[name]
        told = []
        for model in self.listed(name):
            model_name = model["modelName"]
            state = states.get(model_name) or self.state(name, model_name)
            told.append(report(model, state))
        local["status"] = {
            "observedGeneration": local["metadata"]["generation"],
            "models": told,
            "modelStatus": {},
        }
        self.stale.add(name)

    def answer(self) -> None:
        """Each agent observes its LocalModelNode and starts the downloads that it may start."""
        for name in set(self.local_nodes) - self.silent:
            begun = {
                model["modelName"]: "Downloading"
                for model in self.listed(name)
                if not model.get("suspend") and self.state(name, model["modelName"]) == "Pending"
            }
            local = self.local_nodes[name]
            seen = local["status"].get("observedGeneration")
            if begun or seen != local["metadata"]["generation"]:
                self.report(name, **begun)

    def downloading(self) -> set[str]:
        """The nodes that may download and are not done, started or not."""
        return {
            name
            for name in self.local_nodes
            for model in self.listed(name)
            if not model.get("suspend")
            and self.state(name, model["modelName"]) in {"Pending", "Downloading"}
        }

    def snapshot(self) -> Object:
        return copy.deepcopy({"nodes": self.local_nodes, "plan": self.plan, "group": self.group})


def report(model: Object, state: str) -> Object:
    """One entry of an agent's status."""
    key = model_key(model["sourceModelUri"])
    told: Object = {
        "name": model["modelName"],
        "namespace": model.get("namespace", ""),
        "key": key,
        "state": state,
        "cached": state == "Downloaded",
    }
    if state == "Pending" and model.get("suspend"):
        told |= {"reason": "AwaitingTurn", "message": "other nodes come first"}
    if state == "Failed":
        told |= {"reason": "Unreachable", "message": "connection refused"}
    if state in {"Downloading", "Downloaded"}:
        told |= {"size": GIB}
    if state == "Downloaded":
        told |= {"diskBytes": GIB, "hash": f"sha256:{key:0<64}"}
    return told
