"""What models take, and what may go for others: budgets, reservations, victims. Pure.

Two things bound what a node keeps: the storage limit of each of its groups, and its disk. Both are
an Account, with a limit that nothing passes, a high mark past which models go, and a low mark at
which that ends. All sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from localmodel.agent.capacity.ranks import Rank, Standing, gives_way
from localmodel.agent.capacity.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from localmodel.agent.structs.sizes import Space


@dataclass(frozen=True)
class Group:
    """What one group's models may take. `evicts`: its policy is LRU."""

    limit: int
    high_percent: int
    low_percent: int
    evicts: bool


@dataclass(frozen=True)
class Holding:
    """One model in the ledger: what it takes, and what decides whether its copy may go.

    `size` is what a download of it needs in all. `tree` is what its published copy takes, `staged`
    what else it takes, `reserved` what its running download may take instead of `staged`.
    `last_used` is a time of any clock; of a model that was never used, that of its publication.

    Derived values are computed once for each holding: the agent's rows keep a holding from step to
    step while nothing about the model changes.
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

    @cached_property
    def on_disk(self) -> int:
        """Bytes of the disk that the model takes."""
        return self.tree + max(self.staged, self.reserved)

    @cached_property
    def of_limit(self) -> int:
        """Bytes of its groups' limits that it takes: a copy and what replaces it count once."""
        return max(self.tree, self.staged, self.reserved)

    @property
    def returns_idly(self) -> bool:
        """Whether it was evicted, and nothing refers to it."""
        return self.evicted and not self.referenced

    def reserving(self, size: int | None = None) -> Holding:
        """The same with room reserved for a download: for `size` bytes, by default its own size."""
        return self._downloading if size is None else replace(self, reserved=size)

    @cached_property
    def _downloading(self) -> Holding:
        return replace(self, reserved=self.size)

    @cached_property
    def without_copy(self) -> Holding:
        """The same with its copy gone."""
        return replace(self, tree=0, resting=False)

    def of(self, account: Account) -> int:
        """What it takes of an account."""
        if account.disk:
            return self.on_disk
        return self.of_limit if account.group in self.groups else 0

    def frees(self, account: Account) -> int:
        """What its copy gives back to an account when it goes."""
        return self.of(account) - self.without_copy.of(account)


NO_HOLDINGS: Mapping[str, Holding] = MappingProxyType({})


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


class Taken:
    """Bytes that some models take together: of the disk, and of each group's limit."""

    def __init__(self, holdings: Iterable[Holding] = ()) -> None:
        self._disk = 0
        self._limits: dict[str, int] = {}
        for holding in holdings:
            self.add(holding)

    def add(self, holding: Holding, times: int = 1) -> None:
        """Count a model; -1 `times` if it is no longer there."""
        self._disk += times * holding.on_disk
        for group in holding.groups:
            self._limits[group] = self._limits.get(group, 0) + times * holding.of_limit

    def change(self, before: Holding, after: Holding) -> None:
        """Count a model as it is now."""
        self.add(before, -1)
        self.add(after)

    def of(self, account: Account) -> int:
        """What they take of an account."""
        return self._disk if account.disk else self._limits.get(account.group, 0)


class TakenByRank:
    """The same of models of each rank: of any owners, of which ranks there are few, and of each."""

    def __init__(self) -> None:
        self._taken: dict[Rank, Taken] = {}
        self._own: dict[Rank, Taken] = {}

    def change(self, rank: Rank, before: Holding, after: Holding) -> None:
        """Count what a model takes more than before."""
        self._taken.setdefault(rank.of_anybody, Taken()).change(before, after)
        if rank.owners:
            self._own.setdefault(rank, Taken()).change(before, after)

    def giving_way_to(self, newcomer: Rank) -> list[Taken]:
        """What all take that give way to a newcomer."""
        return self._where(newcomer, lambda rank: gives_way(rank, newcomer))

    def before(self, victim: Rank) -> list[Taken]:
        """What all take that a copy gives way to."""
        return self._where(victim, lambda rank: gives_way(victim, rank))

    def _where(self, one: Rank, counts: Callable[[Rank], bool]) -> list[Taken]:
        found = [taken for rank, taken in self._taken.items() if counts(rank)]
        # Those of the same owners, where only theirs count.
        own = (one._replace(referenced=False, standing=standing) for standing in Standing)
        return found + [
            self._own[rank]
            for rank in own
            if rank in self._own and counts(rank) and not counts(rank.of_anybody)
        ]


@dataclass(frozen=True)
class Shortage:
    """What a download lacks: it needs so much more in an account, where so much is free."""

    account: Account
    needed: int
    free: int


