"""What the status is made of, from what the loop knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.control.accounts import referrer, waiting_message
from agent.control.status import (
    AWAITING_PLACE,
    CAPACITY_FULL,
    PODS_UNKNOWN,
    Copy,
    Facts,
    Waiting,
)
from agent.disk.on_disk import Found

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from agent.capacity.ledger import Shortage
    from agent.cluster.pods import PodMounts
    from agent.control.owners import Owners
    from agent.control.retries import Retries
    from agent.disk.inventory import Inventory
    from agent.structs.failures import DownloadError
    from agent.structs.requests import Request, Transfer
    from crds.node import LocalModel, LocalModelNode

_NOT_KNOWN = (
    "it does not fit beside what is here, and nothing goes for it while it is not known what the "
    "node's pods mount: see the agent's log"
)
_NO_PLACE = (
    "other models are downloaded to this node first, of which it takes {places} at a time "
    "(--max-downloads): it begins by itself when one of them ends, or takes long"
)


def waiting_of(shortages: Mapping[str, Shortage], *, pods_known: bool) -> dict[str, Waiting]:
    """Why each download waits that does not fit."""
    if not pods_known:
        return dict.fromkeys(shortages, Waiting(PODS_UNKNOWN, _NOT_KNOWN))
    return {
        key: Waiting(CAPACITY_FULL, waiting_message(shortage))
        for key, shortage in shortages.items()
    }


def in_queue(queued: Iterable[str], places: int) -> dict[str, Waiting]:
    """Why each download waits that has no place yet."""
    return dict.fromkeys(queued, Waiting(AWAITING_PLACE, _NO_PLACE.format(places=places)))


def of_services(entries: Iterable[LocalModel]) -> frozenset[str]:
    """The keys that services refer to."""
    return frozenset(entry.key for entry in entries if entry.referenced)


def referrer_of(
    key: str, of_services: Collection[str], users: Mapping[str, Sequence[PodMounts]]
) -> str:
    """Who refers to a model, in words; empty: nobody."""
    pods = (f"{pod.namespace}/{pod.name}" for pod in users.get(key, ()))
    return referrer(pods, service=key in of_services)


def make_facts(
    node: LocalModelNode,
    inventory: Inventory,
    owners: Owners,
    retries: Retries,
    *,
    transfers: Mapping[str, Transfer],
    users: Mapping[str, Sequence[PodMounts]],
    waiting: Mapping[str, Waiting],
    requests: Mapping[str, Request],
    suspended: Collection[str],
    disk_failure: DownloadError | None = None,
) -> Facts:
    """All that is known of what is wanted, and of what is here or on its way.

    `suspended` are the keys that are not begun before the node's turn.
    """
    wanted = node.spec.local_models
    keys, referenced = {entry.key for entry in wanted}, of_services(wanted)
    present = inventory.present() | transfers.keys()

    def copy_of(key: str) -> Copy:
        on_disk, request = inventory.copy(key), requests.get(key)
        return Copy(
            manifest=on_disk.manifest if on_disk.found is Found.PUBLISHED else None,
            access=on_disk.access,
            requesters=request.requesters if request else (),
            deciding=request.deciding if request else (),
            problem=on_disk.problem,
            unreadable=on_disk.is_unreadable,
            transfer=transfers.get(key),
            failures=retries.failures(key),
            disk_bytes=on_disk.tree_bytes + on_disk.staged_bytes,
            last_used=on_disk.usage.last_used_time if on_disk.usage else None,
            waiting=waiting.get(key),
            awaits_turn=key in suspended,
            suspended=request.suspended if request else frozenset(),
            evicted=on_disk.evicted,
            referrer=referrer_of(key, referenced, users),
            disk_failure=disk_failure,
        )

    return Facts(
        generation=node.metadata.generation,
        wanted=wanted,
        copies={key: copy_of(key) for key in present | keys},
        leftover={key: owners.by_key[key] for key in present - keys if key in owners.by_key},
        foreign=inventory.foreign,
        capacity=inventory.disk.capacity,
        used=inventory.disk.used,
        available=inventory.disk.available,
        disk_failure=disk_failure,
        left_out=node.spec.left_out or 0,
    )
