"""What capacity is decided by: models, node groups, and their limits. Pure. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property


@dataclass(frozen=True)
class Group:
    """The limits of one node group. `evicts`: its eviction policy is LRU."""

    limit: int
    high_percent: int
    low_percent: int
    evicts: bool


@dataclass(frozen=True)
class Holding:
    """One model in the ledger: on the node, or requested there.

    `size` is the size that its download needs in all, `tree` the size of its published copy,
    `staged` the size of its other files, `reserved` what its running download may take instead of
    `staged`. `last_used` is a time of any clock: that of the publication if no pod used the model.

    Derived values are computed once for each holding: the agent's rows keep a holding from step to
    step while nothing about the model changes.
    """

    groups: frozenset[str] = frozenset()
    size: int = 0
    tree: int = 0
    staged: int = 0
    reserved: int = 0
    # Whether its copy is whole, and no download or check works on it.
    resting: bool = False
    # Whether its copy is whole, and another version is requested: it serves nobody.
    superseded: bool = False
    # Whether its source reported the size just now: nothing is evicted for a download before that.
    listed: bool = False
    # The namespaces whose caches want it; empty if a LocalModelCache wants it, or no cache.
    owners: frozenset[str] = frozenset()
    priority: int = 0
    pinned: bool = False
    # Whether a service or a pod of the node refers to it.
    referenced: bool = False
    # Whether a pod of the node mounts it, or is about to.
    mounted: bool = False
    # Whether a pod of the node waits for it.
    awaited: bool = False
    evicted: bool = False
    # Whether a folder in its place may be adopted: `size` is what a download adds to that folder.
    foreign: bool = False
    # Whether no entry wants it, so that it is removed after its grace period.
    leaving: bool = False
    last_used: float = 0.0

    @cached_property
    def on_disk(self) -> int:
        """The bytes that it takes of the disk."""
        return self.tree + max(self.staged, self.reserved)

    @cached_property
    def of_limit(self) -> int:
        """The bytes that count for its groups' limits: a copy and its replacement count once."""
        return max(self.tree, self.staged, self.reserved)

    @property
    def evicted_and_unreferenced(self) -> bool:
        """Whether it was evicted, and no service or pod refers to it."""
        return self.evicted and not self.referenced

    def has_room_before(self, other: Holding) -> bool:
        """Whether another download takes only the room that this one leaves.

        A model for which a pod waits has room before others, but not before a referenced model of a
        higher priority: anybody who may create pods can have one wait.
        """
        if self.awaited == other.awaited:
            return self.priority >= other.priority
        if other.awaited:
            return self.referenced and self.priority > other.priority
        return not other.has_room_before(self)

    def reserving(self, size: int | None = None) -> Holding:
        """This holding with room reserved for its download, of `size` or of its known size."""
        return self._downloading if size is None else replace(self, reserved=size)

    @cached_property
    def _downloading(self) -> Holding:
        return replace(self, reserved=self.size)

    @cached_property
    def without_copy(self) -> Holding:
        """This holding without its copy."""
        return replace(self, tree=0, resting=False, superseded=False)

    def of(self, account: Account) -> int:
        """The bytes that it takes of an account."""
        if account.disk:
            return self.on_disk
        return self.of_limit if account.group in self.groups else 0

    def frees(self, account: Account) -> int:
        """The bytes of an account that become free when its copy is evicted."""
        return self.of(account) - self.without_copy.of(account)


@dataclass(frozen=True)
class Account:
    """One bound with its marks: the limit of a group, or the disk with the marks of a group.

    Eviction begins above `high` and ends at `low`; nothing passes `limit`. `kubelet`: the limit is
    what the kubelet's thresholds leave of the disk.
    """

    group: str
    disk: bool
    limit: int
    high: int
    low: int
    kubelet: bool = False

    @property
    def name(self) -> str:
        """The name, unique among the accounts: a group has one of each kind."""
        return f"{'disk' if self.disk else 'limit'}/{self.group}"
