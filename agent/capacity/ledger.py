"""The bytes that models take, and the copies that may be evicted. Pure.

Two things bound the copies on a node: the storage limit of each of its groups, and its disk. Both
are an Account, with a limit that nothing passes, a high mark above which copies are evicted, and a
low mark at which that ends. All sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.capacity.eviction_ranks import Rank, Standing, gives_way
from agent.capacity.holdings import Account, Holding
from agent.capacity.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from agent.capacity.holdings import Group
    from agent.structs.sizes import Space


NO_HOLDINGS: Mapping[str, Holding] = MappingProxyType({})


class Taken:
    """The bytes that several models take together, of the disk and of each group's limit."""

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

    @property
    def of_disk(self) -> int:
        """The bytes that they take of the disk."""
        return self._disk

    def of(self, account: Account) -> int:
        """The bytes that they take of an account."""
        return self._disk if account.disk else self._limits.get(account.group, 0)


class TakenByRank:
    """The bytes that models take, by rank: for any owners together, and for each set of owners."""

    def __init__(self) -> None:
        self._taken: dict[Rank, Taken] = {}
        self._own: dict[Rank, Taken] = {}

    def change(self, rank: Rank, before: Holding, after: Holding) -> None:
        """Count what a model takes more than before."""
        self._taken.setdefault(rank.of_anybody, Taken()).change(before, after)
        if rank.owners:
            self._own.setdefault(rank, Taken()).change(before, after)

    def giving_way_to(self, newcomer: Rank) -> list[Taken]:
        """The bytes of all models that give way to a newcomer."""
        return self._where(newcomer, lambda rank: gives_way(rank, newcomer))

    def before(self, victim: Rank) -> list[Taken]:
        """The bytes of all models that a copy gives way to."""
        return self._where(victim, lambda rank: gives_way(victim, rank))

    def _where(self, one: Rank, counts: Callable[[Rank], bool]) -> list[Taken]:
        found = [taken for rank, taken in self._taken.items() if counts(rank)]
        # Ranks that count only for models of the same owners.
        own = (one._replace(referenced=False, standing=standing) for standing in Standing)
        return found + [
            self._own[rank]
            for rank in own
            if rank in self._own and counts(rank) and not counts(rank.of_anybody)
        ]


@dataclass(frozen=True)
class Shortage:
    """Why a download does not fit: it needs `needed` bytes of an account that has `free` ones."""

    account: Account
    needed: int
    free: int


