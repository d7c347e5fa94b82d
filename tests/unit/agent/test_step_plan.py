from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.capacity.holdings import Group, Holding
from agent.capacity.ledger import Ledger
from agent.control.rows import ABSENT, Row, Table
from agent.control.step_plan import StepPlan, plan_step
from tests.unit.agent.rows import WHOLE, table

SET = frozenset


@pytest.mark.parametrize(
    ("states", "plan"),
    [
        pytest.param({}, StepPlan(), id="nothing"),
        pytest.param(
            {"wanted": ("a", "b", "c")},
            StepPlan(start=("a", "b"), queued=SET("c")),
            id="starts-in-order-and-two-at-once",
        ),
        pytest.param(
            {"wanted": ("a", "a", "b")},
            StepPlan(start=("a", "b")),
            id="one-key-once",
        ),
        pytest.param(
            {"wanted": ("a", "b"), "ready": SET("a"), "published": SET("a")},
            StepPlan(start=("b",)),
            id="ready-is-left",
        ),
        pytest.param(
            {"wanted": ("a",), "published": SET("a")},
            StepPlan(start=("a",)),
            id="damaged-is-downloaded-again",
        ),
        pytest.param(
            {"wanted": ("a", "b", "c"), "active": SET("b")},
            StepPlan(start=("a",), queued=SET("c")),
            id="active-takes-a-place",
        ),
        pytest.param(
            {"wanted": ("a", "b", "c"), "active": SET("bc")},
            StepPlan(queued=SET("a")),
            id="no-place-left",
        ),
        pytest.param(
            {"wanted": ("a", "b"), "refused": SET("a")},
            StepPlan(start=("b",)),
            id="refused-is-not-tried",
        ),
        pytest.param(
            {
                "wanted": ("a", "b", "c", "d"),
                "suspended": SET("abc"),
                "ready": SET("b"),
                "published": SET("b"),
                "active": SET("c"),
                "retry_at": {"a": 130.0},
            },
            StepPlan(start=("d",), suspended=SET("a")),
            id="suspended-is-not-begun-and-what-is-here-or-runs-stays",
        ),
        pytest.param(
            {"wanted": ("a", "b", "c", "d"), "awaited": SET("d"), "evicted": SET("b")},
            StepPlan(start=("d", "a"), queued=SET("c")),
            id="what-a-pod-waits-for-is-first",
        ),
        pytest.param(
            {"wanted": ("a", "b"), "suspended": SET("ab"), "awaited": SET("b")},
            StepPlan(start=("b",), suspended=SET("a")),
            id="what-a-pod-waits-for-is-not-suspended",
        ),
        pytest.param(
            {"wanted": ("a", "b", "c"), "evicted": SET("c"), "awaited": SET("c")},
            StepPlan(start=("c", "a"), queued=SET("b")),
            id="what-a-pod-waits-for-comes-back-first",
        ),
        pytest.param(
            {"wanted": ("a", "b", "c", "d", "e"), "active": SET("bc"), "awaited": SET("de")},
            StepPlan(start=("d", "e"), queued=SET("a")),
            id="what-nobody-waits-for-keeps-no-place",
        ),
        pytest.param(
            {"wanted": ("a", "b", "c", "d"), "active": SET("abc"), "awaited": SET("bcd")},
            StepPlan(queued=SET("d")),
            id="what-pods-wait-for-has-so-many-places",
        ),
        pytest.param(
            {"wanted": ("a", "b"), "awaited": SET("b"), "retry_at": {"b": 130.0}},
            StepPlan(start=("a",), wake_at=130.0),
            id="what-failed-waits-though-a-pod-waits-for-it",
        ),
        pytest.param(
            {"wanted": ("a", "b", "c"), "retry_at": {"a": 130.0, "b": 100.0}},
            StepPlan(start=("b", "c"), wake_at=130.0),
            id="failed-waits",
        ),
        pytest.param(
            {"published": SET("x"), "ready": SET("x")},
            StepPlan(wake_at=160.0, unwanted_since={"x": 100.0}),
            id="unwanted-has-a-grace",
        ),
        pytest.param(
            {
                "published": SET("xy"),
                "staged": SET("sy"),
                "active": SET("d"),
                "unwanted_since": dict.fromkeys("xysd", 40.0),
            },
            StepPlan(
                cancel=("d",),
                remove=("x", "y"),
                discard=("s",),
                unwanted_since=dict.fromkeys("dsxy", 40.0),
            ),
            id="after-the-grace-all-goes",
        ),
        pytest.param(
            {
                "published": SET("x"),
                "staged": SET("x"),
                "active": SET("x"),
                "cancelling": SET("x"),
                "unwanted_since": {"x": 0.0},
            },
            StepPlan(unwanted_since={"x": 0.0}),
            id="nothing-goes-under-a-running-download",
        ),
        pytest.param(
            {"published": SET("x"), "unwanted_since": {"x": 0.0}, "keep_until": {"x": 110.0}},
            StepPlan(wake_at=110.0, unwanted_since={"x": 0.0}),
            id="failed-removal-waits",
        ),
        pytest.param(
            {"wanted": ("x",), "ready": SET("x"), "unwanted_since": {"x": 0.0}},
            StepPlan(),
            id="wanted-again-forgets-the-clock",
        ),
        pytest.param(
            {
                "wanted": None,
                "published": SET("x"),
                "staged": SET("s"),
                "active": SET("d"),
                "unwanted_since": dict.fromkeys("xsd", 0.0),
            },
            StepPlan(),
            id="unknown-touches-nothing-and-restarts-the-clocks",
        ),
        pytest.param(
            {"grace": 0.0, "published": SET("x")},
            StepPlan(remove=("x",), unwanted_since={"x": 100.0}),
            id="no-grace",
        ),
    ],
)
def test_plan(states: dict[str, Any], plan: StepPlan) -> None:
    states, since = dict(states), states.get("unwanted_since", {})
    states.pop("unwanted_since", None)
    assert plan_step(table(**states), StepPlan(unwanted_since=since)) == plan


