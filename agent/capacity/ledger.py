"""What models take, and what may go for others: budgets, reservations, victims. Pure.

Two things bound what a node keeps: the storage limit of each of its groups, and its disk. Both are
an Account, with a limit that nothing passes, a high mark past which models go, and a low mark at
which that ends. All sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class EvictionReason(StrEnum):
    """Why a model was evicted; the value is the reason in LocalModelNode.status."""

    LIMIT_EXCEEDED = "LimitExceeded"
    DISK_PRESSURE = "DiskPressure"
    MADE_ROOM = "MadeRoom"


@dataclass(frozen=True)
class Group:
    """What one group's models may take. `evicts`: its policy is LRU."""

    limit: int
    high_percent: int
    low_percent: int
    evicts: bool


@dataclass(frozen=True)
class Space:
    """The disk: its size, what can be taken of it at all, and what others than models take."""

    capacity: int
    writable: int
    others: int


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


_BLOCK_BYTES = 4096


def in_blocks(size: int) -> int:
    """What a file takes of the disk, in the blocks of usual file systems."""
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


NO_MODELS: Mapping[str, Model] = MappingProxyType({})


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


@dataclass(frozen=True)
class Shortage:
    """What a download lacks: it needs so much more in an account, where so much is free."""

    account: Account
    needed: int
    free: int


