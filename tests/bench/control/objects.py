"""The objects of the benchmark, in the form that users, hooks and agents give them. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.control.rows import Row, Table
from agent.control.status import StatusBuilder
from agent.control.wanted import wanted_of
from agent.disk.on_disk import Disk, Found, OnDisk
from agent.structs.manifest import ManifestFile, make_manifest
from agent.structs.requests import Transfer
from crds.base import API_VERSION, ObjectMeta
from crds.node import (
    LocalModel,
    LocalModelNode,
    LocalModelNodeGroupRef,
    LocalModelNodeSpec,
)
from crds.nodegroup import LocalModelNodeGroupSpec
from hooks.naming import group_label

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from agent.control.wanted import Wish

Object = dict[str, Any]

GROUP = "gpu"
MODEL_SIZE = "16Gi"
_GIB = 1 << 30
_BYTES = 15 * _GIB + 4321
_DISK = 4096 * _GIB
_DECORATOR = {"metacontroller.k8s.io/decorator-controller": "localmodel-nodes"}


def model_name(number: int) -> str:
    """Name of a cache; they count from 1."""
    return f"model-{number:03d}"


def model_uri(number: int) -> str:
    """Where it is said to be."""
    return f"s3://models/{model_name(number)}"


def storage_limit(models: int) -> str:
    """Far more than the models take, so that capacity decides nothing."""
    return f"{32 * (models + 2)}Gi"


def cache(number: int) -> Object:
    """A LocalModelCache, as its user applies it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelCache",
        "metadata": {"name": model_name(number)},
        "spec": {
            "sourceModelUri": model_uri(number),
            "modelSize": MODEL_SIZE,
            "nodeGroup": GROUP,
        },
    }


def group(models: int) -> Object:
    """The LocalModelNodeGroup, as its user applies it: no limit of how many download at once."""
    spec: Object = {"nodeSelector": {"pool": "gpu"}, "storageLimit": storage_limit(models)}
    if "download" in LocalModelNodeGroupSpec.model_fields:
        spec["download"] = {"maxConcurrentNodes": "100%"}
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNodeGroup",
        "metadata": {"name": GROUP},
        "spec": spec,
    }


def local_models(models: int) -> tuple[LocalModel, ...]:
    """What a node shall have."""
    return tuple(
        LocalModel(
            model_name=model_name(number),
            source_model_uri=model_uri(number),
            model_size=MODEL_SIZE,
            node_group=GROUP,
        )
        for number in range(1, models + 1)
    )


def node_spec(models: int) -> Object:
    """A LocalModelNode's spec, as the hooks write it."""
    eviction = LocalModelNodeGroupSpec(
        storage_limit=storage_limit(models), node_selector={"pool": "gpu"}
    ).eviction_settings
    ref = LocalModelNodeGroupRef(name=GROUP, storage_limit=storage_limit(models), eviction=eviction)
    return LocalModelNodeSpec(
        local_models=local_models(models), groups=(ref,), node_ready=True
    ).to_json()


def node_metadata(name: str) -> Object:
    """A LocalModelNode's metadata, as the hooks and Metacontroller write them, without an owner."""
    return {"name": name, "labels": {group_label(GROUP): ""}, "annotations": _DECORATOR}


def node_status(models: int, generation: int, now: datetime, share: float = 1.0) -> Object:
    """A LocalModelNode's status, as its agent reports it: with this share of each model here."""
    node = LocalModelNode(
        metadata=ObjectMeta(name="node", generation=generation),
        spec=LocalModelNodeSpec(local_models=local_models(models)),
    )
    wanted = wanted_of(node)
    row = _complete if share >= 1 else _partial
    table = Table(
        now=0.0,
        grace=0.0,
        max_downloads=0,
        wanted=wanted,
        rows={key: row(key, wish, share) for key, wish in wanted.wishes.items()},
        disk=Disk(_DISK, models * _BYTES, _DISK - models * _BYTES),
    )
    status = StatusBuilder().build(table, {}, (), (), now)
    return status.to_json()


def _complete(key: str, wish: Wish, _share: float) -> Row:
    files: Sequence[ManifestFile] = [
        ManifestFile(path="model.safetensors", size=_BYTES, sha256=(key * 4)[:64])
    ]
    manifest = make_manifest(wish.entries[0].model.source_model_uri, files)
    return Row(key, wish, OnDisk(Found.PUBLISHED, manifest, tree_bytes=_BYTES))


def _partial(key: str, wish: Wish, share: float) -> Row:
    done = int(_BYTES * share)
    transfer = Transfer(done=done, total=_BYTES, bytes_per_second=250_000_000, listed=True)
    return Row(key, wish, OnDisk(Found.STAGED, staged_bytes=done), transfer=transfer)


def spec_text(models: int) -> str:
    """A LocalModelNode's spec, made once for all nodes."""
    return json.dumps(node_spec(models))


def spec_body(name: str, spec: str) -> bytes:
    """What applies a whole LocalModelNode."""
    return _body({"metadata": node_metadata(name)}, f'"spec": {spec}')


def status_body(name: str, version: str, status: str) -> bytes:
    """What applies a LocalModelNode's status, as an agent does: to the version that it has seen."""
    metadata = {"name": name, "resourceVersion": version}
    return _body({"metadata": metadata}, f'"status": {status}')


def _body(fields: Object, content: str) -> bytes:
    head = json.dumps({"apiVersion": API_VERSION, "kind": "LocalModelNode"} | fields)
    return f"{head[:-1]}, {content}}}".encode()
