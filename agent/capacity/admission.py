"""Which downloads start, which copies go for them, and what waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localmodel.agent.capacity.ledger import (
    Holding,
    Ledger,
    Shortage,
    Taken,
    TakenByRank,
    excess_of,
    fits_low,
    relief,
)
from localmodel.agent.capacity.ranks import gives_way
from localmodel.agent.structs.sizes import EvictionReason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from localmodel.agent.capacity.ledger import Account
    from localmodel.agent.capacity.places import Places


@dataclass(frozen=True)
class Victim:
    """A copy that goes: for another model (`newcomer`), or since `group`'s marks say so."""

    key: str
    reason: EvictionReason
    group: str = ""
    newcomer: str = ""


@dataclass
class Admission:
    """What was decided.

    Of what is in `ask`, the source is to be asked: there can be room for it as far as is known, and
    nothing goes before its source has told that it is there, and its size. `making_room` is the
    download that evictions are for, until there is the room that was aimed at; `relieving` names
    the accounts that were past their high marks and are not at the low ones yet. `queued` is what
    would start if it had a place.
    """

    start: list[str] = field(default_factory=list)
    ask: list[str] = field(default_factory=list)
    evict: list[Victim] = field(default_factory=list)
    waiting: dict[str, Shortage] = field(default_factory=dict)
    queued: list[str] = field(default_factory=list)
    making_room: str | None = None
    relieving: frozenset[str] = frozenset()


def admit(
    ledger: Ledger,
    candidates: Sequence[str],
    *,
    due: Collection[str],
    places: Places,
    may_evict: bool,
    patient: Collection[str] = (),
    making_room: str | None,
    relieving: Collection[str],
) -> Admission:
    """Decide on the candidates, most important first; those `due` may start that have a place.

    A model that was never evicted here, or that something refers to, may evict others to fit. One
    that was evicted and that nothing refers to comes back only where that leaves all its accounts
    at their low marks, next to all that would evict it. It is looked at after the others. What may
    be there already, in somebody else's folder, comes before those that are not.

    What does not fit waits, and holds up nothing behind it that fits. But while a model that
    something refers to waits, nothing of a lower priority evicts if the waiting one could have its
    room once pods have gone: otherwise it would wait for ever.

    With `may_evict` False, nothing goes: it is not known what pods mount. Nothing goes for what is
    `patient`. The last two are those of the decision before.
    """
    work = _Work(ledger, places, frozenset(patient) if may_evict else None, making_room)
    for key in sorted(candidates, key=lambda key: _turn(ledger.holding(key))):
        work.look_at(key, due=key in due)
    work.relieve(relieving)
    return work.found


def _turn(holding: Holding) -> tuple[bool, bool]:
    return holding.returns_idly, not holding.foreign


