"""What the panel beside the matrix says of a cell, a model, a node or groups. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crds.quantity import format_quantity
from deploy.kube import meta
from deploy.kubectl.cells import bytes_of, condition_of, matrix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.cells import Cell, Model, NodeRow
    from deploy.kubectl.snapshot import CacheName, Snapshot

# Name, value, and "time" if the value is an RFC 3339 time.
Fact = tuple[str, str, str]


def explanation(snapshot: Snapshot, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The panel of what the parameters `model`, `node` and `groups` name.

    links: the chain from the cache to the disk. Raises ValueError if there is no such object.
    """
    cache = _cache_of(parameters.get("model", ""))
    node = parameters.get("node", "")
    groups = [name for name in parameters.get("groups", "").split(",") if name]
    if node and node not in snapshot.local_model_node_by_name:
        raise ValueError(f"There is no LocalModelNode {node} any more.")
    return {"links": [], "facts": list(_facts(snapshot, cache, node, groups))}


def _cache_of(title: str) -> CacheName | None:
    """Namespace and name of a title, `name` or `namespace/name`."""
    namespace, _, name = title.rpartition("/")
    return (namespace, name) if name else None


def _facts(
    snapshot: Snapshot, cache: CacheName | None, node: str, groups: Sequence[str]
) -> Iterator[Fact]:
    listed = snapshot.local_model_node_by_name.get(node)
    part = matrix(replace(snapshot, local_model_nodes=(listed,) if listed else ()))
    if cache is not None and node:
        cell = part.cell(cache, node)
        if cell is not None:
            yield from _of_cell(cell)
    if cache is not None:
        model = part.model_by_name.get(cache)
        if model is not None:
            yield from _of_model(model)
    elif node:
        yield from _of_node(part.nodes[0])
    for name in groups:
        group = snapshot.group_by_name.get(name)
        if group is not None:
            yield from _of_group(group, one=len(groups) == 1)


def _of_cell(cell: Cell) -> Iterator[Fact]:
    partly = cell.size and not cell.cached
    found = (
        _text("Reason", cell.reason),
        _text("Message", cell.message),
        _text("Downloaded", f"{_size(cell.done)} of {_size(cell.size)}" if partly else ""),
        _text("Rate", f"{_size(cell.rate)}/s" if cell.rate else ""),
        ("Done", cell.eta, "time"),
        _text("Failed tries", str(cell.attempts or "")),
        ("Next try", cell.next_try, "time"),
        _text("On the disk", _size(cell.disk_bytes) if cell.disk_bytes else ""),
        _text("Pods here", str(cell.pods or "")),
        ("Last used", cell.last_used, "time"),
        _text("Group", cell.group),
    )
    return (fact for fact in found if fact[1])


def _of_model(model: Model) -> Iterator[Fact]:
    yield _text("Source", model.uri)
    yield _text("Size", _size(model.size))
    yield _text("Copies", f"{model.available} of {model.total} available")
    yield _text("Groups", ", ".join(model.groups) or "none")
    if model.pinned:
        yield _text("Retention", "Pinned")
    yield _text("Pods", str(model.pods))
    yield _text("Folder", f"models/{model.key}")
    if model.ready != "True" and model.message:
        yield _text("Cache", f"{model.reason}: {model.message}")


def _of_node(node: NodeRow) -> Iterator[Fact]:
    if not node.ready:
        yield _text("Node", "not Ready")
    if node.problem:
        yield _text("Problem", node.problem)
    if not node.reported:
        yield _text("Agent", "has not reported yet")
    if node.capacity:
        yield _text("Disk", f"{_size(node.free)} free of {_size(node.capacity)}")
        yield _text("Used", _size(node.used))
    yield _text("Groups", ", ".join(node.groups) or "none")


def _of_group(group: KubeObject, *, one: bool) -> Iterator[Fact]:
    prefix = "" if one else f"{meta.name(group)}: "
    ready = condition_of(group, "Ready")
    spec, status = group.get("spec") or {}, group.get("status") or {}
    yield _text(f"{prefix}Limit", _size(bytes_of(spec.get("storageLimit"))))
    yield _text(f"{prefix}Used", f"{_size(bytes_of(status.get('used')))} on the fullest node")
    if ready:
        yield _text(f"{prefix}{ready.get('reason')}", str(ready.get("message") or ""))


def _text(name: str, value: str) -> Fact:
    return (name, value, "")


def _size(count: int) -> str:
    return f"{format_quantity(count)}B"
