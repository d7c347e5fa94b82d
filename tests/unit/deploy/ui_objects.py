"""Objects of a small cluster for the tests of the plugin's page."""

from __future__ import annotations

from typing import Any

from crds.keys import model_key
from deploy.kube.kinds import CACHES, GROUPS, LOCAL_MODEL_NODES, NODES, PLACEMENTS, Kind, KubeObject

MODELS = ("llama", "mistral", "qwen")
SIZE = 1000
TIME = "2026-01-01T00:00:00Z"


def head(kind: Kind, name: str) -> KubeObject:
    metadata = {"name": name, "generation": 1, "creationTimestamp": TIME}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}


def status(kind: str, state: str, reason: str, message: str, **fields: Any) -> dict[str, Any]:
    """A status with one condition."""
    condition = {"type": kind, "status": state, "reason": reason, "message": message}
    times = {"lastTransitionTime": TIME, "observedGeneration": 1}
    return {"observedGeneration": 1, "conditions": [condition | times]} | fields


def uri(model: str) -> str:
    return f"s3://models/{model}"


def cache(name: str, group: str = "gpu") -> KubeObject:
    spec = {"sourceModelUri": uri(name), "modelSize": "1Gi", "nodeGroup": group}
    found = status("Admitted", "True", "Admitted", "by all groups", copies={"total": 3})
    return head(CACHES, name) | {"spec": spec, "status": found}


def group(name: str) -> KubeObject:
    spec = {"nodeSelector": {"pool": name}, "storageLimit": "10Gi"}
    found = status("Ready", "True", "NodesFound", "3 nodes", nodes=["node-1", "node-2", "node-3"])
    return head(GROUPS, name) | {"spec": spec, "status": found}


def placement(name: str) -> KubeObject:
    """The plan of a group, with all models."""
    entries = [{"modelName": one, "sourceModelUri": uri(one)} for one in MODELS]
    return head(PLACEMENTS, name) | {"spec": {"models": entries}}


def report(model: str, state: str = "Downloaded", **fields: Any) -> dict[str, Any]:
    found = {"key": model_key(uri(model)), "name": model, "state": state, "size": SIZE}
    return found | {"cached": state == "Downloaded"} | fields


def local_model_node(
    name: str, *reports: dict[str, Any], groups: tuple[str, ...] = ("gpu",)
) -> KubeObject:
    """A LocalModelNode with an entry and a report for each model."""
    entries = [
        {
            "modelName": one["name"],
            "sourceModelUri": uri(one["name"]),
            "modelSize": "1Gi",
            "nodeGroup": groups[0],
        }
        for one in reports
    ]
    spec = {
        "localModels": entries,
        "groups": [{"name": one, "storageLimit": "10Gi"} for one in groups],
        "nodeReady": True,
    }
    disk = {"capacity": "100Gi", "used": "40Gi", "available": "60Gi"}
    found = status("DiskReady", "True", "DiskReady", "", models=list(reports), disk=disk)
    return head(LOCAL_MODEL_NODES, name) | {"spec": spec, "status": found}


def node(name: str, *, ready: bool = True) -> KubeObject:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    labels = {"pool": "gpu"}
    found = head(NODES, name)
    found["metadata"]["labels"] = labels
    return found | {"status": {"conditions": [condition]}}


def cluster(nodes: int = 3) -> dict[str, list[KubeObject]]:
    """All models are on all nodes, in one group."""
    names = [f"node-{number}" for number in range(1, nodes + 1)]
    return {
        "LocalModelCache": [cache(name) for name in MODELS],
        "LocalModelNodeGroup": [group("gpu")],
        "LocalModelPlacement": [placement("gpu")],
        "LocalModelNode": [local_model_node(one, *map(report, MODELS)) for one in names],
        "Node": [node(one) for one in names],
    }
