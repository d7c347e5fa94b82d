"""Why a model is, or is not, on a node: the chain from the cache to the copy. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from deploy.kube.kinds import LOCAL_MODEL_NODES
from deploy.kubectl import why_claims, why_cluster, why_node
from deploy.kubectl.cells import CellState, cells_of_cache, groups_of
from deploy.kubectl.details import NO_DETAILS, Details
from deploy.kubectl.links import Chain, Link, LinkState, until_broken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.cells import Cell
    from deploy.kubectl.snapshot import CacheName, Snapshot

# The node whose state is explained, if none is named: the order is that of the cache's condition
# Ready, which reports failures first, and which evicted copies and nodes that are not Ready make
# False only if no node has the model.
_FIRST = (
    CellState.FAILED,
    CellState.DOWNLOADING,
    CellState.WAITING,
    CellState.UNREPORTED,
    CellState.AVAILABLE,
    CellState.EVICTED,
    CellState.NOT_READY,
)


def why(
    snapshot: Snapshot,
    cache: CacheName,
    node: str = "",
    details: Details = NO_DETAILS,
) -> Chain:
    """The chain of a cache to its copy on a node.

    node: empty means the node that shows best what is wrong: see `told_node`. details: see
    read_details; without them, the chain says less of claims, pods, and programs that are down.
    Raises KeyError if the snapshot does not have the cache.
    """
    obj = snapshot.cache_by_name[cache]
    cells = cells_of_cache(snapshot, cache)
    shown = node or told_node(snapshot, obj, cells)
    return Chain(
        model="/".join(filter(None, cache)),
        node=shown,
        links=tuple(_links(snapshot, obj, cells, shown, details, named=bool(node))),
        states=Counter(cell.state.value for cell in cells.values()),
    )


def told_node(snapshot: Snapshot, cache: KubeObject, cells: Mapping[str, Cell]) -> str:
    """The node that shows best what is wrong with a model; empty if its groups have no nodes."""
    # A copy that is being removed is not where the model should be.
    wanted = [name for name, cell in cells.items() if cell.state is not CellState.REMOVING]
    if wanted:
        return min(wanted, key=lambda name: (_FIRST.index(cells[name].state), name))
    for group in groups_of(cache):
        found = snapshot.group_by_name.get(group) or {}
        for name in (found.get("status") or {}).get("nodes") or ():
            return str(name)
    return next(iter(why_cluster.selected_nodes(snapshot, cache)), "")


def _links(
    snapshot: Snapshot,
    cache: KubeObject,
    cells: Mapping[str, Cell],
    node: str,
    details: Details,
    *,
    named: bool,
) -> Iterator[Link]:
    last = None
    for link in until_broken(why_cluster.links(snapshot, cache, details)):
        last = link
        yield link
    if last is not None and last.state in {LinkState.WAITING, LinkState.BROKEN}:
        return
    if node or not snapshot.knows(LOCAL_MODEL_NODES):
        own = until_broken(why_node.links(snapshot, cache, node, cells.get(node), details))
        last = None
        for link in own:
            last = link
            yield link
        # Where the user may not read what is on the node, the status of the cache still says much.
        seen = last is not None and last.state is LinkState.OK
        if (seen and not named) or (last is not None and last.state is LinkState.UNKNOWN):
            yield from why_cluster.counted(snapshot, cache, cells, details)
    yield from why_claims.links(cache, node, cells.get(node), details)