def test_a_plan_cannot_be_changed() -> None:
    plan = plan_step(table(published=SET("x")))
    with pytest.raises(TypeError):
        plan.unwanted_since["x"] = 0.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("plan", "destroys"),
    [
        (StepPlan(start=("a",)), False),
        (StepPlan(cancel=("a",)), True),
        (StepPlan(remove=("a",)), True),
        (StepPlan(discard=("a",)), True),
        (StepPlan(folders=("a",)), True),
    ],
)
def test_what_destroys(plan: StepPlan, destroys: bool) -> None:
    assert plan.destroys is destroys


@pytest.mark.parametrize(
    ("states", "goes"),
    [
        ({}, True),
        ({"wanted": ("a",)}, False),
        ({"wanted": None}, False),
        ({"mounted": SET("a")}, False),
        ({"mounted": None}, False),
        ({"active": SET("a")}, False),
        # The copy, and what is noted of it, go first.
        ({"ready": SET("a"), "published": SET("a")}, False),
        ({"staged": SET("a")}, False),
    ],
)
def test_the_folder_of_a_volume_goes_when_nobody_can_need_it(
    states: dict[str, Any], goes: bool
) -> None:
    made = table(**({"staged": SET("a")} | states))
    row = made.rows["a"]
    copy = row.copy if "ready" in states or "staged" in states else ABSENT
    now = replace(made, rows={"a": replace(row, copy=copy, has_folder=True)})
    before = StepPlan(unwanted_since={"a": now.now - now.grace})
    assert plan_step(now, before).folders == (("a",) if goes else ())
    # Not before the grace period has passed.
    assert plan_step(now, StepPlan(unwanted_since={"a": now.now})).folders == ()


def without_views(made: Table, *keys: str) -> Table:
    """The table with these copies whole, but for their views."""

    def lacking(row: Row) -> Row:
        return replace(row, copy=replace(row.copy, manifest=WHOLE, lacks_view=True))

    rows = {key: lacking(row) if key in keys else row for key, row in made.rows.items()}
    return replace(made, rows=rows)


def test_a_view_is_made_without_a_place_of_a_download() -> None:
    made = table(wanted="abcd", published="cd", ready="cd", active="ab")
    plan = plan_step(without_views(made, "c", "d"))
    assert (plan.start, plan.queued) == (("c", "d"), frozenset())


def test_views_that_are_being_made_leave_all_places_to_downloads() -> None:
    made = table(wanted="abcd", published="cde", ready="cde", active="cd")
    assert plan_step(without_views(made, "c", "d")).start == ("a", "b")


def test_few_views_are_made_at_a_time() -> None:
    """All copies lack their views when an agent makes views for the first time."""
    made = table(wanted="abcde", published="abcde", ready="abcde", active="a", awaited="e")
    assert plan_step(without_views(made, *"abcde")).start == ("e",)


def test_what_a_pod_waits_for_leaves_its_room_to_a_model_whose_source_is_asked() -> None:
    lru = frozenset({"lru"})
    ledger = Ledger(
        {
            "a": Holding(groups=lru, size=60, priority=9, referenced=True),
            "b": Holding(groups=lru, size=50, referenced=True, mounted=True, awaited=True),
        },
        {"lru": Group(100, high_percent=90, low_percent=80, evicts=True)},
    )
    made = table(wanted="ab", active="a", awaited="b", ledger=ledger)
    asked = replace(made.rows["a"], reserved=0)
    plan = plan_step(replace(made, rows={**made.rows, "a": asked}))
    assert (plan.start, list(plan.waiting)) == ((), ["b"])
    assert plan_step(made).start == ("b",)
