"""A model, a node group and a limit, as capacity is decided by them. Pure. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Group:
    """What one group's models may take. `evicts`: its policy is LRU."""

    limit: int
    high_percent: int
    low_percent: int
    evicts: bool


@dataclass(frozen=True)
class Model:
    """What capacity is decided by, of one model.

    `size` is what a download of it needs in all. `tree` is what its published copy takes, `staged`
    what else it takes, `reserved` what its running download may take instead of `staged`.
    `last_used` is a time of any clock; of a model that was never used, that of its publication.
    """

    groups: frozenset[str] = frozenset()
    size: int = 0
    tree: int = 0
    staged: int = 0
    reserved: int = 0
    # A whole copy that nothing works on.
    resting: bool = False
    # Whether its source has told the size just now: nothing goes for a download before that.
    listed: bool = False
    # The namespaces whose caches want it; empty if one of the administrator's does, or nobody.
    owners: frozenset[str] = frozenset()
    priority: int = 0
    pinned: bool = False
    # A service refers to it, or a pod of the node.
    referenced: bool = False
    # A pod of the node mounts it, or is about to.
    mounted: bool = False
    evicted: bool = False
    # Somebody else's folder is in its place, and may be it: `size` is what comes beside that.
    foreign: bool = False
    # No longer wanted, and gone after its grace period.
    leaving: bool = False
    last_used: float = 0.0

    @property
    def on_disk(self) -> int:
        """What it takes of the disk."""
        return self.tree + max(self.staged, self.reserved)

    @property
    def of_limit(self) -> int:
        """What it takes of its groups' limits: a copy and what replaces it count once."""
        return max(self.tree, self.staged, self.reserved)

    @property
    def returns_idly(self) -> bool:
        """Whether it was evicted, and nothing refers to it."""
        return self.evicted and not self.referenced

    def reserving(self, size: int | None = None) -> Model:
        """The same, with room reserved for a download; `size` if it is another than is known."""
        return replace(self, reserved=self.size if size is None else size)

    def without(self) -> Model:
        """The same, with its copy gone."""
        return replace(self, tree=0, resting=False)

    def of(self, account: Account) -> int:
        """What it takes of an account."""
        if account.disk:
            return self.on_disk
        return self.of_limit if account.group in self.groups else 0

    def frees(self, account: Account) -> int:
        """What its copy gives back to an account when it goes."""
        return self.of(account) - self.without().of(account)


@dataclass(frozen=True)
class Account:
    """One bound: the limit of a group, or the disk as a group's settings have it."""

    group: str
    disk: bool
    limit: int
    high: int
    low: int

    @property
    def name(self) -> str:
        """Its name: a group has two."""
        return f"{'disk' if self.disk else 'limit'}/{self.group}"
