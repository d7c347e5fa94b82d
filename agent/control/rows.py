"""The table of rows: all that one step of the agent knows, with one row for each key. Pure.

A step makes the table once from the node, the disk, the running downloads, the failures and the
pods (control/node_state.py). The plan, the ledger, the status and the events read rows, and nothing
else. What follows from a row is computed when it is first read, and kept with the row: a row that
is the same as in the step before is the same object, so a step costs what has changed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.capacity.holdings import Holding
from agent.capacity.ledger import Ledger
from agent.control import serving
from agent.control.model_retries import NO_RETRIES
from agent.control.node_requests import NOTHING_ASKED
from agent.control.wanted import NO_WISH, NOTHING_WANTED, fillers
from agent.disk.on_disk import Disk, Found, OnDisk
from agent.jobs.reservations import Coming
from agent.structs.grants import Granted
from agent.structs.sizes import EvictionReason
from crds.eviction import Retention

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent.capacity.places import Hold
    from agent.cluster.pod_mounts import PodUse
    from agent.control.model_retries import Retry
    from agent.control.node_requests import Asked
    from agent.control.wanted import Entry, Wanted, Wish
    from agent.structs.failures import DownloadError
    from agent.structs.manifest import CacheName, Manifest
    from agent.structs.records import Evicted
    from agent.structs.requests import Failure, Request, Requester, Transfer

ABSENT = OnDisk()
_NO_DISK = Disk(0, 0, 0)
NO_SIZES: Mapping[tuple[int, Coming], int] = MappingProxyType({})


@dataclass(frozen=True)
class Row:
    """All that a step knows of one key. Times are monotonic seconds, sizes bytes.

    `owners` are the caches that want the model, or wanted it last. `pods` are those that use the
    model; None if the node's pods are not known, so that any copy may be in use. `learned` has what
    sources reported: see Reservations.learned.
    """

    key: str
    wish: Wish = NO_WISH
    copy: OnDisk = ABSENT
    # Somebody else's folder is in the model's place.
    is_foreign: bool = False
    # Its volume has a folder here.
    has_folder: bool = False
    # The copy is about to be evicted, and reported as evicted already.
    notice: Evicted | None = None
    # How far the running download is, and its place; None if none runs.
    transfer: Transfer | None = None
    hold: Hold | None = None
    is_cancelling: bool = False
    retries: Mapping[Requester, Retry] = field(default_factory=lambda: NO_RETRIES)
    owners: tuple[CacheName, ...] = ()
    pods: tuple[PodUse, ...] | None = ()
    # What the running download has reserved.
    reserved: int | None = None
    learned: Mapping[tuple[int, Coming], int] = field(default_factory=lambda: NO_SIZES)
    # The source reported the size just now, for a download that did not fit.
    is_listed: bool = False
    # Until when the copy stays although no entry wants it: its removal failed, or the
    # LocalModelNode is too new to be believed. A copy whose removal failed just now is put off.
    keep_until: float | None = None
    is_put_off: bool = False
    # When the copy was used, or published, last: see Usage.age_from.
    last_used: float = 0.0
    # What annotations of the LocalModelNode request, as far as the time of the request has come.
    asked: Asked = NOTHING_ASKED

    @property
    def request(self) -> Request | None:
        """The download that the entries ask for; None if there is no entry, or all are refused."""
        return self.wish.request

    @property
    def is_wanted(self) -> bool:
        """Whether the LocalModelNode lists the key."""
        return bool(self.wish.entries)

    @property
    def is_active(self) -> bool:
        """Whether a download runs."""
        return self.transfer is not None

    @property
    def is_mounted(self) -> bool:
        """Whether a pod surely mounts the model."""
        return bool(self.pods)

    @property
    def is_in_use(self) -> bool:
        """Whether a pod may mount the model, as far as is known."""
        return self.pods is None or bool(self.pods)

    @cached_property
    def is_awaited(self) -> bool:
        """Whether a pod of the node has a container that waits to mount the model."""
        return any(pod.waits for pod in self.pods or ())

    @cached_property
    def pods_of(self) -> Counter[str]:
        """The number of pods that use the model, by their namespace."""
        return Counter(pod.namespace for pod in self.pods or ())

    @cached_property
    def is_there(self) -> bool:
        """Whether anything of the model is on the disk, noted there, or on its way."""
        copy = self.copy
        noted = copy.evicted is not None or self.has_folder
        return copy.is_published or copy.is_left or self.is_active or noted

    @property
    def is_present(self) -> bool:
        """Whether there are files of the model, or a download that makes some."""
        return self.copy.found is not Found.NOTHING or self.is_active

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of a whole copy."""
        return self.copy.manifest if self.copy.found is Found.PUBLISHED else None

    @cached_property
    def granted(self) -> Granted:
        """Who may have the copy."""
        return Granted(self.copy.access)

    @cached_property
    def granted_owners(self) -> tuple[CacheName, ...]:
        """The owners whose namespaces may have the copy."""
        return tuple(name for name in self.owners if name.namespace in self.granted.namespaces)

    @cached_property
    def has_noted_owners(self) -> bool:
        """Whether the copy's manifest names the owners."""
        return self.copy.manifest is not None and self.copy.manifest.caches == self.owners

    @cached_property
    def failures(self) -> Mapping[Requester, Failure]:
        """The last failure of each requester whose last attempt failed."""
        return {one: retry.failure for one, retry in self.retries.items()}

    @cached_property
    def serves(self) -> bool:
        """Whether the copy serves those who want it, so that no download is needed."""
        return serving.serves(self.copy, self.request, self.failures, in_use=self.is_in_use)

    @property
    def lacks_only_view(self) -> bool:
        """Whether the next attempt makes the view of the copy, and downloads nothing."""
        copy, request = self.copy, self.request
        if not copy.lacks_view or copy.manifest is None or request is None:
            return False
        return request.accepts(copy.manifest.hash)

    @cached_property
    def is_withdrawn(self) -> bool:
        """Whether the copy is to be set aside: it is not for those whom it would serve."""
        if self.manifest is None or self.request is None or self.is_active or self.is_in_use:
            return False
        return not self.is_put_off and serving.is_withdrawn(
            self.manifest, self.request, self.failures
        )

    @cached_property
    def asking(self) -> tuple[tuple[Requester, bool], ...]:
        """The requesters whose sources are asked about the copy, and whether each has it."""
        if self.manifest is None or self.request is None or self.is_active:
            return ()
        return serving.asking(self.request, self.granted, awaited=self.is_awaited)

    @cached_property
    def attempts(self) -> Request | None:
        """The request as far as downloads may be made for it."""
        return self.request and serving.attempts(self.request, self.copy)

    def requester(self, now: float) -> Requester | None:
        """Whose attempt is next: of the requesters whose attempt is due, the first."""
        if self.attempts is None:
            return None
        due = (one for one in self.attempts.requesters if self._retry_of(one) <= now)
        return next(due, self.attempts.requester)

    def _retry_of(self, requester: Requester) -> float:
        retry = self.retries.get(requester)
        return retry.at if retry else 0.0

    @cached_property
    def retry_at(self) -> float | None:
        """When the next attempt is due, where those of all requesters have failed."""
        asking = self.attempts.requesters if self.attempts else ()
        if not self.retries or any(one not in self.retries for one in asking):
            return None
        return min((self.retries[one].at for one in asking), default=None)

    @cached_property
    def awaits_turn(self) -> bool:
        """Whether no download begins before the node's turn: not where a pod waits for it."""
        if self.attempts is None or self.is_awaited:
            return False
        return serving.awaits_turn(self.attempts, self.copy)

    @property
    def eviction_asked(self) -> datetime | None:
        """When somebody requested the eviction of the copy that is here; None: nobody did."""
        asked, usage = self.asked.evict, self.copy.usage
        if asked is None or usage is None or not self.copy.is_published:
            return None
        return asked if usage.published_time < asked else None

    @property
    def stays_away(self) -> bool:
        """Whether the model does not come back before something refers to it, by request."""
        asked, evicted = self.asked.evict, self.copy.evicted
        if asked is None or evicted is None or self.referrer:
            return False
        return evicted.reason is EvictionReason.REQUESTED or evicted.time < asked

    @property
    def is_outdated(self) -> bool:
        """Whether the running download is for a requester that does not fill the folder any more.

        Others' sources do not fill a folder once the first owner is there.
        """
        if self.transfer is None or self.request is None:
            return False
        return self.transfer.requester not in self.request.deciding

    @cached_property
    def holding(self) -> Holding:
        """The entry of the ledger."""
        return _holding_of(self)

    @cached_property
    def referrer(self) -> str:
        """Who refers to the model, in words: a pod, or a service; empty if nobody does."""
        pod = min((f"{pod.namespace}/{pod.name}" for pod in self.pods or ()), default="")
        if pod:
            return f"the pod {pod}"
        return "a service" if self.wish.is_referenced else ""

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """The namespaces of all requesters."""
        requesters = self.request.requesters if self.request else ()
        return frozenset(one.namespace for one in requesters)

    def is_for(self, requester: Requester) -> bool:
        """Whether this requester may know what is known of the model."""
        copy = self.copy
        if self.manifest is not None or copy.access is not None or copy.problem:
            return requester in self.granted
        # Nobody has a copy: what is known is the requesters' own, if all are of one namespace.
        return self.request is None or self.namespaces == {requester.namespace}