@dataclass(frozen=True)
class Ledger:
    """Who takes what. Without a `space` the disk is no bound.

    Of each method, `beside` is what counts beside the models.
    """

    holdings: Mapping[str, Holding] = field(default_factory=lambda: NO_HOLDINGS)
    groups: Mapping[str, Group] = field(default_factory=dict)
    space: Space | None = None

    # Each sum is made once: a step asks for it about each holding.

    @cached_property
    def _taken(self) -> Taken:
        return Taken(self.holdings.values())

    @cached_property
    def _accounts(self) -> dict[str, list[Account]]:
        return {
            name: self._accounts_of(name, group)
            for name, group in sorted(self.groups.items())
            if group.evicts
        }

    @cached_property
    def _keys(self) -> dict[str, list[str]]:
        """The models of each group."""
        found: dict[str, list[str]] = {}
        for key, holding in self.holdings.items():
            for group in holding.groups:
                found.setdefault(group, []).append(key)
        return found

    def holding(self, key: str) -> Holding:
        """What is known of a key."""
        return self.holdings.get(key, _UNKNOWN)

    def accounts(self) -> list[Account]:
        """The bounds of all groups that evict."""
        return [account for found in self._accounts.values() for account in found]

    def accounts_of(self, holding: Holding) -> list[Account]:
        """The bounds that a model has to keep to.

        A group that does not evict has none here: its models were admitted by the hook. The disk
        bounds all, and at the high mark what nothing refers to: past it, it would be evicted at
        once.
        """
        kind = holding.groups, holding.referenced
        if kind not in self._bounds:
            self._bounds[kind] = self._bounds_of(*kind)
        return self._bounds[kind]

    @cached_property
    def _bounds(self) -> dict[tuple[frozenset[str], bool], list[Account]]:
        """By groups, and whether something refers to the model. No more than there are models."""
        return {}

    def _bounds_of(self, groups: frozenset[str], referenced: bool) -> list[Account]:
        found = [a for group in sorted(groups) for a in self._accounts.get(group, ())]
        if not referenced:
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

    def taken(self, account: Account, beside: Iterable[Taken] = ()) -> int:
        """What is taken of an account, reservations included."""
        others = self.space.others if account.disk and self.space else 0
        return others + self._taken.of(account) + sum(taken.of(account) for taken in beside)

    def taken_with(
        self,
        holding: Holding,
        account: Account,
        beside: Iterable[Taken] = (),
        size: int | None = None,
    ) -> int:
        """The same, with room reserved for a download; `size` if it is another than is known."""
        return (
            self.taken(account, beside) - holding.of(account) + holding.reserving(size).of(account)
        )

    def without(self, keys: Iterable[str]) -> Ledger:
        """The same, with these copies gone."""
        gone = {key: self.holding(key).without_copy for key in keys}
        return replace(self, holdings={**self.holdings, **gone})

    def on_disk_alone(self) -> Ledger:
        """The same, with what is here alone, and nothing that is reserved for what may come."""
        downloading = {
            key: replace(one, reserved=0) for key, one in self.holdings.items() if one.reserved
        }
        return replace(self, holdings={**self.holdings, **downloading}) if downloading else self

    def is_gated(self, key: str) -> bool:
        """Whether a download waits here until it fits: a group of the model evicts."""
        return any(name in self._accounts for name in self.holding(key).groups)

    def shortage(
        self, key: str, size: int | None = None, beside: Collection[Taken] = ()
    ) -> Shortage | None:
        """What keeps a download from its start, or from growing to `size`; None if it fits."""
        return self.shortage_of(self.holding(key), size, beside)

    def shortage_of(
        self, holding: Holding, size: int | None = None, beside: Collection[Taken] = ()
    ) -> Shortage | None:
        """The same of a model that is known otherwise by now, with the difference in `beside`.

        One that takes no more than is taken already lacks nothing.
        """
        for account in self.accounts_of(holding):
            before = self.taken(account, beside)
            taken = self.taken_with(holding, account, beside, size)
            if taken > max(account.limit, before):
                return Shortage(account, taken - before, max(0, account.limit - before))
        return None

    def is_evictable(self, key: str, *, ignoring_pods: bool = False) -> bool:
        """Whether a copy may go at all: all its groups evict, and nothing holds it."""
        holding = self.holding(key)
        return (
            holding.resting
            and bool(holding.groups)
            and all(name in self.groups and self.groups[name].evicts for name in holding.groups)
            and not holding.pinned
            and (ignoring_pods or not holding.mounted)
        )

    def victims(self, allowed: Callable[[Rank], bool], group: str | None = None) -> list[str]:
        """The copies that may go and are allowed to, the first to go first; of one group."""
        found = [
            key
            for key in (self.holdings if group is None else self._keys.get(group, ()))
            if self.is_evictable(key) and allowed(self.rank(key))
        ]
        return sorted(found, key=self._worth)

    def _worth(self, key: str) -> tuple[int, Standing, float, str]:
        """What is kept the longest comes last.

        When it was used last decides only between models of one priority and standing: whoever
        may make pods can have one used.
        """
        holding = self.holding(key)
        return (holding.priority, self._standing(key), holding.last_used, key)

    def rank(self, key: str) -> Rank:
        """What a copy gives way for."""
        holding = self.holding(key)
        return Rank(holding.referenced, holding.priority, self._standing(key), holding.owners)

    def rank_coming(self, key: str) -> Rank:
        """What gives way for a download."""
        holding = self.holding(key)
        standing = Standing.ADMINISTRATOR
        if holding.owners:
            within = self._shares.fits(holding)
            standing = Standing.WITHIN_SHARE if within else Standing.OVER_SHARE
        return Rank(holding.referenced, holding.priority, standing, holding.owners)

    def _standing(self, key: str) -> Standing:
        if not self.holding(key).owners:
            return Standing.ADMINISTRATOR
        return Standing.OVER_SHARE if key in self._shares.above else Standing.WITHIN_SHARE

    @cached_property
    def _shares(self) -> Shares:
        whole = self.space.writable if self.space else None
        return Shares(
            self.holdings,
            {
                key
                for key, holding in self.holdings.items()
                if not holding.referenced and self.is_evictable(key)
            },
            {
                name: group.limit if whole is None else min(group.limit, whole)
                for name, group in self.groups.items()
            },
        )

    @cached_property
    def freed(self) -> TakenByRank:
        """What all copies free that may go at all, by what has to come for them to go."""
        return self._freed(ignoring_pods=False)

    @cached_property
    def freed_without_pods(self) -> TakenByRank:
        """The same as if there were no pods."""
        return self._freed(ignoring_pods=True)

    def _freed(self, *, ignoring_pods: bool) -> TakenByRank:
        found = TakenByRank()
        for key, holding in self.holdings.items():
            if self.is_evictable(key, ignoring_pods=ignoring_pods):
                rank = self.rank(key)
                if holding.mounted:
                    # What only pods hold is idle once they have gone.
                    rank = rank._replace(referenced=False)
                found.change(rank, holding.without_copy, holding)
        return found

    def last_of(self, group: str) -> str:
        """The group's copy that would go last; empty: none."""
        resting = [key for key in self._keys.get(group, ()) if self.holding(key).resting]
        return max(resting, key=self._worth, default="")

    def lowered(self, over: Mapping[Account, int], victims: Iterable[str]) -> list[str] | None:
        """The first of the victims whose going frees so much of each account.

        None if all of them are not enough. One that takes nothing of what is too full stays.
        """
        over = dict(over)
        gone = []
        for victim in victims:
            if all(excess <= 0 for excess in over.values()):
                break
            frees = {account: self.holding(victim).frees(account) for account in over}
            if any(frees[account] and excess > 0 for account, excess in over.items()):
                gone.append(victim)
                over = {account: excess - frees[account] for account, excess in over.items()}
        return gone if all(excess <= 0 for excess in over.values()) else None


