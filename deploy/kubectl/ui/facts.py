"""What the panel beside the matrix says of a cell, a model, a node or groups. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crds.quantity import format_quantity
from deploy.kube import meta
from deploy.kubectl.cells import bytes_of, condition_of, matrix
from deploy.kubectl.why import why

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.cells import Cell, Model, NodeRow
    from deploy.kubectl.details import Details
    from deploy.kubectl.links import Link
    from deploy.kubectl.snapshot import CacheName, Snapshot

# Name, value, and "time" if the value is an RFC 3339 time.
Fact = tuple[str, str, str]


@dataclass(frozen=True)
class Place:
    """What the panel is about: a cell (cache and node), a model, a node, or groups."""

    cache: CacheName | None = None
    node: str = ""
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Place:
        """The place of the parameters `model` (`name` or `namespace/name`), `node`, `groups`."""
        namespace, _, name = parameters.get("model", "").rpartition("/")
        groups = (name for name in parameters.get("groups", "").split(",") if name)
        return cls((namespace, name) if name else None, parameters.get("node", ""), tuple(groups))


def panel(snapshot: Snapshot, place: Place, details: Details) -> dict[str, Any]:
    """The panel of a place.

    links: the chain from the cache to the disk; none unless the place has a cache. Raises
    ValueError if the node does not exist.
    """
    if place.node and place.node not in snapshot.local_model_node_by_name:
        raise ValueError(f"There is no LocalModelNode {place.node} any more.")
    links: tuple[Link, ...] = ()
    if place.cache in snapshot.cache_by_name:
        links = why(snapshot, place.cache, place.node, details).links
    return {"links": links, "facts": list(_facts(snapshot, place))}


def _facts(snapshot: Snapshot, place: Place) -> Iterator[Fact]:
    cache, node, groups = place.cache, place.node, place.groups
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
        else:
            yield _text("Cache", "deleted: nodes remove the copies after the grace period")
    elif node:
        yield from _of_node(part.nodes[0])
    for name in groups:
        group = snapshot.group_by_name.get(name)
        if group is not None:
            yield from _of_group(group, one=len(groups) == 1)


def _of_cell(cell: Cell) -> Iterator[Fact]:
    partly = cell.size and not cell.cached
    found = (
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
    """Bytes as 16 GiB; format_quantity says 16Gi."""
    text = format_quantity(count)
    number = text.rstrip("KMGTPEi")
    return f"{number} {text.removeprefix(number)}B"
