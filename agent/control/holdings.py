"""A row as the ledger counts it: what the model takes, and whether its copy may go. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localmodel.agent.capacity.ledger import Holding
from localmodel.agent.control.wanted import fillers
from localmodel.agent.disk.on_disk import Found
from localmodel.agent.jobs.reservations import Coming
from localmodel.crds.eviction import Retention

if TYPE_CHECKING:
    from localmodel.agent.control.rows import Row
    from localmodel.agent.control.wanted import Entry


def holding_of(row: Row) -> Holding:
    """The holding of a row.

    The size that a cache declares counts for nothing here: before its source has reported a size, a
    model takes nothing.
    """
    copy, foreign = row.copy, row.is_foreign
    counting = _counting(row)
    declared = max((entry.size for entry in counting), default=0)
    learned = row.learned.get((declared, Coming.REST if foreign else Coming.MODEL))
    whole = copy.found is Found.PUBLISHED
    mended = copy.found is Found.DAMAGED and row.is_in_use
    # A damaged copy gives its room to the download that replaces it, and not to one that brings its
    # bad files.
    stays = whole or mended
    return Holding(
        groups=row.wish.groups,
        size=_size(row, learned, is_mended=mended),
        tree=copy.tree_bytes if stays else 0,
        staged=copy.staged_bytes + (0 if stays else copy.tree_bytes),
        reserved=row.reserved or 0,
        resting=whole and not row.is_active and not row.is_put_off and row.serves,
        listed=row.is_listed,
        owners=_owners(counting),
        priority=max((entry.model.priority for entry in counting), default=0),
        pinned=any(entry.model.retention is Retention.PINNED for entry in counting),
        referenced=row.is_mounted or any(entry.model.referenced for entry in counting),
        mounted=row.is_mounted,
        evicted=copy.evicted is not None and not foreign,
        foreign=foreign,
        leaving=not (row.is_wanted or row.is_mounted)
        and row.keep_until is None
        and row.reserved is None,
        last_used=row.last_used,
    )


def _counting(row: Row) -> list[Entry]:
    """The entries whose word on a folder counts: of requesters that fill it or have the copy.

    A cache that has named the URI, and no more, neither pins the copy nor makes it more important.
    """
    entries = row.wish.entries
    filling = fillers(entries)
    is_known = row.copy.access is not None
    return [
        entry
        for entry in entries
        if entry.requester in filling or (is_known and entry.requester in row.granted)
    ]


def _owners(entries: list[Entry]) -> frozenset[str]:
    """The namespaces that a model is of; empty if it is the administrator's."""
    namespaces = frozenset(entry.cache.namespace for entry in entries)
    return frozenset() if "" in namespaces else namespaces


def _size(row: Row, learned: int | None, *, is_mended: bool) -> int:
    copy = row.copy
    if row.is_foreign:
        # Until its source has reported, such a folder counts as whole: its bytes are on the disk.
        return learned or 0
    if is_mended:
        return copy.bad_bytes
    if learned is not None:
        return learned
    return copy.evicted.size if copy.evicted is not None else copy.announced or 0
