"""The plan against a simple world, with wishes that come and go at random."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.control.step_plan import StepPlan, plan_step
from tests.unit.agent.rows import table

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = ("a", "b", "c", "d")
FOREIGN = "foreign"
keys = st.sampled_from(KEYS)


class PlanMachine(RuleBasedStateMachine):
    """The world carries out each plan at once; downloads end when a rule says so."""

    @initialize(grace=st.sampled_from([0.0, 10.0]), limit=st.integers(1, 3))
    def begin(self, grace: float, limit: int) -> None:
        self.grace, self.limit = grace, limit
        self.now = 0.0
        self.wanted: tuple[str, ...] | None = None
        self.published: set[str] = set()
        self.damaged: set[str] = set()
        self.staged: set[str] = set()
        # The keys whose volumes have a folder: made with the entry.
        self.folders: set[str] = set()
        self.active: set[str] = set()
        self.cancelling: set[str] = set()
        self.retry_at: dict[str, float] = {}
        self.since: Mapping[str, float] = {}
        # Since when the world itself knows each key to be unwanted, without a break.
        self.unwanted_from: dict[str, float] = {}
        self.plan = StepPlan()

    @rule(wanted=st.none() | st.lists(keys, max_size=6))
    def wish(self, wanted: list[str] | None) -> None:
        self.wanted = None if wanted is None else tuple(wanted)
        for key in KEYS:
            if self.wanted is None or key in self.wanted:
                self.unwanted_from.pop(key, None)
            else:
                self.unwanted_from.setdefault(key, self.now)
        self.act()

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.act()

    @rule()
    def wait_as_planned(self) -> None:
        if self.plan.wake_at is not None:
            self.now = max(self.now, self.plan.wake_at)
        self.act()

    @precondition(lambda self: bool(getattr(self, "active", ())))
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.active)))
        self.active.discard(key)
        if key in self.cancelling:
            self.cancelling.discard(key)
        elif fails:
            self.retry_at[key] = self.now + 5
        else:
            self.published.add(key)
            self.damaged.discard(key)
            self.staged.discard(key)
        self.act()

    @precondition(lambda self: bool(getattr(self, "published", ())))
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        self.damaged.add(data.draw(st.sampled_from(sorted(self.published))))
        self.act()

    @rule()
    def restart(self) -> None:
        self.active.clear()
        self.cancelling.clear()
        self.retry_at.clear()
        self.since = {}
        self.wanted = None
        self.unwanted_from.clear()
        self.act()

    def replan(self) -> StepPlan:
        rows = table(
            now=self.now,
            grace=self.grace,
            max_downloads=self.limit,
            wanted=self.wanted,
            ready=frozenset(self.published - self.damaged),
            published=frozenset(self.published),
            staged=frozenset(self.staged - self.published),
            active=frozenset(self.active),
            cancelling=frozenset(self.cancelling),
            retry_at=dict(self.retry_at),
        )
        rows = replace(
            rows,
            rows={
                key: replace(rows.row(key), has_folder=key in self.folders)
                for key in (*rows.rows, *sorted(self.folders - rows.rows.keys()))
            },
        )
        return plan_step(rows, StepPlan(unwanted_since=self.since))

    def act(self) -> None:
        wanted = self.wanted or ()
        self.folders.update(wanted)
        plan = self.plan = self.replan()
        gone = {*plan.cancel, *plan.remove, *plan.discard, *plan.folders}
        assert not gone.intersection(wanted)
        assert FOREIGN not in gone
        if self.wanted is None:
            assert not gone
            assert not plan.start
        for key in gone:
            assert self.now - self.unwanted_from[key] >= self.grace
        assert not self.active.intersection((*plan.remove, *plan.discard, *plan.start))
        assert plan.start == tuple(sorted(plan.start, key=wanted.index))
        assert not self.published.union(self.staged, self.active).intersection(plan.folders)
        for key in plan.start:
            assert key not in self.published - self.damaged
            assert self.retry_at.get(key, 0.0) <= self.now

        self.since = plan.unwanted_since
        self.active.update(plan.start)
        self.staged.update(plan.start)
        self.cancelling.update(plan.cancel)
        self.published.difference_update(plan.remove)
        self.damaged.difference_update(plan.remove)
        self.staged.difference_update((*plan.remove, *plan.discard))
        self.folders.difference_update(plan.folders)
        if self.replan().folders:
            # The folder goes in the step after its copy.
            self.act()

    @invariant()
    def never_too_many_downloads(self) -> None:
        assert len(getattr(self, "active", ())) <= getattr(self, "limit", 0)

    @invariant()
    def a_plan_that_was_carried_out_is_done(self) -> None:
        if hasattr(self, "limit"):
            again = self.replan()
            assert not again.start
            assert not again.destroys

    @rule()
    def settle(self) -> None:
        """With a wish that stands and downloads that work, the disk becomes what is wished."""
        if self.wanted is None:
            return
        for _ in range(60):
            for key in sorted(self.active):
                self.active.discard(key)
                if key not in self.cancelling:
                    self.published.add(key)
                    self.damaged.discard(key)
                    self.staged.discard(key)
                self.cancelling.discard(key)
            self.now += 2
            self.act()
        assert self.published - self.damaged == set(self.wanted)
        assert not self.staged - self.published
        assert not self.active
        assert self.folders == set(self.wanted)


TestPlanMachine = PlanMachine.TestCase
TestPlanMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
