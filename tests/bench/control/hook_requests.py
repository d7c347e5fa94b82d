"""Requests to single hooks, as Metacontroller makes them of objects that a real server stored."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from crds.base import API_VERSION
from crds.keys import model_key
from hooks.naming import warm_label
from tests.bench.control import objects

Object = dict[str, Any]

CREATED = "2026-11-24T03:00:00Z"
_NOW = datetime(2026, 11, 24, 3, 5, tzinfo=UTC)


def nodegroups_sync(nodes: int, models: int) -> Object:
    """/nodegroups/sync of a group all of whose nodes have reported everything."""
    spec = objects.node_spec(models)
    status = objects.node_status(models, 1, _NOW)
    names = [f"node-{number}" for number in range(1, nodes + 1)]
    caches = [_cache(number, names) for number in range(1, models + 1)]
    return {
        "controller": _controller("CompositeController", "localmodel-nodegroups"),
        # As the CRD has it, until the answer is stored.
        "parent": {
            **_stored(objects.group(models), "bench"),
            "status": {"observedGeneration": -1},
        },
        "children": {f"LocalModelPlacement.{API_VERSION}": {}, "PersistentVolume.v1": {}},
        "related": {
            f"LocalModelCache.{API_VERSION}": {one["metadata"]["name"]: one for one in caches},
            f"LocalModelNamespaceCache.{API_VERSION}": {},
            f"LocalModelNode.{API_VERSION}": {
                name: _local_model_node(name, spec, status) for name in names
            },
        },
        "finalizing": False,
    }


def nodes_sync(models: int) -> Object:
    """/nodes/sync of a node that has everything."""
    name = "node-1"
    labels = {
        warm_label(model.model_name, model.namespace): model.key
        for model in objects.local_models(models)
    }
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"pool": "gpu", **labels}},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    spec = objects.node_spec(models)
    (ref,) = spec["groups"]
    placement = {
        "apiVersion": API_VERSION,
        "kind": "LocalModelPlacement",
        "metadata": {"name": objects.GROUP},
        "spec": {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [{"key": "pool", "operator": "In", "values": ["gpu"]}],
                    "matchFields": [],
                }
            ],
            **{key: value for key, value in ref.items() if key != "name"},
            "models": [
                {key: value for key, value in model.items() if key != "nodeGroup"}
                for model in spec["localModels"]
            ],
        },
    }
    status = objects.node_status(models, 1, _NOW)
    return {
        "controller": _controller("DecoratorController", "localmodel-nodes"),
        "object": _stored(node, "localmodel-local"),
        "attachments": {
            f"LocalModelNode.{API_VERSION}": {name: _local_model_node(name, spec, status)}
        },
        "related": {
            f"LocalModelPlacement.{API_VERSION}": {
                objects.GROUP: _stored(placement, "metacontroller")
            }
        },
        "finalizing": False,
    }


def _controller(kind: str, name: str) -> Object:
    return {
        "apiVersion": "metacontroller.k8s.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
    }


def _cache(number: int, names: list[str]) -> Object:
    found = _stored(objects.cache(number), "bench")
    key = model_key(objects.model_uri(number))
    told = [
        ("Ready", "ModelCached", f"on {len(names)} of {len(names)} nodes"),
        ("Admitted", "Placed", f"in the plan of {objects.GROUP}"),
        ("ClaimsBound", "NoClaims", "no namespace is to have a claim"),
        ("SizeAsDeclared", "SizeAsDeclared", "as declared"),
    ]
    status = {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "observedGeneration": 1,
                "lastTransitionTime": CREATED,
                "reason": reason,
                "message": message,
            }
            for kind, reason, message in told
        ],
        "copies": {"available": len(names), "failed": 0, "total": len(names)},
        "key": key,
        "nodeStatus": dict.fromkeys(names, "NodeDownloaded"),
        "progress": 100,
    }
    return {**found, "status": status}


def _local_model_node(name: str, spec: Object, status: Object) -> Object:
    owner = {
        "apiVersion": "v1",
        "blockOwnerDeletion": True,
        "controller": True,
        "kind": "Node",
        "name": name,
        "uid": _uid("Node", name),
    }
    found = _stored(
        {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNode",
            "metadata": {**objects.node_metadata(name), "ownerReferences": [owner]},
            "spec": spec,
        },
        "metacontroller",
    )
    reported = {
        "apiVersion": API_VERSION,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": _fields(status)},
        "manager": "localmodel-agent",
        "operation": "Apply",
        "subresource": "status",
        "time": CREATED,
    }
    found["metadata"]["managedFields"].append(reported)
    return {**found, "status": status}


def _stored(found: Object, manager: str) -> Object:
    """An object with what the API server adds: who wrote what, when, and its identity."""
    metadata = found["metadata"]
    applied = {
        "apiVersion": found["apiVersion"],
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {
                f"f:{key}": {f"f:{name}": {} for name in value}
                for key, value in metadata.items()
                if isinstance(value, dict)
            },
            "f:spec": _fields(found["spec"]),
        },
        "manager": manager,
        "operation": "Apply",
        "time": CREATED,
    }
    return {
        **found,
        "metadata": {
            **metadata,
            "uid": _uid(found["kind"], metadata["name"]),
            "resourceVersion": "4711",
            "generation": 1,
            "creationTimestamp": CREATED,
            "managedFields": [applied],
        },
    }


def _fields(content: Object) -> Object:
    return {f"f:{key}": {} for key in content}


def _uid(kind: str, name: str) -> str:
    digest = hashlib.sha256(f"{kind}/{name}".encode()).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
