"""Decides which downloads start, which copies are evicted for them, and which wait. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.capacity.eviction_ranks import gives_way
from agent.capacity.ledger import (
    Ledger,
    Shortage,
    Taken,
    TakenByRank,
    excess_of,
    fits_low,
    relief,
)
from agent.structs.sizes import EvictionReason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from agent.capacity.holdings import Account, Holding
    from agent.capacity.places import Places


@dataclass(frozen=True)
class Victim:
    """A copy to evict: for another model (`newcomer`), for a mark of `group`, or by request."""

    key: str
    reason: EvictionReason
    group: str = ""
    newcomer: str = ""


@dataclass
class QueueDecision:
    """The decision of one step. Models are named by their keys.

    The sources of models in `ask` are to be asked for the size: evictions could make room for them,
    and no copy is evicted for a model whose source has not confirmed it. `making_room` is the model
    that evictions are for, until their room is free. `replace` are the models whose superseded
    copies go first, because their downloads do not fit beside them. `relieving` names the accounts
    that were above their high marks and are not yet at their low marks. `queued` models would start
    if a place (see places.py) were free.
    """

    start: list[str] = field(default_factory=list)
    ask: list[str] = field(default_factory=list)
    evict: list[Victim] = field(default_factory=list)
    replace: list[str] = field(default_factory=list)
    waiting: dict[str, Shortage] = field(default_factory=dict)
    queued: list[str] = field(default_factory=list)
    making_room: str | None = None
    relieving: frozenset[str] = frozenset()

    @property
    def makes_room(self) -> bool:
        """Whether any copy is to go."""
        return bool(self.evict or self.replace)


def decide_downloads(
    ledger: Ledger,
    candidates: Sequence[str],
    *,
    due: Collection[str],
    places: Places,
    may_evict: bool,
    patient: Collection[str] = (),
    asked: Sequence[str] = (),
    making_room: str | None,
    relieving: Collection[str],
) -> QueueDecision:
    """Decide on the candidates, the most important first. Only those `due` with a place may start.

    A candidate that was never evicted from this node, or that a service or pod refers to, may evict
    other copies. An evicted model that nothing refers to is considered last, and comes back only if
    all its accounts stay at their low marks, with room for all models that would evict it again.
    Models whose folder may be adopted are considered before models that are downloaded, and models
    that a pod of the node waits for before all others. But those take only the room that referenced
    models of a higher priority leave: anybody who may create pods can have one wait.

    A model that does not fit waits, and does not block the candidates after it. Exception: while a
    model waits that something refers to, and that would fit once pods have ended, no model of a
    lower priority evicts: otherwise the first one could wait for ever.

    With `may_evict` False, no copy is evicted: the pods' mounts are unknown. No copy is evicted for
    `patient` models either. The sources of `asked` models are being asked for the size: those have
    no room yet. `making_room` and `relieving` are those of the former decision.
    """
    work = _Work(ledger, places, frozenset(patient) if may_evict else None, making_room)
    if any(ledger.holding(key).awaited for key in candidates):
        work.keep_room([*asked, *(key for key in candidates if key in due)])
    for key in sorted(candidates, key=lambda key: _order(ledger.holding(key))):
        work.look_at(key, due=key in due)
    work.relieve(relieving)
    return work.found


def _order(holding: Holding) -> tuple[bool, bool, bool]:
    return not holding.awaited, holding.evicted_and_unreferenced, not holding.foreign


class _Work:
    def __init__(
        self,
        ledger: Ledger,
        places: Places,
        patient: frozenset[str] | None,
        making_room: str | None,
    ) -> None:
        # The ledger after the decided evictions, and the ledger before them. The room of models
        # that start is in neither, but in `_reserved`.
        self._ledger = self._present = ledger
        self._reserved = Taken()
        self._places = places
        # The models for which no copy is evicted; None: for no model at all.
        self._patient = patient
        self._making_room = making_room
        # The models that fit, or for which room can be made, and that do not start now, for example
        # because their retry is not due.
        self._claims = TakenByRank()
        # The highest priority of the waiting models that would fit once pods have ended.
        self._ahead: int | None = None
        # By priority, the room of referenced models for which no pod waits: models for which pods
        # wait are looked at before.
        self._kept: dict[int, Taken] = {}
        # Copies that are removed anyway.
        self._leaving = Taken()
        for holding in ledger.holdings.values():
            if holding.leaving:
                self._leaving.add(holding, -1)
        self.found = QueueDecision()

    def keep_room(self, keys: Sequence[str]) -> None:
        """Keep the room of referenced models, the most important first, that can have it."""
        before = Taken()
        for key in keys:
            holding = self._ledger.holding(key)
            if not holding.referenced:
                continue
            fits = self._ledger.shortage(key, beside=[before]) is None
            if not fits and self._excess(key, [before]) is None:
                continue
            before.change(holding, holding.reserving())
            if not holding.awaited:
                kept = self._kept.setdefault(holding.priority, Taken())
                kept.change(holding, holding.reserving())

    def _kept_from(self, holding: Holding) -> list[Taken]:
        """The room that a model for which a pod waits leaves to more important ones."""
        if not holding.awaited:
            return []
        return [taken for priority, taken in self._kept.items() if priority > holding.priority]

    def look_at(self, key: str, *, due: bool) -> None:
        holding = self._ledger.holding(key)
        kept = self._kept_from(holding)
        beside = [self._reserved, *kept, *(self._claimed(key) if holding.evicted else ())]
        starts = due and self._places.has(key)
        if holding.evicted_and_unreferenced:
            if starts and fits_low(self._ledger, key, beside) and self._fits_now(key):
                self._start(key)
            return
        shortage = self._ledger.shortage(key, beside=beside)
        excess: Mapping[Account, int] | None = None
        if shortage is not None or key == self._making_room:
            excess = self._excess(key, beside)
        evicts = excess is not None and any(over > 0 for over in excess.values())
        if shortage is not None and self._ledger.is_gated(key) and not evicts:
            # No room can be made, or there is room as soon as leaving copies are removed.
            self._wait(key, shortage, kept)
        elif starts and evicts and not holding.listed:
            self._ask(key)
        elif not starts or (evicts and self.found.makes_room):
            self._claim(key)
            if due and not starts:
                self.found.queued.append(key)
        elif excess is not None and evicts:
            self._evict_for(key, excess)
        elif self._ledger.is_gated(key) and not self._fits_now(key):
            # The room is that of copies which are not evicted yet.
            self._claim(key)
        else:
            # The model fits; or its groups do not evict, and the download fails if it does not.
            self._start(key)

    def _claim(self, key: str) -> None:
        holding = self._ledger.holding(key)
        self._claims.change(self._ledger.rank_coming(key), holding, holding.reserving())

    def _claimed(self, key: str) -> list[Taken]:
        """The room of the models that would evict this one as soon as it was back."""
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
        freed = self._ledger.freed_for(key)
        return excess_of(self._ledger, key, [*beside, self._leaving], freed)

    def _wait(self, key: str, shortage: Shortage, kept: Sequence[Taken]) -> None:
        self.found.waiting[key] = shortage
        newcomer = self._ledger.holding(key)
        if not newcomer.referenced or key in (self._patient or ()):
            return
        freed = self._ledger.freed_for(key, ignoring_pods=True)
        if excess_of(self._ledger, key, [self._reserved, *kept], freed) is not None:
            ahead = newcomer.priority if self._ahead is None else self._ahead
            self._ahead = max(ahead, newcomer.priority)

    def _evict_for(self, key: str, excess: Mapping[Account, int]) -> None:
        rank = self._ledger.rank_coming(key)
        own = [key] if self._ledger.may_replace(key) else []
        others = self._ledger.victims(lambda victim: gives_way(victim, rank))
        victims = own + [victim for victim in others if victim != key]
        gone = self._ledger.lowered(excess, victims, newcomer=key) or []
        self.found.making_room = key
        if key in gone:
            self.found.replace.append(key)
        self.found.evict += [
            Victim(victim, EvictionReason.MADE_ROOM, newcomer=key)
            for victim in gone
            if victim != key
        ]
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
        """Evict copies from accounts above their high marks."""
        relieving = set()
        # Reservations of running downloads evict nothing.
        ledger = self._ledger.on_disk_alone()
        for account in ledger.accounts():
            if ledger.taken(account) <= (account.low if account.name in before else account.high):
                continue
            gone = relief(ledger, account) if self._patient is not None else []
            if not gone:
                continue
            relieving.add(account.name)
            reason = EvictionReason.DISK_PRESSURE if account.disk else EvictionReason.LIMIT_EXCEEDED
            if not self.found.makes_room:
                self.found.evict = [Victim(key, reason, group=account.group) for key in gone]
        self.found.relieving = frozenset(relieving)
