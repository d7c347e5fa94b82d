"""The benchmark's medians, ratios, targets and table."""

from __future__ import annotations

import pytest

from tests.bench.control.document import updated
from tests.bench.control.figures import (
    FLOOR,
    OURS,
    Rounds,
    Target,
    Value,
    is_met,
    limit,
    ratio,
    table,
    typical,
)

ROUNDS: Rounds = [
    {FLOOR: {"specs": Value(2.0, "s")}, OURS: {"specs": Value(5.0, "s"), "calls": Value(1200)}},
    {FLOOR: {"specs": Value(1.0, "s")}, OURS: {"specs": Value(3.0, "s"), "calls": Value(1100)}},
    {FLOOR: {"specs": Value(4.0, "s")}, OURS: {"specs": Value(4.0, "s"), "calls": Value(1300)}},
]
LIMITED: Rounds = [*ROUNDS[:2], {OURS: {"specs": limit(14_100, 50_000, "counted", 161.4)}}]


def test_medians() -> None:
    assert typical(ROUNDS, OURS, "specs") == Value(4.0, "s")
    assert typical(ROUNDS, FLOOR, "calls") is None


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    assert ratio(ROUNDS, "specs", OURS, FLOOR) == pytest.approx(2.5)
    assert ratio(ROUNDS, "calls", OURS, FLOOR) is None
    assert ratio([{FLOOR: {"a": Value(0)}, OURS: {"a": Value(1)}}], "a", OURS, FLOOR) is None


def test_one_round_in_vain_is_told() -> None:
    value = typical(LIMITED, OURS, "specs")
    assert value is not None
    assert value.reached == "14,100 of 50,000 counted after 161 s"
    assert is_met(LIMITED, "specs", Target(1000)) is False


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(4.0), True),
        (Target(3.9), False),
        (Target(4.0, of_floor=2.5), True),
        (Target(4.0, of_floor=2.4), False),
    ],
)
def test_target(target: Target, met: bool) -> None:
    assert is_met(ROUNDS, "specs", target) is met


def test_nothing_is_met_by_what_was_not_measured() -> None:
    assert is_met(ROUNDS, "quiet", Target(0)) is None


def test_the_table_without_another_revision() -> None:
    targets = {"specs": Target(6, of_floor=2), "calls": Target(1200)}
    assert table(ROUNDS, None, targets).splitlines() == [
        "| figure | floor | localmodel | ratio to floor | target |",
        "| --- | --- | --- | --- | --- |",
        "| specs | 2.00 s | 4.00 s | 2.50 | ≤ 6 s and ≤ 2 times the floor (is 2.50), **missed** |",
        "| calls |  | 1,200 |  | ≤ 1,200 |",
    ]


def test_the_table_with_another_revision() -> None:
    rounds: Rounds = [
        {
            OURS: {"writes: PUT a": Value(1), "CPU: etcd": Value(12.34, "s")},
            "v1": {"writes: PUT b": Value(250.0, "MB"), "CPU: etcd": Value(123.4, "s")},
        }
    ]
    # One that only the other has is with its like.
    assert table(rounds, "v1", {}).splitlines()[2:] == [
        "| writes: PUT a |  | 1 |  |  |  |",
        "| writes: PUT b |  |  | 250 MB |  |  |",
        "| CPU: etcd |  | 12.3 s | 123 s | 0.10 |  |",
    ]


def test_the_document() -> None:
    begun = updated("", "small", 100, 10)
    assert begun == (
        "# Scale\n\n<!-- control-100x10:begin -->\nsmall\n<!-- control-100x10:end -->\n"
    )
    both = updated(begun, "large", 1000, 50)
    assert both.index("small") < both.index("large")
    assert updated(both, "new", 100, 10) == both.replace("small", "new")
