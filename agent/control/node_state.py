"""All that the agent knows of its node: events change it, and a step reads it as a table of rows.

Called by the loop's thread alone, which is the only one that observes and decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.capacity.ledger import Ledger
from agent.capacity.patience import Patience
from agent.control.eviction_notice import EvictionNotices
from agent.control.model_retries import Retries
from agent.control.node_requests import NO_REQUESTS, node_requests
from agent.control.owners import Owners
from agent.control.pod_usage import PodUsage
from agent.control.rows import ABSENT, NO_SIZES, Row, Table
from agent.control.wanted import NO_WISH, NOTHING_WANTED, wanted_of
from agent.disk.inventory import Inventory
from agent.disk.watch import DiskWatch
from agent.structs.failures import DISK_KINDS, FailureKind
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent.cluster.pod_mounts import PodUse
    from agent.disk.store import Store
    from agent.jobs.reservations import Reservations
    from agent.jobs.workers import Finished, Task
    from agent.structs.manifest import CacheName
    from agent.structs.options import Options
    from agent.structs.requests import Request
    from crds.node import LocalModelNode

# How long the size is believed that a source reported for a download that did not fit: before
# anything is evicted for a download, its source is asked.
LISTED_SECONDS = 300.0


class NodeState:
    """The node, its disk, its running and failed downloads, and its pods. Times are monotonic.

    All that is kept of a key goes when neither the LocalModelNode lists it nor the disk has it.
    """

    def __init__(self, store: Store, reservations: Reservations, options: Options) -> None:
        self._options = options
        self._reservations = reservations
        self.node: LocalModelNode | None = None
        # What the node asks for, or asked for last where it is gone.
        self.wanted = NOTHING_WANTED
        # What people request by annotations of the node.
        self.node_requests = NO_REQUESTS
        self.inventory = Inventory(store)
        self.disk = DiskWatch(store, self.inventory)
        self.pod_usage = PodUsage(self.inventory)
        self.owners = Owners(self.inventory, options)
        self.retries = Retries(options, store)
        self.patience = Patience()
        # The running downloads.
        self.tasks: dict[str, Task] = {}
        # Until when the copies stay that could not be taken away.
        self.removal_at: dict[str, float] = {}
        self.notices = EvictionNotices()
        self.rescan_at = 0.0
        # How long the attempts took, so far, at each download that did not succeed yet.
        self._spent: dict[str, float] = {}
        # When a source reported the size of a download that did not fit.
        self._listed: dict[str, float] = {}
        # As the last table has them: what is derived of those that stay the same is kept.
        self._rows: Mapping[str, Row] = {}
        self._ledger = Ledger()

    @property
    def requests(self) -> Mapping[str, Request]:
        """The requested downloads by key, also while the node is gone."""
        return self.wanted.requests

    def observe_node(self, node: LocalModelNode | None) -> bool:
        """Take in the LocalModelNode. Returns whether it is another object, or gone."""
        known, self.node = self.node, node
        is_new = known is not None and (node is None or node.metadata.uid != known.metadata.uid)
        if known is not None and is_new:
            log.info("LocalModelNode is gone", uid=known.metadata.uid)
            self.owners.begin_anew()
        if node is not None:
            self.wanted = wanted_of(node, self.wanted)
            self.node_requests = node_requests(
                node.metadata.annotations,
                self._options.now(),
                verifies=bool(self._options.scrub_bytes_per_second),
            )
            self.owners.observe(node, self.wanted)
            self.retries.retain(self.requests)
            self.patience.retain(self.requests, self._options.monotonic())
            self._reservations.retain(self.requests)
            self._listed = {key: at for key, at in self._listed.items() if key in self.requests}
            self._spent = {key: one for key, one in self._spent.items() if key in self.requests}
        return is_new

    def observe_end(self, end: Finished) -> float:
        """Take in that a download has ended, but for what becomes of it.

        Returns how many seconds all attempts took since the last success, without the waits.
        """
        key, now = end.request.key, self._options.monotonic()
        spent = self._spent.pop(key, 0.0) + now - self.tasks.pop(key).started
        if not end.is_success:
            self._spent[key] = spent
        self._reservations.end(key)
        self.patience.ended(key, now, is_success=end.is_success)
        self._listed.pop(key, None)
        if end.no_room:
            self._listed[key] = now
        return spent

    def look_after_failure(self, end: Finished) -> None:
        """Look at what a download has left that did not succeed."""
        if end.error is not None and end.error.kind in DISK_KINDS:
            # What is known of the copies stays, and the disk is looked at first.
            self.rescan_at = 0.0
        elif not end.is_success:
            copy = self.inventory.look_at(end.request.key)
            if copy.is_whole:
                self.retries.published({end.request.key: copy})

    def look_at_disk(self, now: float) -> bool:
        """Look at the whole disk. Returns whether it fails in another way now, or works again.

        What a download works on is its own until it ends.
        """
        before = self.disk.failure
        self.rescan_at = now + self.disk.look(self.tasks)
        failure = self.disk.failure
        if before is not None and failure is None:
            self.retries.disk_is_back()
        copies = self.inventory.copies
        self.retries.published({key: copy for key, copy in copies.items() if copy.is_whole})
        left = copies.keys() | self.inventory.folders
        self.removal_at = {key: at for key, at in self.removal_at.items() if key in left}
        if failure is not None and failure.kind is FailureKind.OTHER_DISK:
            self.cancel_all()
        return (before and before.kind) != (failure and failure.kind)

    def make_folders(self) -> None:
        """Make the folders of the volumes of new entries: kubelet mounts them before the models."""
        if self.disk.failure is None:
            self.inventory.make_folders(self.wanted.wishes)

    def cancel_all(self) -> None:
        """Cancel all downloads."""
        for task in self.tasks.values():
            task.cancelled.set()

    def table(self, now: float) -> Table:
        """The rows as they are now. It notes on the disk which copies pods use."""
        inventory, wishes = self.inventory, self.wanted.wishes
        names = {
            key: self.owners.of(key, inventory.copy(key))
            for key in (*wishes, *inventory.copies, *self.tasks, *sorted(inventory.folders))
        }
        users = self.pod_usage.by_key(names)
        if users is not None:
            self.pod_usage.note(users.keys(), self._options.now())
        rows = self._make_rows(now, names, users)
        if self.node is None:
            ledger = Ledger()
        else:
            holdings = {key: row.holding for key, row in rows.items()}
            ledger = Ledger(holdings, self.wanted.groups, inventory.space)
        if ledger != self._ledger:
            self._ledger = ledger
        self._reservations.see(self._ledger)
        self._rows = rows
        return Table(
            now=now,
            grace=self._options.grace,
            max_downloads=self._options.max_downloads,
            wanted=None if self.node is None else self.wanted,
            rows=rows,
            ledger=self._ledger,
            patient=frozenset(
                key
                for key in (self.requests if self.patience.is_tried else ())
                if self.patience.hinders(key, self._ledger.holding(key).owners, now)
            ),
            pods_known=users is not None,
            foreign=inventory.foreign,
            disk=inventory.disk,
            disk_failure=self.disk.failure,
        )

    def verifications(self) -> Mapping[str, datetime]:
        """When the verification of each copy was requested, by key."""
        now = self._options.now()
        times = ((key, self.node_requests.of(key, now).verify) for key in self.node_requests.by_key)
        return {key: time for key, time in times if time is not None}

    def request_at(self, now: float) -> float | None:
        """When (monotonic) the time of the next request comes; None: there is none ahead."""
        time = self._options.now()
        due = self.node_requests.next_after(time)
        return None if due is None else now + (due - time).total_seconds()

    def row_of_copy(self, key: str) -> Row:
        """The row of a copy as it is now, as far as the disk and its owners go."""
        copy = self.inventory.copy(key)
        return Row(key, copy=copy, owners=self.owners.of(key, copy))

    def _pods_of(
        self,
        key: str,
        owners: tuple[CacheName, ...],
        users: Mapping[str, tuple[PodUse, ...]] | None,
    ) -> tuple[PodUse, ...] | None:
        """The pods that use a key; None if that is not known.

        Of a folder that was there before the agent started, nobody may know the claim any more.
        """
        if users is None:
            return None
        is_unknown = not owners and key in self.inventory.folders
        if is_unknown and key not in users and self.pod_usage.mounts_claims:
            return None
        return users.get(key, ())

    def _make_rows(
        self,
        now: float,
        names: Mapping[str, tuple[CacheName, ...]],
        users: Mapping[str, tuple[PodUse, ...]] | None,
    ) -> Mapping[str, Row]:
        wishes, copies, time = self.wanted.wishes, self.inventory.copies, self._options.now()
        reserved, learned = self._reservations.reserved, self._reservations.learned
        foreign, folders = frozenset(self.inventory.foreign), self.inventory.folders
        rows = {}
        for key, owners in names.items():
            copy, task, before = copies.get(key, ABSENT), self.tasks.get(key), self._rows.get(key)
            wish, removal_at = wishes.get(key, NO_WISH), self.removal_at.get(key)
            row = Row(
                key,
                wish,
                copy,
                is_foreign=key in foreign,
                has_folder=key in folders,
                notice=self.notices.of(key),
                transfer=task.transfer(now, time) if task else None,
                hold=task.hold(now, wish.request) if task else None,
                is_cancelling=task is not None and task.cancelled.is_set(),
                retries=self.retries.of(key),
                owners=owners,
                pods=self._pods_of(key, owners, users),
                reserved=reserved.get(key),
                learned=learned.get(key, NO_SIZES),
                is_listed=key in self._listed and now < self._listed[key] + LISTED_SECONDS,
                keep_until=self.owners.doubted_until(copy) or removal_at,
                is_put_off=removal_at is not None and removal_at > now,
                last_used=copy.usage.age_from(time) if copy.usage else 0.0,
                asked=self.node_requests.of(key, time),
            )
            rows[key] = before if before is not None and before == row else row
        return rows
