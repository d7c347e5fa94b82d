from __future__ import annotations

from dataclasses import replace

import pytest

from agent.control.plan import StepPlan, View, plan_step

BASE = View(now=100.0, grace=60.0, max_downloads=2, wanted=())
SET = frozenset


@pytest.mark.parametrize(
    ("view", "plan"),
    [
        pytest.param(BASE, StepPlan(), id="nothing"),
        pytest.param(
            replace(BASE, wanted=("a", "b", "c")),
            StepPlan(start=("a", "b"), queued=SET("c")),
            id="starts-in-order-and-two-at-once",
        ),
        pytest.param(
            replace(BASE, wanted=("a", "a", "b")),
            StepPlan(start=("a", "b")),
            id="one-key-once",
        ),
        pytest.param(
            replace(BASE, wanted=("a", "b"), ready=SET("a"), published=SET("a")),
            StepPlan(start=("b",)),
            id="ready-is-left",
        ),
        pytest.param(
            replace(BASE, wanted=("a",), published=SET("a")),
            StepPlan(start=("a",)),
            id="damaged-is-downloaded-again",
        ),
        pytest.param(
            replace(BASE, wanted=("a", "b", "c"), active=SET("b")),
            StepPlan(start=("a",), queued=SET("c")),
            id="active-takes-a-place",
        ),
        pytest.param(
            replace(BASE, wanted=("a", "b", "c"), active=SET("bc")),
            StepPlan(queued=SET("a")),
            id="no-place-left",
        ),
        pytest.param(
            replace(BASE, wanted=("a", "b"), refused=SET("a")),
            StepPlan(start=("b",)),
            id="refused-is-not-tried",
        ),
        pytest.param(
            replace(
                BASE,
                wanted=("a", "b", "c", "d"),
                suspended=SET("abc"),
                ready=SET("b"),
                published=SET("b"),
                active=SET("c"),
                retry_at={"a": 130.0},
            ),
            StepPlan(start=("d",), suspended=SET("a")),
            id="suspended-is-not-begun-and-what-is-here-or-runs-stays",
        ),
        pytest.param(
            replace(BASE, wanted=("a", "b", "c"), retry_at={"a": 130.0, "b": 100.0}),
            StepPlan(start=("b", "c"), wake_at=130.0),
            id="failed-waits",
        ),
        pytest.param(
            replace(BASE, published=SET("x"), ready=SET("x")),
            StepPlan(wake_at=160.0, unwanted_since={"x": 100.0}),
            id="unwanted-has-a-grace",
        ),
        pytest.param(
            replace(
                BASE,
                published=SET("xy"),
                staged=SET("sy"),
                active=SET("d"),
                unwanted_since=dict.fromkeys("xysd", 40.0),
            ),
            StepPlan(
                cancel=("d",),
                remove=("x", "y"),
                discard=("s",),
                unwanted_since=dict.fromkeys("dsxy", 40.0),
            ),
            id="after-the-grace-all-goes",
        ),
        pytest.param(
            replace(
                BASE,
                published=SET("x"),
                staged=SET("x"),
                active=SET("x"),
                cancelling=SET("x"),
                unwanted_since={"x": 0.0},
            ),
            StepPlan(unwanted_since={"x": 0.0}),
            id="nothing-goes-under-a-running-download",
        ),
        pytest.param(
            replace(BASE, published=SET("x"), unwanted_since={"x": 0.0}, keep_until={"x": 110.0}),
            StepPlan(wake_at=110.0, unwanted_since={"x": 0.0}),
            id="failed-removal-waits",
        ),
        pytest.param(
            replace(
                BASE, wanted=("x",), ready=SET("x"), published=SET("x"), unwanted_since={"x": 0}
            ),
            StepPlan(),
            id="wanted-again-forgets-the-clock",
        ),
        pytest.param(
            replace(
                BASE,
                wanted=None,
                published=SET("x"),
                staged=SET("s"),
                active=SET("d"),
                unwanted_since=dict.fromkeys("xsd", 0.0),
            ),
            StepPlan(),
            id="unknown-touches-nothing-and-restarts-the-clocks",
        ),
        pytest.param(
            replace(BASE, grace=0.0, published=SET("x")),
            StepPlan(remove=("x",), unwanted_since={"x": 100.0}),
            id="no-grace",
        ),
    ],
)
def test_plan(view: View, plan: StepPlan) -> None:
    assert plan_step(view) == plan


def test_a_plan_cannot_be_changed() -> None:
    plan = plan_step(replace(BASE, published=SET("x")))
    with pytest.raises(TypeError):
        plan.unwanted_since["x"] = 0.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("plan", "destroys"),
    [
        (StepPlan(start=("a",)), False),
        (StepPlan(cancel=("a",)), True),
        (StepPlan(remove=("a",)), True),
        (StepPlan(discard=("a",)), True),
    ],
)
def test_what_destroys(plan: StepPlan, destroys: bool) -> None:
    assert plan.destroys is destroys
