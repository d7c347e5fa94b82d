"""What tests see of a loop beyond what it writes: the one place that knows its private names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.capacity.holdings import Holding
    from agent.capacity.ledger import Ledger
    from agent.cluster.pod_mounts import PodMounts
    from agent.control.access_checks import Checks
    from agent.control.loop import Loop
    from agent.control.node_state import NodeState
    from agent.control.scrubbing import Scrubbing
    from agent.disk.inventory import Inventory
    from agent.jobs.reservations import Reservations
    from agent.jobs.workers import Task


def state(loop: Loop) -> NodeState:
    return loop._state


def tasks(loop: Loop) -> dict[str, Task]:
    """The running downloads by key."""
    return loop._state.tasks


def inventory(loop: Loop) -> Inventory:
    return loop._state.inventory


def reservations(loop: Loop) -> Reservations:
    return loop._state._reservations


def holding(loop: Loop, key: str) -> Holding:
    """A model with what it has reserved by now."""
    return reservations(loop)._holding(key)


def ledger(loop: Loop) -> Ledger:
    """The ledger of the last step."""
    return loop._state._ledger


def making_room(loop: Loop) -> str | None:
    """For which download the last plan makes room."""
    return loop._plan.making_room


def checks(loop: Loop) -> Checks:
    return loop._checks


def pods(loop: Loop) -> tuple[PodMounts, ...] | None:
    """As they were observed last."""
    return loop._state.pod_usage._pods


def scrubbing(loop: Loop) -> Scrubbing:
    return loop._background_reads._scrubbing


def is_reading(loop: Loop) -> bool:
    """Whether a published copy is scrubbed or digested now."""
    digesting = loop._background_reads._digesting
    return bool(scrubbing(loop)._key) or any(digesting._running.values())


def kept(loop: Loop) -> dict[str, int]:
    """How much a loop still knows of models, by where."""
    state, reads = loop._state, loop._background_reads
    refusals = loop._workers._refusals
    assert refusals is not None
    return {
        "requests": len(state.requests),
        "wishes": len(state.wanted.wishes),
        "rows": len(state._rows),
        "tasks": len(state.tasks),
        "retries": len(state.retries._retries),
        "failures that were told": len(loop._node_events._failures),
        "waiting": len(loop._node_events._waiting),
        "downloads that were told": len(loop._node_events._downloading),
        "waiting pods": len(loop._waiting_pods._reported) if loop._waiting_pods else 0,
        "reserved": len(reservations(loop).reserved),
        "learned sizes": len(reservations(loop).learned),
        "listed": len(state._listed),
        "checks": len(loop._checks._running),
        "names": len(state.owners._by_key),
        "pods": len(state.pod_usage._names),
        "entries": len(loop._reporter._builder._made),
        "removals": len(state.removal_at),
        "notices": len(state.notices._notices),
        "folders of volumes": len(state.inventory.folders),
        "refused folders": len(refusals._known),
        "digests": len(reads._digesting._running),
        "reads": len(reads._scrubbing._read),
    }
