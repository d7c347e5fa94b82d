"""Disk use of nodes and models. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from crds.keys import model_key
from deploy.kube import meta
from deploy.kubectl.cells import bytes_of, condition_of, entries_of, reports_of

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.snapshot import Snapshot


class FolderUse(Struct, frozen=True, rename="camel"):
    """The folder of one model on one node: caches with the same URI share it.

    caches: `name` or `namespace/name`. bytes: of the disk, unfinished downloads included. cached:
    whether the copy is complete. pods: those that use the copy. pinned: by one of its caches.
    wanted: whether an entry requests the copy. evictable: whether the agent may evict the copy now
    to make room; last_used: RFC 3339, empty if no pod has mounted it.
    """

    key: str
    caches: tuple[str, ...]
    bytes: int
    cached: bool
    pods: int
    pinned: bool
    wanted: bool
    evictable: bool
    last_used: str


class NodeUse(Struct, frozen=True, rename="camel"):
    """The disk of one node, in bytes.

    models: all folders of models. evictable: the part of `models` that the agent may evict now.
    removing: the part of `models` that no entry requests. other: used by other files. foreign: what
    the agent says of folders that localmodel did not make; empty if there are none.
    """

    name: str
    capacity: int
    used: int
    free: int
    models: int
    evictable: int
    removing: int
    other: int
    foreign: str
    folders: list[FolderUse]


class ModelUse(Struct, frozen=True, rename="camel"):
    """The copies of one model on all nodes, in bytes of the disks."""

    key: str
    caches: tuple[str, ...]
    nodes: int
    copies: int
    bytes: int
    evictable: int
    pods: int


class Usage(Struct, frozen=True, rename="camel"):
    """The disk use of a cluster: models, largest first, and nodes, fullest first."""

    models: list[ModelUse]
    nodes: list[NodeUse]


def usage(snapshot: Snapshot) -> Usage:
    """The disk use, in time proportional to the size of the snapshot."""
    nodes = [_node(node) for _, node in sorted(snapshot.local_model_node_by_name.items())]
    by_key: dict[str, list[FolderUse]] = {}
    for node in nodes:
        for folder in node.folders:
            by_key.setdefault(folder.key, []).append(folder)
    models = [_model(key, folders) for key, folders in by_key.items()]
    return Usage(
        models=sorted(models, key=lambda one: (-one.bytes, one.key)),
        nodes=sorted(nodes, key=lambda one: (one.free - one.capacity, one.name)),
    )


def _model(key: str, folders: list[FolderUse]) -> ModelUse:
    caches = dict.fromkeys(cache for folder in folders for cache in folder.caches)
    return ModelUse(
        key=key,
        caches=tuple(sorted(caches)),
        nodes=len(folders),
        copies=sum(folder.cached for folder in folders),
        bytes=sum(folder.bytes for folder in folders),
        evictable=sum(folder.bytes for folder in folders if folder.evictable),
        pods=sum(folder.pods for folder in folders),
    )


def _node(node: KubeObject) -> NodeUse:
    disk = (node.get("status") or {}).get("disk") or {}
    folders = sorted(_folders(node), key=lambda one: (-one.bytes, one.key))
    capacity, used = bytes_of(disk.get("capacity")), bytes_of(disk.get("used"))
    models = sum(folder.bytes for folder in folders)
    foreign = condition_of(node, "ForeignDirectories")
    return NodeUse(
        name=meta.name(node),
        capacity=capacity,
        used=used,
        free=bytes_of(disk.get("available")),
        models=models,
        evictable=sum(folder.bytes for folder in folders if folder.evictable),
        removing=sum(folder.bytes for folder in folders if not folder.wanted),
        # Sizes of the disk are rounded.
        other=max(used - models, 0),
        foreign=str(foreign.get("message") or "") if foreign.get("status") == "True" else "",
        folders=folders,
    )


def _folders(node: KubeObject) -> list[FolderUse]:
    policy = {
        group.get("name") or "": (group.get("eviction") or {}).get("policy")
        for group in (node.get("spec") or {}).get("groups") or ()
    }
    pinned, kept, wanted = set(), set(), set()
    for entry in entries_of(node):
        key = model_key(str(entry.get("sourceModelUri") or ""))
        wanted.add(key)
        if entry.get("retention") == "Pinned":
            pinned.add(key)
        if policy.get(entry.get("nodeGroup") or "") != "LRU" or entry.get("referenced"):
            kept.add(key)
    by_key: dict[str, list[dict[str, object]]] = {}
    for report in reports_of(node):
        by_key.setdefault(str(report.get("key") or ""), []).append(report)
    return [
        _folder(
            key,
            reports,
            pinned=key in pinned,
            wanted=key in wanted,
            kept=key in pinned or key in kept,
        )
        for key, reports in by_key.items()
        if any(report.get("diskBytes") for report in reports)
    ]


def _folder(
    key: str, reports: list[dict[str, object]], *, pinned: bool, wanted: bool, kept: bool
) -> FolderUse:
    caches = ["/".join(filter(None, map(str, _names(one)))) for one in reports]
    # A cache of a namespace counts the pods of its namespace only.
    pods = max(_number(one.get("pods")) for one in reports)
    cached = any(one.get("cached") for one in reports)
    return FolderUse(
        key=key,
        caches=tuple(sorted(caches)),
        bytes=max(_number(one.get("diskBytes")) for one in reports),
        cached=cached,
        pods=pods,
        pinned=pinned,
        wanted=wanted,
        evictable=cached and wanted and not kept and not pods,
        last_used=max(str(one.get("lastUsedTime") or "") for one in reports),
    )


def _names(report: dict[str, object]) -> tuple[object, object]:
    return (report.get("namespace") or "", report.get("name") or "")


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
