"""What a LocalModelNode says of capacity, and what is on the disk, as a Ledger; and its words.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.capacity.ledger import Ledger
from agent.capacity.models import Group, Model
from agent.control.wanted import fillers, requester_of
from agent.disk.on_disk import Found, OnDisk
from agent.structs.grants import Granted
from agent.structs.sizes import EvictionReason
from crds.eviction import EvictionPolicy, Retention
from crds.quantity import format_quantity, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import datetime

    from agent.capacity.admission import Victim
    from agent.capacity.ledger import Shortage
    from agent.structs.sizes import Space
    from crds.node import LocalModel, LocalModelNode


def make_groups(node: LocalModelNode) -> dict[str, Group]:
    """The groups that the node is in."""
    return {
        group.name: Group(
            limit=parse_quantity(group.storage_limit),
            high_percent=group.eviction.high_percent,
            low_percent=group.eviction.low_percent,
            evicts=group.eviction.policy is EvictionPolicy.LRU,
        )
        for group in node.spec.groups
    }


class Learned(Protocol):
    """What a source told of a key, or of what comes beside somebody else's folder."""

    def __call__(self, key: str, declared: int, *, beside: bool) -> int | None:
        """Bytes; None: nothing yet."""
        ...


def make_ledger(
    node: LocalModelNode,
    copies: Mapping[str, OnDisk],
    space: Space,
    *,
    now: datetime,
    reserved: Mapping[str, int],
    mounted: Collection[str],
    held: Collection[str],
    foreign: Collection[str],
    resting: Callable[[str, OnDisk], bool],
    learned: Learned,
    listed: Collection[str],
    in_use: Callable[[str], bool],
) -> Ledger:
    """Who takes what.

    `mounted` are the keys that pods use, `held` those that are not wanted and stay nonetheless,
    `foreign` those in whose place somebody else's folder is; `resting` says whether a copy serves
    and nothing works on it, `learned` what a source told of a key with this declared size, `in_use`
    whether a pod may mount a copy. What is in `listed`, its source told just now.

    What a cache declares says nothing here: before its source has told, a model takes nothing.
    """
    others = frozenset(foreign)
    entries: dict[str, list[LocalModel]] = {}
    for entry in node.spec.local_models:
        entries.setdefault(entry.key, []).append(entry)
    models = {}
    for key in entries.keys() | copies.keys() | reserved.keys():
        copy, wanted = copies.get(key, OnDisk()), entries.get(key, [])
        counting = _counting(wanted, copy)
        declared = max((parse_quantity(entry.model_size) for entry in counting), default=0)
        whole, theirs = copy.found is Found.PUBLISHED, key in others
        told = learned(key, declared, beside=theirs)
        mended = copy.found is Found.DAMAGED and in_use(key)
        size = copy.bad_bytes if mended else _size(copy, told)
        # A damaged copy gives its room to the download that replaces it, and not to one that brings
        # its bad files.
        stays = whole or mended
        models[key] = Model(
            groups=frozenset(entry.node_group for entry in wanted),
            # Until its source has told, such a folder counts as whole: its bytes are on the disk.
            size=(told or 0) if theirs else size,
            tree=copy.tree_bytes if stays else 0,
            staged=copy.staged_bytes + (0 if stays else copy.tree_bytes),
            reserved=reserved.get(key, 0),
            resting=whole and resting(key, copy),
            listed=key in listed,
            owners=owners_of(counting),
            priority=max((entry.priority for entry in counting), default=0),
            pinned=any(entry.retention is Retention.PINNED for entry in counting),
            referenced=key in mounted or any(entry.referenced for entry in counting),
            mounted=key in mounted,
            evicted=copy.evicted is not None and not theirs,
            foreign=theirs,
            leaving=not wanted and key not in held and key not in reserved,
            last_used=copy.usage.age_from(now) if copy.usage else 0.0,
        )
    return Ledger(models, make_groups(node), space)


def _counting(entries: Iterable[LocalModel], copy: OnDisk) -> list[LocalModel]:
    """The entries whose word on a folder counts: of who fills it, and of who has the copy.

    Who has named the URI, and no more, neither pins it nor makes it more important.
    """
    entries = tuple(entries)
    filling = fillers(entries)
    granted = Granted(copy.access) if copy.access else ()
    return [one for one in entries if (who := requester_of(one)) in filling or who in granted]


def owners_of(entries: Iterable[LocalModel]) -> frozenset[str]:
    """The namespaces that a model is of; empty if it is the administrator's."""
    namespaces = frozenset(entry.namespace for entry in entries)
    return frozenset() if "" in namespaces else namespaces


def _size(copy: OnDisk, learned: int | None) -> int:
    if learned is not None:
        return learned
    if copy.evicted is not None:
        return copy.evicted.size
    return copy.announced or 0


def waiting_message(shortage: Shortage) -> str:
    """Why a download waits for room, and what to do."""
    account = shortage.account
    needed, free = format_quantity(shortage.needed), format_quantity(shortage.free)
    limit = format_quantity(account.limit)
    where = (
        f"of the {limit} that may be taken of the node's disk"
        if account.disk
        else f"of the storageLimit of {limit} of the group {account.group}"
    )
    if shortage.needed > account.limit:
        what = f"it needs {needed}, which is more than all {where}"
    else:
        what = f"it needs {needed}, and {free} {where} are free; nothing more can go for it now"
    todo = (
        "free space on the node, or use nodes with larger disks"
        if account.disk
        else "raise the storageLimit"
    )
    return (
        f"{what}: {todo}, or delete caches, unpin them, or end the pods and services that use them"
    )


def eviction_message(
    eviction: Victim,
    ledger: Ledger,
    *,
    size: int,
    now: datetime,
    newcomer: str,
    last_used: datetime | None,
) -> str:
    """What was evicted, why and when. `newcomer` names the model that room was made for."""
    group = ledger.groups.get(eviction.group)
    high = group.high_percent if group else 0
    if eviction.reason is EvictionReason.MADE_ROOM:
        why = f"to make room for {newcomer}"
    elif eviction.reason is EvictionReason.LIMIT_EXCEEDED:
        limit = format_quantity(group.limit if group else 0)
        why = (
            f"because the models of the group {eviction.group} took more than {high}% of its "
            f"storageLimit of {limit}"
        )
    else:
        why = f"because more than {high}% of the node's disk were taken"
    used = f"last used at {_time(last_used)}" if last_used else "never used"
    return f"{format_quantity(size)} were freed at {_time(now)} {why}; {used}"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def referrer(pods: Iterable[str], *, service: bool) -> str:
    """Who refers to a model: a pod, or a service; empty: nobody."""
    pod = min(pods, default="")
    if pod:
        return f"the pod {pod}"
    return "a service" if service else ""
