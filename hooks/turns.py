"""Turns: which nodes may download, if a group limits how many download at the same time.

The plan names the nodes that may start. Other nodes get new models suspended, and start when the
plan names them. A started download is never suspended again, so a turn costs one write of a node's
object and its end costs none. A plan without a turn lets all nodes start: that is so while no more
nodes have models to download than the limit allows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from crds.node_limit import nodes_of
from crds.nodegroup import DEFAULT_CONCURRENT_NODES, GroupDownload
from crds.placement import Turn
from crds.states import CopyState
from hooks.volumes import node_selector_terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from crds.base import Identity
    from crds.nodegroup import LocalModelNodeGroup, LocalModelNodeGroupSpec
    from crds.placement import LocalModelPlacementSpec
    from hooks.copies import Copies
    from hooks.observed import Cache, Node, NodeReport

ALL = "100%"
# Each change of the turn runs the hook of every node of the cluster.
INTERVAL_FOR_EACH_NODE = timedelta(milliseconds=5)
INTERVAL_MIN = timedelta(seconds=0.5)
INTERVAL_MAX = timedelta(seconds=30)
# A node whose agent does not respond for so long no longer takes a turn from others.
PATIENCE = timedelta(seconds=60)
# Reasons of a pending copy that would start with a turn. With another reason it waits for something
# else.
AWAITING_TURN = "AwaitingTurn"
_ABOUT_TO_BEGIN = frozenset({None, "", "Referenced", "Corrupt", AWAITING_TURN})


@dataclass(frozen=True)
class Decision:
    """The turn in the plan, the counts in the status, and the time until the next decision.

    turn: None lets all nodes start. download: None while no node waits.
    """

    turn: Turn | None = None
    download: GroupDownload | None = None
    resync: timedelta | None = None


@dataclass(frozen=True)
class _Demand:
    """Names of the nodes that download or may start, and of those that wait for their turn."""

    begun: frozenset[str]
    waiting: frozenset[str]


def decide_turn(
    group: LocalModelNodeGroup,
    caches: Sequence[Cache],
    nodes: Sequence[Node],
    copies: Mapping[Identity, Copies],
    *,
    stored: LocalModelPlacementSpec | None,
    settled: bool,
    now: datetime,
) -> Decision:
    """Decide the turn.

    caches: admitted caches. copies: their copies. stored: the stored plan. settled: whether all
    nodes of the group are known.
    """
    limit = _limit(group.spec, len(nodes))
    if limit is None:
        return Decision()
    last = stored.turn if stored else None
    demand = _demand(caches, nodes, copies, last, now)
    # With a new selector, the number of nodes is not known yet.
    new = stored is None or stored.node_selector_terms != node_selector_terms(group.spec)
    few = len(demand.begun) + len(demand.waiting) <= limit
    wanted = None if few and (settled or (last is None and not new)) else _next(demand, last, limit)
    wait = _hold(wanted, last, len(nodes), now)
    same = last is not None and wanted == frozenset(last.nodes)
    turn = last if same or wait else _turn(wanted, group.metadata.creation_timestamp, now)
    return Decision(turn, _group_download(demand, turn, limit), wait)


def _next(demand: _Demand, last: Turn | None, limit: int) -> frozenset[str]:
    """The nodes of the next turn: those that download, and as many more as the limit allows."""
    named = frozenset(last.nodes) if last else frozenset()
    kept = demand.begun | (demand.waiting & named)
    free = max(limit - len(kept), 0)
    gain = sorted(demand.waiting - kept, key=_order)[:free]
    # Removing finished nodes alone is not worth a call of every node's hook.
    return named if last is not None and not gain else kept.union(gain)


def _hold(
    wanted: frozenset[str] | None, last: Turn | None, nodes: int, now: datetime
) -> timedelta | None:
    """How long a change of the turn must wait after the last one; None: not at all."""
    if last is None or wanted == frozenset(last.nodes):
        return None
    interval = min(max(INTERVAL_FOR_EACH_NODE * nodes, INTERVAL_MIN), INTERVAL_MAX)
    wait = last.since + interval - now
    # A clock that was set back must not delay the change for long.
    return wait if timedelta(0) < wait <= interval else None


def _turn(wanted: frozenset[str] | None, created: datetime | None, now: datetime) -> Turn | None:
    """A new turn. Calls before the plan is observed must give the same answer."""
    if wanted is None:
        return None
    since = now.replace(microsecond=0) if wanted else created or now
    return Turn(nodes=tuple(sorted(wanted)), since=since)


def _group_download(demand: _Demand, turn: Turn | None, limit: int) -> GroupDownload | None:
    waiting = demand.waiting.difference(turn.nodes) if turn else frozenset()
    if not waiting:
        return None
    downloading = len(demand.begun) + len(demand.waiting) - len(waiting)
    return GroupDownload(limit=limit, downloading=downloading, waiting=len(waiting))


def _limit(spec: LocalModelNodeGroupSpec, nodes: int) -> int | None:
    asked = spec.download.max_concurrent_nodes if spec.download else None
    if asked is None:
        asked = str(DEFAULT_CONCURRENT_NODES) if spec.node_selector is not None else ALL
    return None if asked == ALL else nodes_of(asked, nodes)


def _demand(
    caches: Sequence[Cache],
    nodes: Sequence[Node],
    copies: Mapping[Identity, Copies],
    last: Turn | None,
    now: datetime,
) -> _Demand:
    patient = last is None or now - last.since <= PATIENCE
    begun: set[str] = set()
    waiting: set[str] = set()
    for cache in caches:
        identity = cache.identity
        of_it = copies[identity]
        for node, state, report in zip(nodes, of_it.states, of_it.reports, strict=True):
            if state is CopyState.DOWNLOADING:
                begun.add(node.metadata.name)
            elif state is CopyState.PENDING and _may_begin(report):
                listed = node.listed.get(identity)
                if listed is None or listed.suspend:
                    waiting.add(node.metadata.name)
                elif patient or node.answered:
                    begun.add(node.metadata.name)
    return _Demand(frozenset(begun), frozenset(waiting - begun))


def _may_begin(report: NodeReport | None) -> bool:
    return report is None or (not report.cached and report.reason in _ABOUT_TO_BEGIN)


def _order(name: str) -> tuple[int, str]:
    """Order by a digest of the name: nodes with similar names share a rack and its uplink."""
    return (zlib.crc32(name.encode()), name)