_UNKNOWN = Holding()


def excess_of(
    ledger: Ledger, key: str, beside: Collection[Taken], freed: Collection[Taken]
) -> dict[Account, int] | None:
    """What has to go of each account so that a download fits; None if not so much can go.

    Down to the low marks if that can be, else to the high ones, else to the limits.
    """
    holding = ledger.holding(key)
    accounts = ledger.accounts_of(holding)
    needed = {account: ledger.taken_with(holding, account, beside) for account in accounts}
    for mark in ("low", "high", "limit"):
        over = {account: needed[account] - int(getattr(account, mark)) for account in accounts}
        if all(excess <= sum(taken.of(a) for taken in freed) for a, excess in over.items()):
            return over
    return None


def fits_low(ledger: Ledger, key: str, beside: Collection[Taken]) -> bool:
    """Whether a download leaves all its accounts at their low marks."""
    holding = ledger.holding(key)
    return all(
        ledger.taken_with(holding, account, beside) <= account.low
        for account in ledger.accounts_of(holding)
    )


def _to_blame(ledger: Ledger, account: Account, victims: Sequence[str]) -> list[str]:
    """The victims without those that would go for what less important models take that stay."""
    taken, going = ledger.taken(account), frozenset(victims)
    staying = sorted(
        (holding.priority, holding.of(account))
        for key, holding in ledger.holdings.items()
        if key not in going and holding.of(account)
    )
    blamed: list[str] = []
    lower = passed = 0
    for key in victims:
        holding = ledger.holding(key)
        while passed < len(staying) and staying[passed][0] < holding.priority:
            lower += staying[passed][1]
            passed += 1
        if taken - lower <= account.low:
            break
        blamed.append(key)
        taken -= holding.frees(account)
    return blamed


def relief(ledger: Ledger, account: Account) -> list[str]:
    """Who goes while an account is past its mark: until it is at the low one, or nobody is left.

    Only what nothing refers to, and nothing for less important models that cannot go: whoever has
    pods could have them mounted. On account of a limit, the model of the group that would go last
    stays if that keeps to the limit: otherwise a model between the high mark and the limit would
    come and go.
    """
    victims = ledger.victims(lambda rank: not rank.referenced, account.group)
    taken = ledger.taken(account)
    if not account.disk or taken <= account.limit:
        victims = _to_blame(ledger, account, victims)
    if not account.disk:
        last = ledger.last_of(account.group)
        others = [key for key in victims if key != last]
        if taken - sum(ledger.holding(key).frees(account) for key in others) <= account.limit:
            victims = others
    found = ledger.lowered({account: taken - account.low}, victims)
    return victims if found is None else found