@dataclass(frozen=True)
class Ledger:
    """The models and the bounds of a node at one time. Without `space`, the disk is no bound.

    The parameter `beside` of methods are bytes that count in addition to those of the models.
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

        A group that does not evict has no account here: its hook admitted the models. The disk
        bounds all models. A model that no service or pod refers to must stay below the disk's high
        mark: above it, the model would be evicted at once.
        """
        kind = holding.groups, holding.referenced
        if kind not in self._bounds:
            self._bounds[kind] = self._bounds_of(*kind)
        return self._bounds[kind]

    @cached_property
    def _bounds(self) -> dict[tuple[frozenset[str], bool], list[Account]]:
        """The accounts of each kind of holding. Bounded by the models."""
        return {}

    def _bounds_of(self, groups: frozenset[str], referenced: bool) -> list[Account]:
        found = [a for group in sorted(groups) for a in self._accounts.get(group, ())]
        if not referenced:
            found = [_below_high(account) for account in found]
        if not found and self.space is not None:
            whole, kubelet = self.space.limit, self.space.is_kubelets
            found = [Account("", disk=True, limit=whole, high=whole, low=whole, kubelet=kubelet)]
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
            size, writable, limit = self.space.capacity, self.space.writable, self.space.limit
            high, low = min(writable, size * high // 100), min(writable, size * low // 100)
            # Below the kubelet's thresholds both move down alike, so that their distance stays.
            down = max(0, high - limit)
            high, low = high - down, max(0, low - down)
            kubelet = self.space.is_kubelets
            found.append(Account(name, disk=True, limit=limit, high=high, low=low, kubelet=kubelet))
        return found

    def taken(self, account: Account, beside: Iterable[Taken] = ()) -> int:
        """The bytes taken of an account, reservations included."""
        others = self.space.others if account.disk and self.space else 0
        return others + self._taken.of(account) + sum(taken.of(account) for taken in beside)

    @property
    def is_exhausted(self) -> bool:
        """Whether so much of the disk is taken that other programs suffer."""
        if self.space is None:
            return False
        return self.space.others + self._taken.of_disk > self.space.exhausted

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
        """This ledger without reservations for running downloads."""
        downloading = {
            key: replace(one, reserved=0) for key, one in self.holdings.items() if one.reserved
        }
        return replace(self, holdings={**self.holdings, **downloading}) if downloading else self

    def is_gated(self, key: str) -> bool:
        """Whether a download must wait until it fits.

        It must where a group of the model evicts, and where the disk is the kubelet's too.
        """
        if self.space is not None and self.space.is_kubelets:
            return True
        return any(name in self._accounts for name in self.holding(key).groups)

    def shortage(
        self, key: str, size: int | None = None, beside: Collection[Taken] = ()
    ) -> Shortage | None:
        """What keeps a download from its start, or from growing to `size`; None if it fits."""
        return self.shortage_of(self.holding(key), size, beside)

    def shortage_of(
        self, holding: Holding, size: int | None = None, beside: Collection[Taken] = ()
    ) -> Shortage | None:
        """The shortage of a model whose state differs from the ledger's by `beside`.

        A model that takes no more than it takes already has no shortage.
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
        """The evictable copies of allowed ranks, in the order of their eviction.

        Those of one group, by default of all.
        """
        found = [
            key
            for key in (self.holdings if group is None else self._keys.get(group, ()))
            if self.is_evictable(key) and allowed(self.rank(key))
        ]
        return sorted(found, key=self._eviction_order)

    def _eviction_order(self, key: str) -> tuple[int, bool, Standing, float, str]:
        """The sort key of evictions: the copy to be kept longest comes last.

        The last use decides only between models of one priority and standing: anybody who may
        create pods can make a model count as used.
        """
        holding = self.holding(key)
        standing = self._standing(key)
        return (holding.priority, not holding.superseded, standing, holding.last_used, key)

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
        whole = self.space.limit if self.space else None
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

    def freed_for(self, key: str, *, ignoring_pods: bool = False) -> list[Taken]:
        """The bytes of the evictable copies that give way to a download, its own copy included.

        `ignoring_pods`: the bytes that they would free if no pod mounted any.
        """
        freed = self._freed_without_pods if ignoring_pods else self._freed_now
        newcomer = self.rank_coming(key)
        found = freed.giving_way_to(newcomer)
        if self.may_replace(key, ignoring_pods=ignoring_pods):
            holding, own = self.holding(key), Taken()
            coming = holding.reserving()
            own.change(coming.without_copy, coming)
            if gives_way(self._rank_freed(key), newcomer):
                # Only what helps the download counts.
                own.change(holding, holding.without_copy)
            found.append(own)
        return found

    def may_replace(self, key: str, *, ignoring_pods: bool = False) -> bool:
        """Whether a superseded copy may go first so that its download fits."""
        return self.holding(key).superseded and self.is_evictable(key, ignoring_pods=ignoring_pods)

    @cached_property
    def _freed_now(self) -> TakenByRank:
        return self._freed(ignoring_pods=False)

    @cached_property
    def _freed_without_pods(self) -> TakenByRank:
        return self._freed(ignoring_pods=True)

    def _freed(self, *, ignoring_pods: bool) -> TakenByRank:
        found = TakenByRank()
        for key, holding in self.holdings.items():
            if self.is_evictable(key, ignoring_pods=ignoring_pods):
                found.change(self._rank_freed(key), holding.without_copy, holding)
        return found

    def _rank_freed(self, key: str) -> Rank:
        rank = self.rank(key)
        # What only pods hold is idle once they have gone.
        return rank._replace(referenced=False) if self.holding(key).mounted else rank

    def last_of(self, group: str) -> str:
        """The group's copy that would go last; empty: none."""
        resting = [key for key in self._keys.get(group, ()) if self.holding(key).resting]
        return max(resting, key=self._eviction_order, default="")

    def lowered(
        self, over: Mapping[Account, int], victims: Iterable[str], newcomer: str = ""
    ) -> list[str] | None:
        """The first of the victims that free the given bytes of each account together.

        None if all victims are not enough. Victims that free nothing of those accounts are skipped.
        `newcomer` is the download that the bytes are for; its own copy may be a victim.
        """
        over = dict(over)
        gone = []
        for victim in victims:
            if all(excess <= 0 for excess in over.values()):
                break
            holding = self.holding(victim)
            if victim == newcomer:
                # Less, where a copy and its replacement count once.
                holding = holding.reserving()
            frees = {account: holding.frees(account) for account in over}
            if any(frees[account] and excess > 0 for account, excess in over.items()):
                gone.append(victim)
                over = {account: excess - frees[account] for account, excess in over.items()}
        return gone if all(excess <= 0 for excess in over.values()) else None


_UNKNOWN = Holding()


def _below_high(account: Account) -> Account:
    """The account of a model that must stay below the disk's high mark."""
    if not account.disk or account.high >= account.limit:
        return account
    return replace(account, limit=account.high, kubelet=False)


def excess_of(
    ledger: Ledger, key: str, beside: Collection[Taken], freed: Collection[Taken]
) -> dict[Account, int] | None:
    """The bytes to free of each account so that a download fits; None if `freed` is not enough.

    Down to the low marks if `freed` allows that, else to the high marks, else to the limits.
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
    """The victims without those that would only make up for less important models that stay."""
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
    """The copies to evict from an account above its high mark, until it is at the low mark.

    Only copies that no service or pod refers to, and none to make up for less important models that
    cannot go: a tenant could keep those mounted by pods. An exhausted disk is relieved whoever is
    to blame. For a group's limit, the copy that would be evicted last stays if the limit is kept
    with it: otherwise a model whose size is between the high mark and the limit would be downloaded
    and evicted again and again.
    """
    victims = ledger.victims(lambda rank: not rank.referenced, account.group)
    taken = ledger.taken(account)
    if not (account.disk and ledger.is_exhausted):
        victims = _to_blame(ledger, account, victims)
    if not account.disk:
        last = ledger.last_of(account.group)
        others = [key for key in victims if key != last]
        if taken - sum(ledger.holding(key).frees(account) for key in others) <= account.limit:
            victims = others
    found = ledger.lowered({account: taken - account.low}, victims)
    return victims if found is None else found
