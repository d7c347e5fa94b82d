"""Objects of a small cluster in which all is well, to be changed by each test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crds.keys import model_key
from deploy.kubectl.snapshot import Snapshot, snapshot_of

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
URI = "s3://models/llama"
KEY = model_key(URI)
GIB = 1 << 30


def ago(seconds: int) -> str:
    """A time before NOW, as in objects."""
    then = datetime.fromtimestamp(NOW.timestamp() - seconds, tz=UTC)
    return then.isoformat(timespec="seconds").replace("+00:00", "Z")


def condition(kind: str, status: str, reason: str, message: str = "", since: int = 600) -> Any:
    """A condition."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message or f"the message of {reason}",
        "lastTransitionTime": ago(since),
    }


def managed(*, spec: int = 600, status: int = 5) -> list[dict[str, Any]]:
    """managedFields: when the spec and the status were written, in seconds before NOW."""
    return [
        {"manager": "metacontroller", "time": ago(spec)},
        {"manager": "localmodel-agent", "subresource": "status", "time": ago(status)},
    ]


def cache(*conditions: Any, name: str = "llama", namespace: str = "", **spec: Any) -> KubeObject:
    """A cache; conditions replace those of the same type."""
    metadata: dict[str, Any] = {"name": name, "generation": 1, "creationTimestamp": ago(600)}
    if namespace:
        metadata["namespace"] = namespace
    usual = {
        "Ready": condition("Ready", "True", "ModelCached", "on 2 of 2 nodes"),
        "Admitted": condition("Admitted", "True", "Placed", "in the plan of gpu"),
        "ClaimsBound": condition("ClaimsBound", "True", "NoClaims", "no namespace is to have one"),
    } | {one["type"]: one for one in conditions}
    return {
        "kind": "LocalModelNamespaceCache" if namespace else "LocalModelCache",
        "metadata": metadata,
        "spec": {"sourceModelUri": URI, "modelSize": "1Gi", "nodeGroup": "gpu"} | spec,
        "status": {"observedGeneration": 1, "conditions": list(usual.values())},
    }


def group(*conditions: Any, name: str = "gpu", **status: Any) -> KubeObject:
    """A group of the nodes with the label pool=gpu."""
    ready = condition("Ready", "True", "NodesFound", "2 nodes, 1 model, 2 of 2 copies available")
    return {
        "kind": "LocalModelNodeGroup",
        "metadata": {"name": name, "generation": 1, "creationTimestamp": ago(700)},
        "spec": {"storageLimit": "10Gi", "nodeSelector": {"pool": "gpu"}},
        "status": {
            "observedGeneration": 1,
            "conditions": list(conditions) or [ready],
            "nodes": ["node-1", "node-2"],
            "models": [{"name": "llama", "key": KEY, "states": "AA"}],
            "used": "1Gi",
        }
        | status,
    }


def entry(name: str = "llama", namespace: str = "", **fields: Any) -> dict[str, Any]:
    """An entry of a LocalModelNode or a LocalModelPlacement."""
    found = {"modelName": name, "sourceModelUri": URI, "modelSize": "1Gi"} | fields
    return found | ({"namespace": namespace} if namespace else {})


def placement(*entries: Any, name: str = "gpu", written: int = 600) -> KubeObject:
    """The plan of a group."""
    expression = {"key": "pool", "operator": "In", "values": ["gpu"]}
    return {
        "kind": "LocalModelPlacement",
        "metadata": {"name": name, "managedFields": managed(spec=written)[:1]},
        "spec": {
            "storageLimit": "10Gi",
            "nodeSelectorTerms": [{"matchExpressions": [expression]}],
            "models": list(entries) if entries else [entry()],
        },
    }


def report(state: str = "Downloaded", name: str = "llama", **fields: Any) -> dict[str, Any]:
    """What an agent reports of a model."""
    there = {"size": GIB, "diskBytes": GIB} if state == "Downloaded" else {}
    return {
        "name": name,
        "key": KEY,
        "state": state,
        "cached": state == "Downloaded",
        **there,
        **fields,
    }


def local_model_node(
    name: str = "node-1",
    *reports: Any,
    entries: list[Any] | None = None,
    conditions: tuple[Any, ...] = (),
    metadata: dict[str, Any] | None = None,
    ready: bool = True,
    **status: Any,
) -> KubeObject:
    """A LocalModelNode, by default with a copy of the model."""
    return {
        "kind": "LocalModelNode",
        "metadata": {
            "name": name,
            "generation": 2,
            "labels": {"nodegroup.serving.kserve.io/gpu": ""},
            "managedFields": managed(),
        }
        | (metadata or {}),
        "spec": {
            "nodeReady": ready,
            "groups": [
                {"name": "gpu", "storageLimit": "10Gi", "eviction": {"policy": "LRU"}},
            ],
            "localModels": [entry(nodeGroup="gpu")] if entries is None else entries,
        },
        "status": {
            "observedGeneration": 2,
            "conditions": list(conditions),
            "models": list(reports) or [report()],
            "disk": {"capacity": "100Gi", "used": "40Gi", "available": "60Gi"},
        }
        | status,
    }


def node(name: str = "node-1", *, ready: str = "True", **labels: str) -> KubeObject:
    """A Node as in a snapshot."""
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {"pool": "gpu"}},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def cluster(*objects: KubeObject, without: tuple[str, ...] = (), **fields: Any) -> Snapshot:
    """A snapshot of two nodes with one model; objects replace those of the same kind and name.

    without: names of kinds whose usual objects are missing.
    """
    usual = [
        cache(),
        group(),
        placement(),
        *(local_model_node(name) for name in ("node-1", "node-2")),
        *(node(name) for name in ("node-1", "node-2")),
    ]
    found: dict[str, dict[tuple[str, str], KubeObject]] = {}
    for one in [*(one for one in usual if one["kind"] not in without), *objects]:
        key = (one["metadata"].get("namespace", ""), one["metadata"]["name"])
        found.setdefault(one["kind"], {})[key] = one
    return snapshot_of({kind: tuple(one.values()) for kind, one in found.items()}, at=NOW, **fields)