@dataclass(frozen=True)
class Ledger:
    """Who takes what. Without a `space` the disk is no bound."""

    models: Mapping[str, Model] = field(default_factory=lambda: NO_MODELS)
    groups: Mapping[str, Group] = field(default_factory=dict)
    space: Space | None = None

    def model(self, key: str) -> Model:
        """What is known of a key."""
        return self.models.get(key, _UNKNOWN)

    def accounts(self) -> list[Account]:
        """The bounds of all groups that evict."""
        return [
            account
            for name, group in sorted(self.groups.items())
            if group.evicts
            for account in self._accounts_of(name, group)
        ]

    def accounts_of(self, key: str) -> list[Account]:
        """The bounds that a model has to keep to.

        A group that does not evict has none here: its models were admitted by the hook. The disk
        bounds all, and at the high mark what nothing refers to: past it, it would be evicted at
        once.
        """
        model = self.model(key)
        found = [account for account in self.accounts() if account.group in model.groups]
        if not model.referenced:
            found = [replace(a, limit=min(a.limit, a.high)) if a.disk else a for a in found]
        if not found and self.space is not None:
            whole = self.space.writable
            found = [Account("", disk=True, limit=whole, high=whole, low=whole)]
        return found

    def _accounts_of(self, name: str, group: Group) -> list[Account]:
        high, low = group.high_percent, group.low_percent
        found = [
            Account(
                name,
                disk=False,
                limit=group.limit,
                high=group.limit * high // 100,
                low=group.limit * low // 100,
            )
        ]
        if self.space is not None:
            size, limit = self.space.capacity, self.space.writable
            high, low = min(limit, size * high // 100), min(limit, size * low // 100)
            found.append(Account(name, disk=True, limit=limit, high=high, low=low))
        return found

    def taken(self, account: Account) -> int:
        """What is taken of an account, reservations included."""
        if account.disk:
            others = self.space.others if self.space else 0
            return others + sum(model.on_disk for model in self.models.values())
        return sum(m.of_limit for m in self.models.values() if account.group in m.groups)

    def reserving(self, key: str, size: int | None = None) -> Ledger:
        """The same, with room reserved for a download; `size` if it is another than is known."""
        model = self.model(key)
        return self._with(key, replace(model, reserved=model.size if size is None else size))

    def left(self) -> Ledger:
        """The same, without what goes by itself."""
        gone = {key: Model() for key, model in self.models.items() if model.leaving}
        return replace(self, models={**self.models, **gone})

    def without(self, key: str) -> Ledger:
        """The same, with the copy of a model gone."""
        return self._with(key, replace(self.model(key), tree=0, resting=False))

    def _with(self, key: str, model: Model) -> Ledger:
        return replace(self, models={**self.models, key: model})

    def is_gated(self, key: str) -> bool:
        """Whether a download waits here until it fits: a group of the model evicts."""
        names = self.model(key).groups
        return any(name in names and group.evicts for name, group in self.groups.items())

    def shortage(self, key: str, size: int | None = None) -> Shortage | None:
        """What keeps a download from its start, or from growing to `size`; None if it fits.

        One that takes no more than is taken already lacks nothing.
        """
        after = self.reserving(key, size)
        for account in self.accounts_of(key):
            taken, before = after.taken(account), self.taken(account)
            if taken > max(account.limit, before):
                return Shortage(account, taken - before, max(0, account.limit - before))
        return None

    def is_evictable(self, key: str, *, ignoring_pods: bool = False) -> bool:
        """Whether a copy may go at all: all its groups evict, and nothing holds it."""
        model = self.model(key)
        return (
            model.resting
            and bool(model.groups)
            and all(name in self.groups and self.groups[name].evicts for name in model.groups)
            and not model.pinned
            and (ignoring_pods or not model.mounted)
        )

    def victims(self, allowed: Callable[[Model], bool]) -> list[str]:
        """The copies that may go and are allowed to, least recently used first."""
        found = [
            key for key, model in self.models.items() if self.is_evictable(key) and allowed(model)
        ]
        return sorted(found, key=lambda key: (self.model(key).last_used, key))

    def lowered(
        self, accounts: Iterable[Account], marks: Mapping[str, int], victims: Iterable[str]
    ) -> list[str] | None:
        """The first of the victims whose going brings all accounts to their marks, by name.

        None if all of them are not enough. One that takes nothing of what is too full stays.
        """
        over = {a: self.taken(a) - marks[a.name] for a in accounts}
        gone = []
        for victim in victims:
            if all(excess <= 0 for excess in over.values()):
                break
            frees = {account: self._frees(victim, account) for account in over}
            if any(frees[account] and excess > 0 for account, excess in over.items()):
                gone.append(victim)
                over = {account: excess - frees[account] for account, excess in over.items()}
        return gone if all(excess <= 0 for excess in over.values()) else None

    def _frees(self, key: str, account: Account) -> int:
        model, after = self.model(key), self.without(key).model(key)
        if account.disk:
            return model.on_disk - after.on_disk
        return model.of_limit - after.of_limit if account.group in model.groups else 0


_UNKNOWN = Model()


def gives_way(victim: Model, newcomer: Model) -> bool:
    """Whether a copy may go for a download.

    One that something refers to goes only for one that something refers to and that has a higher
    priority. So two models never take turns: of each pair, one at most gives way.
    """
    if not victim.referenced:
        return True
    return newcomer.referenced and victim.priority < newcomer.priority


def room_for(ledger: Ledger, key: str, victims: list[str]) -> list[str] | None:
    """Which victims go so that a download fits; None if it cannot be made to.

    Down to the low marks if that can be, else to the high ones, else to the limits.
    """
    after = ledger.reserving(key)
    accounts = ledger.accounts_of(key)
    for mark in ("low", "high", "limit"):
        marks = {account.name: int(getattr(account, mark)) for account in accounts}
        found = after.lowered(accounts, marks, victims)
        if found is not None:
            return found
    return None


def fits_low(ledger: Ledger, key: str) -> bool:
    """Whether a download leaves all its accounts at their low marks."""
    after = ledger.reserving(key)
    return all(after.taken(account) <= account.low for account in ledger.accounts_of(key))


def relief(ledger: Ledger, account: Account) -> list[str]:
    """Who goes while an account is past its mark: until it is at the low one, or nobody is left.

    Only what nothing refers to. On account of a limit, the most recently used model of the group
    stays if that keeps to the limit: otherwise a model between the high mark and the limit would
    come and go.
    """
    victims = ledger.victims(lambda model: not model.referenced and account.group in model.groups)
    if not account.disk:
        resting = [k for k, m in ledger.models.items() if m.resting and account.group in m.groups]
        last = max(resting, key=lambda key: (ledger.model(key).last_used, key), default="")
        others = [key for key in victims if key != last]
        if reduce(Ledger.without, others, ledger).taken(account) <= account.limit:
            victims = others
    marks = {account.name: account.low}
    found = ledger.lowered([account], marks, victims)
    return victims if found is None else found