@dataclass(frozen=True)
class Table:
    """The rows of one step by key, and what is of the node as a whole.

    `wanted` is None if the LocalModelNode was never seen or is gone: then nobody knows what is
    wanted, whatever entries the rows still have. `patient` are the keys for which no copy is
    evicted now, since room was made for them in vain. `foreign` names the folders that the agent
    did not make, of models or not.
    """

    now: float
    grace: float
    max_downloads: int
    wanted: Wanted | None = NOTHING_WANTED
    rows: Mapping[str, Row] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    patient: frozenset[str] = frozenset()
    pods_known: bool = True
    foreign: tuple[str, ...] = ()
    disk: Disk = _NO_DISK
    # What is wrong with the disk as a whole.
    disk_failure: DownloadError | None = None

    def row(self, key: str) -> Row:
        """The row of a key, also of one of which nothing is known."""
        return self.rows.get(key) or Row(key)


def _holding_of(row: Row) -> Holding:
    """The holding of a row: what the model takes, and whether its copy may go.

    The size that a cache declares counts for nothing here: before its source has reported a size, a
    model takes nothing.
    """
    copy, foreign = row.copy, row.is_foreign
    counting = _counting(row)
    # As the reservations note what a download has learned.
    declared = row.request.size if row.request is not None else 0
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
        resting=whole and not row.is_active and not row.is_put_off,
        superseded=whole and not row.serves and not copy.lacks_view,
        listed=row.is_listed,
        owners=_owners(counting),
        priority=max((entry.model.priority for entry in counting), default=0),
        pinned=any(entry.model.retention is Retention.PINNED for entry in counting),
        referenced=row.is_mounted or any(entry.model.referenced for entry in counting),
        mounted=row.is_mounted,
        awaited=row.is_awaited,
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
    if copy.lacks_view:
        # A view takes no room.
        return 0
    if row.is_foreign:
        # Until its source has reported, such a folder counts as whole: its bytes are on the disk.
        return learned or 0
    if is_mended:
        return copy.bad_bytes
    if learned is not None:
        return learned
    return copy.evicted.size if copy.evicted is not None else copy.announced or 0
