"""Objects of a small cluster for the tests of the plugin's page."""

from __future__ import annotations

from typing import Any

from crds.keys import model_key
from deploy.kube.kinds import CACHES, GROUPS, LOCAL_MODEL_NODES, NODES, Kind, KubeObject

MODELS = ("llama", "mistral", "qwen")
SIZE = 1000


def head(kind: Kind, name: str) -> KubeObject:
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}}


def uri(model: str) -> str:
    return f"s3://models/{model}"


def cache(name: str, group: str = "gpu") -> KubeObject:
    spec = {"sourceModelUri": uri(name), "modelSize": "1Gi", "nodeGroup": group}
    return head(CACHES, name) | {"spec": spec}


def group(name: str) -> KubeObject:
    condition = {"type": "Ready", "status": "True", "reason": "NodesFound", "message": "3 nodes"}
    spec = {"nodeSelector": {"pool": name}, "storageLimit": "10Gi"}
    return head(GROUPS, name) | {"spec": spec, "status": {"conditions": [condition]}}


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
    status = {"models": list(reports), "disk": disk}
    return head(LOCAL_MODEL_NODES, name) | {"spec": spec, "status": status}


def node(name: str, *, ready: bool = True) -> KubeObject:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return head(NODES, name) | {"status": {"conditions": [condition]}}


def cluster(nodes: int = 3) -> dict[str, list[KubeObject]]:
    """All models are on all nodes, in one group."""
    names = [f"node-{number}" for number in range(1, nodes + 1)]
    return {
        "LocalModelCache": [cache(name) for name in MODELS],
        "LocalModelNodeGroup": [group("gpu")],
        "LocalModelNode": [local_model_node(one, *map(report, MODELS)) for one in names],
        "Node": [node(one) for one in names],
    }
