"""Capacity against a simple world: sizes, limits, pods, references and pins come and go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from agent.capacity.eviction_ranks import gives_way
from agent.capacity.holdings import Group
from agent.capacity.ledger import Ledger
from agent.capacity.patience import Patience
from agent.capacity.places import Hold
from agent.control.rows import Row, Table
from agent.control.step_plan import StepPlan, plan_step
from agent.control.wanted import Wanted, Wish
from agent.disk.on_disk import Found, OnDisk
from agent.jobs.reservations import Coming
from agent.structs.requests import Requester, Transfer
from agent.structs.sizes import EvictionReason, Space
from crds.eviction import Retention
from tests.unit.agent.helpers import local_model
from tests.unit.agent.rows import EVICTED, FAILURE, POD, WAITING, WHOLE, retries, wanted

if TYPE_CHECKING:
    from agent.capacity.download_queue import Victim
    from agent.capacity.holdings import Account, Holding

KEYS = ("a", "b", "c", "d", "e", "f")
GROUPS = ("lru", "other", "none")
CAPACITY = 200
RETRY_SECONDS = 5.0
# The hashes that a cache asks for in turns; copies have the one that was asked for.
HASHES = (f"sha256:{'0' * 64}", f"sha256:{'1' * 64}")
# More than any chain of downloads and evictions of so few models can need.
MANY = 200

keys = st.sampled_from(KEYS)
subsets = st.frozensets(keys)


@dataclass(frozen=True)
class ModelWish:
    """What the LocalModelNode says of a model, and what is true of it at its source."""

    groups: frozenset[str]
    declared: int
    # None: as declared.
    real: int | None
    priority: int
    owners: frozenset[str]

    @property
    def size(self) -> int:
        """What it takes."""
        return self.real or self.declared


# So that a few models fit where there are many.
sizes = st.sampled_from([10, 30, 40, 50, 80])
limits = st.sampled_from([60, 100, 130])
wishes = st.builds(
    ModelWish,
    groups=st.just(frozenset({"lru"}))
    | st.frozensets(st.sampled_from(GROUPS), min_size=1, max_size=2),
    declared=sizes,
    real=st.none() | sizes,
    priority=st.integers(0, 2),
    # Mostly the administrator's.
    owners=st.just(frozenset()) | st.frozensets(st.sampled_from(("team-a", "team-b")), max_size=2),
)


@lru_cache(maxsize=1024)
def entries_of(key: str, wish: ModelWish, referenced: bool, pinned: bool, version: str) -> Wish:
    """The entries of a model: one for each group and owner."""
    (made,) = wanted(
        *(
            local_model(
                key,
                f"mem://{key}",
                namespace=owner,
                node_group=group,
                model_size=str(wish.declared),
                priority=wish.priority,
                referenced=referenced,
                retention=Retention.PINNED if pinned else Retention.EVICTABLE,
                hash=version,
            )
            for owner in sorted(wish.owners) or [""]
            for group in sorted(wish.groups)
        )
    ).wishes.values()
    return made


def _is_for_less_important(ledger: Ledger, account: Account, key: str) -> bool:
    """Whether what is past the mark is what less important models take that stay."""
    going = ledger.victims(lambda rank: not rank.referenced, account.group)
    lower = sum(
        model.of(account)
        for name, model in ledger.holdings.items()
        if name not in going and model.priority < ledger.holding(key).priority
    )
    return ledger.taken(account) - lower <= account.low


class CapacityMachine(RuleBasedStateMachine):
    """The world carries out what is planned; downloads end when a rule says so."""

    @initialize(
        wishes=st.fixed_dictionaries(dict.fromkeys(KEYS, wishes)),
        limits=st.lists(limits, min_size=2, max_size=2),
        places=st.integers(1, 3),
        kubelet=st.sampled_from([None, 90, 120, 170]),
    )
    def begin(
        self, wishes: dict[str, ModelWish], limits: list[int], places: int, kubelet: int | None
    ) -> None:
        self.wishes, self.places = wishes, places
        # What may be taken of the disk before the kubelet acts; None: the kubelet has another disk.
        self.kubelet = kubelet
        self.limits = dict(zip(("lru", "other"), limits, strict=True))
        self.now = 0.0
        self.wanted: frozenset[str] = frozenset(KEYS)
        self.mounted: frozenset[str] | None = frozenset()
        self.referenced: frozenset[str] = frozenset()
        self.pinned: frozenset[str] = frozenset()
        self.broken: frozenset[str] = frozenset()
        self.lists: frozenset[str] = frozenset()
        self.versions = dict.fromkeys(KEYS, HASHES[0])
        self.others = 0
        # What is here, when it was used last, and its hash; what was evicted; what downloads have
        # reserved.
        self.here: dict[str, float] = {}
        self.copies: dict[str, str] = {}
        self.evicted: set[str] = set()
        self.reserved: dict[str, int] = {}
        self.learned: dict[str, int] = {}
        self.listed: set[str] = set()
        self.patience = Patience()
        self.retry_at: dict[str, float] = {}
        self.plan = StepPlan()
        self.evictions = 0
        self.act()

    # What happens

    @rule(wanted=subsets)
    def wish(self, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self.act()

    @rule(mounted=st.none() | subsets, referenced=subsets, pinned=st.just(frozenset()) | subsets)
    def use(
        self,
        mounted: frozenset[str] | None,
        referenced: frozenset[str],
        pinned: frozenset[str],
    ) -> None:
        self.mounted, self.referenced, self.pinned = mounted, referenced, pinned
        self.act()

    @rule(group=st.sampled_from(("lru", "other")), limit=limits)
    def set_limit(self, group: str, limit: int) -> None:
        self.limits[group] = limit
        self.act()

    @rule(others=st.sampled_from([0, 50, 100, 150]))
    def fill_disk(self, others: int) -> None:
        self.others = others
        self.act()

    @rule(broken=subsets, lists=subsets)
    def break_sources(self, broken: frozenset[str], lists: frozenset[str]) -> None:
        """Some tell what they have, and give nothing."""
        self.broken, self.lists = broken, lists
        self.act()

    @rule(changed=subsets)
    def ask_for_another_hash(self, changed: frozenset[str]) -> None:
        for key in changed:
            self.versions[key] = HASHES[self.versions[key] == HASHES[0]]
        self.act()

    @rule(seconds=st.sampled_from([0.0, 1.0, RETRY_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.act()

    @rule(data=st.data())
    def end_one(self, data: st.DataObject) -> None:
        if self.reserved:
            self.end(data.draw(st.sampled_from(sorted(self.reserved))))
            self.act()

    @rule()
    def restart(self) -> None:
        """All is forgotten but what is on the disk."""
        self.reserved.clear()
        self.learned.clear()
        self.listed.clear()
        self.patience = Patience()
        self.retry_at.clear()
        self.plan = StepPlan()
        self.act()

    # How it goes on

    def end(self, key: str) -> None:
        self.patience.ended(key, self.now, is_success=self.has_come(key))

    def has_come(self, key: str) -> bool:
        """How a download ends."""
        real, ledger = self.wishes[key].size, self.ledger()
        reserved = self.reserved.pop(key)
        if key in self.broken and key not in self.lists:
            # Its source cannot be reached at all.
            self.retry_at[key] = self.now + RETRY_SECONDS
            return False
        self.learned[key] = real
        grows = real > reserved
        if grows and ledger.is_gated(key) and ledger.shortage(key, real) is not None:
            # It does not fit.
            self.listed.add(key)
            return False
        self.leaves_the_kubelet_its_room(ledger, key, real)
        if key in self.broken:
            self.retry_at[key] = self.now + RETRY_SECONDS
            return False
        self.retry_at.pop(key, None)
        self.here[key], self.copies[key] = self.now, self.versions[key]
        self.evicted.discard(key)
        return True

    def is_superseded(self, key: str) -> bool:
        return key in self.here and key in self.wanted and self.copies[key] != self.versions[key]

    def row(self, key: str) -> Row:
        wish, made, copy = self.wishes[key], Wish(), OnDisk()
        if key in self.wanted:
            version = self.versions[key]
            made = entries_of(key, wish, key in self.referenced, key in self.pinned, version)
        asking = made.request.requesters if made.request else (Requester(),)
        if key in self.evicted:
            copy = OnDisk(evicted=structs.replace(EVICTED, size=wish.size))
        if key in self.here:
            manifest = structs.replace(WHOLE, hash=self.copies[key])
            copy = OnDisk(Found.PUBLISHED, manifest, tree_bytes=wish.size)
        # A pod whose model is not here has not started.
        pod = POD if key in self.here else WAITING
        failed = dict.fromkeys(asking, FAILURE) if key in self.retry_at else {}
        learned = {(wish.declared, Coming.MODEL): self.learned[key]} if key in self.learned else {}
        return Row(
            key,
            made,
            copy,
            transfer=Transfer(requester=asking[0]) if key in self.reserved else None,
            hold=Hold() if key in self.reserved else None,
            retries=retries(failed, self.retry_at.get(key, 0.0)),
            pods=None if self.mounted is None else (pod,) * (key in self.mounted),
            reserved=self.reserved.get(key),
            learned=learned,
            is_listed=key in self.listed,
            last_used=self.here.get(key, 0.0),
        )

    def model(self, key: str) -> Holding:
        return self.row(key).holding

    def ledger(self) -> Ledger:
        groups = {
            name: Group(limit, high_percent=90, low_percent=80, evicts=True)
            for name, limit in self.limits.items()
        }
        groups["none"] = Group(50, high_percent=90, low_percent=80, evicts=False)
        acts = None if self.kubelet is None else self.kubelet + 5
        space = Space(CAPACITY, CAPACITY, self.others, self.kubelet, acts)
        return Ledger({key: self.model(key) for key in KEYS}, groups, space)

    def table(self) -> Table:
        order = sorted(self.wanted, key=lambda key: (-self.wishes[key].priority, key))
        rows = {key: self.row(key) for key in (*order, *KEYS)}
        return Table(
            now=self.now,
            grace=0.0,
            max_downloads=self.places,
            wanted=Wanted(wishes={key: rows[key].wish for key in order}),
            rows=rows,
            ledger=self.ledger(),
            pods_known=self.mounted is not None,
            patient=frozenset(
                key
                for key in self.wanted
                if self.patience.hinders(key, self.wishes[key].owners, self.now)
            ),
        )

    def act(self) -> None:
        """Carry out plans until there is nothing to be done at this moment."""
        for _ in range(MANY):
            plan = self.plan = plan_step(self.table(), self.plan)
            if not plan.start and not plan.ask and not plan.destroys:
                return
            self.carry_out(plan)
        raise AssertionError("it does not come to rest")

    def carry_out(self, plan: StepPlan) -> None:
        for key in (*plan.start, *plan.ask):
            assert key not in self.here or self.is_superseded(key)
        for key in plan.start:
            ledger = self.ledger()
            if ledger.is_gated(key):
                assert ledger.shortage(key) is None
            self.leaves_the_kubelet_its_room(ledger, key, ledger.holding(key).size)
            self.reserved[key] = ledger.holding(key).size
            self.listed.discard(key)
        for key in plan.ask:
            self.reserved[key] = 0
            self.listed.discard(key)
        for key in (*plan.remove, *plan.discard):
            assert key not in self.wanted
            assert self.mounted is not None or key not in self.here
            assert key not in (self.mounted or ()) or key not in self.here
            self.here.pop(key, None)
            self.evicted.discard(key)
        for key in plan.cancel:
            assert key not in self.wanted
            del self.reserved[key]
        if plan.replace:
            self.replace(plan.replace[0])
        elif plan.evict:
            self.evict(plan.evict[0])

    def leaves_the_kubelet_its_room(self, ledger: Ledger, key: str, size: int) -> None:
        """No reservation takes what the kubelet needs; what a download has taken, it keeps."""
        if self.kubelet is None:
            return
        taken = self.others + sum(model.on_disk for model in ledger.holdings.values())
        grows = ledger.holding(key).reserving(size).on_disk - ledger.holding(key).on_disk
        assert grows <= 0 or taken + grows <= self.kubelet

    def replace(self, key: str) -> None:
        model = self.model(key)
        assert self.is_superseded(key)
        assert model.listed
        assert self.mounted is not None
        assert key not in self.mounted | self.pinned | self.reserved.keys()
        assert model.groups <= {"lru", "other"}
        del self.here[key]

    def evict(self, eviction: Victim) -> None:
        key = eviction.key
        model = self.model(key)
        assert self.mounted is not None
        assert key not in self.mounted
        assert key not in self.pinned
        assert key in self.here
        assert key not in self.reserved
        assert model.groups <= {"lru", "other"}
        if eviction.reason is EvictionReason.MADE_ROOM:
            newcomer, ledger = self.model(eviction.newcomer), self.ledger()
            assert newcomer.listed
            assert model.priority <= newcomer.priority
            assert not model.referenced or (
                newcomer.referenced and newcomer.priority > model.priority
            )
            assert newcomer.referenced or not newcomer.evicted
            assert gives_way(ledger.rank(key), ledger.rank_coming(eviction.newcomer))
            assert eviction.newcomer not in self.table().patient
            self.patience.made(eviction.newcomer, newcomer.owners)
        else:
            assert not model.referenced
        del self.here[key]
        self.evicted.add(key)
        self.evictions += 1

    @rule()
    def settle(self) -> None:
        """With all as it is, there is an end to downloads and evictions."""
        self.run(30)
        here, evictions = set(self.here), self.evictions
        self.run(30)
        # What cannot be had is tried again; it takes nothing from others any more.
        assert self.evictions == evictions
        assert self.here.keys() == here
        self.check_rest()

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            for key in sorted(self.reserved):
                self.end(key)
            # Others have their turn before what failed is tried again.
            self.now += RETRY_SECONDS / 2
            self.act()

    def check_rest(self) -> None:
        ledger = self.ledger()
        served = {key for key in self.here if not self.is_superseded(key)}
        for key in self.wanted - self.broken - served - self.reserved.keys():
            model = ledger.holding(key)
            # What fails again and again may have all places.
            waits = key in self.plan.waiting or self.broken & self.wanted
            assert model.evicted_and_unreferenced or waits or not ledger.is_gated(key)
        if self.mounted is None:
            return
        # Nothing goes for what is only reserved.
        ledger = ledger.on_disk_alone()
        for account in ledger.accounts():
            if ledger.taken(account) <= account.high:
                continue
            left = [
                key
                for key in ledger.victims(lambda rank: not rank.referenced)
                if account.disk or account.group in ledger.holding(key).groups
            ]
            if not account.disk and ledger.taken(account) <= account.limit:
                left = [key for key in left if key != ledger.last_of(account.group)]
            if not account.disk or not ledger.is_exhausted:
                left = [key for key in left if not _is_for_less_important(ledger, account, key)]
            assert [key for key in left if account.group in ledger.holding(key).groups] == []

    @invariant()
    def downloads_are_few(self) -> None:
        """Each has a place; starts are checked above."""
        if not hasattr(self, "reserved"):
            return
        # As many more as there are places are for what pods wait for.
        assert len(self.reserved) <= 2 * self.places


TestCapacityMachine = CapacityMachine.TestCase
TestCapacityMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
