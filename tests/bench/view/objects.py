"""The recorded objects of the benchmark: a cluster in the middle of its work. Pure."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from crds.base import API_VERSION
from hooks.naming import group_label
from tests.bench.control.objects import (
    GROUP,
    cache,
    group,
    model_name,
    node_metadata,
    node_spec,
    node_status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]

# Of 1000 copies: so many in a state. The others are available.
_SHARES = {"Downloading": 24, "Pending": 6, "Failed": 3, "Evicted": 4}
# Of 1000 nodes.
NOT_READY = 4
_SIZE = 16 << 30
_MESSAGE = (
    "GET https://models.example.com/{name}/model.safetensors: 403 Forbidden: the secret of the "
    "ServiceAccount default has no right to read it; give it one"
)


def recorded(nodes: int, models: int, seed: int = 1) -> dict[str, list[Object]]:
    """All objects of a cluster, by the names of their kinds."""
    random = Random(seed)
    now = datetime.now(tz=UTC).replace(microsecond=0)
    names = [f"gpu-{number:04d}" for number in range(1, nodes + 1)]
    status = node_status(models, 1, now)
    found = [_local_model_node(name, models, status, random, now) for name in names]
    letters = _letters(found, models)
    return {
        "LocalModelCache": [
            _cache(number, letters[number - 1], nodes) for number in range(1, models + 1)
        ],
        "LocalModelNamespaceCache": [],
        "LocalModelNodeGroup": [_group(models, names, letters, now)],
        "LocalModelNode": found,
        "LocalModelPlacement": [_placement(models)],
        "Node": [
            _node(name, ready=one["spec"]["nodeReady"])
            for name, one in zip(names, found, strict=True)
        ],
    }


def _metadata(name: str, number: int, **fields: Any) -> Object:
    return {
        "name": name,
        "uid": f"{number:08x}-0000-4000-8000-000000000000",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    } | fields


def _local_model_node(
    name: str, models: int, status: Object, random: Random, now: datetime
) -> Object:
    own = copy.deepcopy(status)
    for report in own["models"]:
        _vary(report, random, now)
    used = sum(report.get("diskBytes", 0) for report in own["models"])
    own["disk"] = {
        "capacity": "2Ti",
        "used": str(used + random.randrange(200 << 30)),
        "available": str((2 << 40) - used - (200 << 30)),
    }
    spec = node_spec(models)
    spec["nodeReady"] = random.randrange(1000) >= NOT_READY
    metadata = _metadata(name, int(name.rpartition("-")[2])) | node_metadata(name)
    metadata["managedFields"] = _managed(own)
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNode",
        "metadata": metadata,
        "spec": spec,
        "status": own,
    }


def _managed(status: Object) -> list[Object]:
    """As server-side apply keeps them: lists that are atomic have one entry."""
    fields: Object = {f"f:{name}": {} for name in status}
    return [
        {
            "manager": "localmodel-agent",
            "operation": "Apply",
            "apiVersion": API_VERSION,
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:status": fields},
            "subresource": "status",
        }
    ]


def _vary(report: Object, random: Random, now: datetime) -> None:
    """Give the report of a copy that is there another state, in the form of the agent's."""
    state = _state(random.randrange(1000))
    if not state:
        return
    report |= {"state": state, "cached": False, "size": _SIZE}
    report.pop("hash", None)
    report["diskBytes"] = 0
    if state == "Downloading":
        done = random.randrange(_SIZE)
        rate = random.randrange(50_000_000, 400_000_000)
        end = now + timedelta(seconds=(_SIZE - done) // rate)
        report |= {
            "downloadedBytes": done,
            "diskBytes": done,
            "bytesPerSecond": rate,
            "estimatedCompletionTime": end.isoformat().replace("+00:00", "Z"),
        }
    elif state == "Pending":
        report |= {"reason": "AwaitingPlace", "message": "waits for a place: 4 models download"}
    elif state == "Failed":
        again = now + timedelta(seconds=random.randrange(300))
        report |= {
            "attempts": 1 + random.randrange(5),
            "reason": "AccessDenied",
            "message": _MESSAGE.format(name=report["name"]),
            "nextRetryTime": again.isoformat().replace("+00:00", "Z"),
        }
    else:
        report |= {"reason": "Evicted", "message": "evicted to make room for model-007"}


def _state(number: int) -> str:
    """The state of a copy by a number below 1000; empty: available."""
    for state, share in _SHARES.items():
        if number < share:
            return state
        number -= share
    return ""


_LETTERS = {"Downloaded": "A", "Downloading": "D", "Pending": "P", "Failed": "F", "Evicted": "E"}


def _letters(nodes: list[Object], models: int) -> list[str]:
    """The states of each model, as the group's status has them."""
    by_name: list[dict[str, str]] = [
        {report["name"]: _LETTERS[report["state"]] for report in node["status"]["models"]}
        if node["spec"]["nodeReady"]
        else {}
        for node in nodes
    ]
    return [
        "".join(row.get(model_name(number), "N") for row in by_name)
        for number in range(1, models + 1)
    ]


def _conditions(kind: str, reason: str, message: str) -> list[Object]:
    return [
        {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ]


def _cache(number: int, letters: str, nodes: int) -> Object:
    obj = cache(number)
    available, failed = letters.count("A"), letters.count("F")
    obj["metadata"] = _metadata(model_name(number), number)
    obj["status"] = {
        "observedGeneration": 1,
        "conditions": [
            *_conditions("Admitted", "Admitted", "by all groups"),
            *_conditions("Ready", "ModelCached", f"on {available} of {nodes} nodes"),
        ],
        "copies": {"available": available, "total": nodes, "failed": failed},
        "nodeStatus": {f"gpu-{n:04d}": "NodeDownloaded" for n in range(1, nodes + 1)},
        "size": _SIZE,
        "progress": 98,
        "pods": 0,
    }
    return obj


def _group(models: int, names: list[str], letters: list[str], now: datetime) -> Object:
    obj = group(models)
    obj["metadata"] = _metadata(GROUP, 1)
    copies = sum(len(one) for one in letters)
    available = sum(one.count("A") for one in letters)
    message = f"{len(names)} nodes, {models} models, {available} of {copies} copies available"
    obj["status"] = {
        "observedGeneration": 1,
        "conditions": _conditions("Ready", "NodesFound", message),
        "nodes": names,
        "used": f"{16 * models}Gi",
        "available": "32Gi",
        "models": [
            {"name": model_name(number), "states": states, "size": _SIZE, "downloadedBytes": 0}
            for number, states in enumerate(letters, 1)
        ],
        "lastUpdateTime": now.isoformat().replace("+00:00", "Z"),
    }
    return obj


def _placement(models: int) -> Object:
    spec = node_spec(models)
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelPlacement",
        "metadata": _metadata(GROUP, 2),
        "spec": {"storageLimit": f"{32 * models}Gi", "models": spec["localModels"]},
    }


def _node(name: str, *, ready: bool) -> Object:
    """A Node of the size that kubelets report: images take most of it."""
    images: Iterator[Object] = (
        {"names": [f"registry.example.com/team/image-{n}@sha256:{n:064x}"], "sizeBytes": n << 20}
        for n in range(1, 40)
    )
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _metadata(name, 3)
        | {"labels": {"pool": "gpu", "kubernetes.io/hostname": name, group_label(GROUP): ""}},
        "spec": {"providerID": f"example://{name}"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "images": list(images),
        },
    }


def main() -> None:
    """Print the size of the objects."""
    for kind, objects in recorded(1000, 50).items():
        print(kind, len(objects), len(json.dumps(objects)))  # noqa: T201


if __name__ == "__main__":
    main()