class _Work:
    def __init__(
        self,
        ledger: Ledger,
        places: Places,
        patient: frozenset[str] | None,
        making_room: str | None,
    ) -> None:
        # As it is to be when what was decided is done, and as it is until then; but for what is
        # reserved for what starts, which counts in both.
        self._ledger = self._present = ledger
        self._reserved = Taken()
        self._places = places
        # For what nothing goes; None: for nothing.
        self._patient = patient
        self._making_room = making_room
        # What fits, or can be made to, and does not start now: a retry is not due, for example.
        self._claims = TakenByRank()
        # The highest priority of what waits, and could have its room without the pods.
        self._ahead: int | None = None
        # What goes by itself.
        self._leaving = Taken()
        for holding in ledger.holdings.values():
            if holding.leaving:
                self._leaving.add(holding, -1)
        self.found = Admission()

    def look_at(self, key: str, *, due: bool) -> None:
        holding = self._ledger.holding(key)
        beside = [self._reserved, *(self._claimed(key) if holding.evicted else ())]
        starts = due and self._places.has(key)
        if holding.returns_idly:
            if starts and fits_low(self._ledger, key, beside) and self._fits_now(key):
                self._start(key)
            return
        shortage = self._ledger.shortage(key, beside=beside)
        excess: Mapping[Account, int] | None = None
        if shortage is not None or key == self._making_room:
            excess = self._excess(key, beside)
        evicts = excess is not None and any(over > 0 for over in excess.values())
        if shortage is not None and self._ledger.is_gated(key) and not evicts:
            # Without room, or with room as soon as what is leaving has gone.
            self._wait(key, shortage)
        elif starts and evicts and not holding.listed:
            self._ask(key)
        elif not starts or (evicts and self.found.evict):
            self._claim(key)
            if due and not starts:
                self.found.queued.append(key)
        elif excess is not None and evicts:
            self._evict_for(key, excess)
        elif self._ledger.is_gated(key) and not self._fits_now(key):
            # What goes for another one has not gone yet.
            self._claim(key)
        else:
            # It fits; or it is of groups whose models the hook admits, and fails by itself if not.
            self._start(key)

    def _claim(self, key: str) -> None:
        holding = self._ledger.holding(key)
        self._claims.change(self._ledger.rank_coming(key), holding, holding.reserving())

    def _claimed(self, key: str) -> list[Taken]:
        """The room of all that would evict a model as soon as it was back."""
        return self._claims.before(self._ledger.rank(key))

    def _fits_now(self, key: str) -> bool:
        return self._present.shortage(key, beside=[self._reserved]) is None

    def _excess(self, key: str, beside: Sequence[Taken]) -> Mapping[Account, int] | None:
        """What others have to give for a download; None: it is not to be had."""
        newcomer = self._ledger.holding(key)
        if self._patient is None or key in self._patient:
            return None
        if self._ahead is not None and newcomer.priority < self._ahead:
            return None
        freed = self._ledger.freed.giving_way_to(self._ledger.rank_coming(key))
        return excess_of(self._ledger, key, [*beside, self._leaving], freed)

    def _wait(self, key: str, shortage: Shortage) -> None:
        self.found.waiting[key] = shortage
        newcomer = self._ledger.holding(key)
        if not newcomer.referenced or key in (self._patient or ()):
            return
        rank = self._ledger.rank_coming(key)
        freed = self._ledger.freed_without_pods.giving_way_to(rank)
        if excess_of(self._ledger, key, [self._reserved], freed) is not None:
            ahead = newcomer.priority if self._ahead is None else self._ahead
            self._ahead = max(ahead, newcomer.priority)

    def _evict_for(self, key: str, excess: Mapping[Account, int]) -> None:
        rank = self._ledger.rank_coming(key)
        victims = self._ledger.victims(lambda victim: gives_way(victim, rank))
        gone = self._ledger.lowered(excess, victims) or []
        self.found.making_room = key
        self.found.evict += [Victim(v, EvictionReason.MADE_ROOM, newcomer=key) for v in gone]
        self._ledger = self._ledger.without(gone)
        self._reserve(key)

    def _ask(self, key: str) -> None:
        self.found.ask.append(key)
        self._claim(key)
        self._places.take(key)

    def _start(self, key: str) -> None:
        self.found.start.append(key)
        self._reserve(key)

    def _reserve(self, key: str) -> None:
        holding = self._ledger.holding(key)
        self._reserved.change(holding, holding.reserving())
        self._places.take(key)

    def relieve(self, before: Collection[str]) -> None:
        """Let models go where their accounts are past the high marks."""
        relieving = set()
        # Nothing goes for what may come and is not here yet.
        ledger = self._ledger.on_disk_alone()
        for account in ledger.accounts():
            if ledger.taken(account) <= (account.low if account.name in before else account.high):
                continue
            gone = relief(ledger, account) if self._patient is not None else []
            if not gone:
                continue
            relieving.add(account.name)
            reason = EvictionReason.DISK_PRESSURE if account.disk else EvictionReason.LIMIT_EXCEEDED
            if not self.found.evict:
                self.found.evict = [Victim(key, reason, group=account.group) for key in gone]
        self.found.relieving = frozenset(relieving)
