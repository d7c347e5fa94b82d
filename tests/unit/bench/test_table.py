"""The benchmark's statistics and tables."""

from __future__ import annotations

import pytest

from tests.bench.rows import OURS, ROWS, chosen
from tests.bench.table import Line, Sample, between_markers, figures, is_reached, peaks, table

ROUNDS = [
    {"curl": Sample(2.0, 10_000_000), OURS: Sample(1.0, 100_000_000)},
    {"curl": Sample(4.0, 11_000_000), OURS: Sample(1.6, 90_000_000)},
    {"curl": Sample(1.0, 12_000_000), OURS: Sample(0.8, 95_000_000)},
]


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    found = figures(ROUNDS, OURS, "curl")
    assert found is not None
    # Not 1.0 / 2.0, which the medians of the seconds would give.
    assert found.ratio == pytest.approx(0.5)
    assert found.seconds == 1.0
    assert found.peak_bytes == 100_000_000


def test_a_round_without_the_reference_has_no_ratio() -> None:
    found = figures([{OURS: Sample(1.0)}, *ROUNDS[1:2]], OURS, "curl")
    assert found is not None
    assert found.ratio == pytest.approx(0.4)
    alone = figures([{OURS: Sample(1.0)}], OURS, "curl")
    assert alone is not None
    assert alone.ratio is None


def test_nobody_ran() -> None:
    assert figures([{}], OURS, "curl") is None


@pytest.mark.parametrize(
    ("line", "reached"),
    [
        (Line(OURS), None),
        (Line(OURS, reach=0.5), True),
        (Line(OURS, reach=0.49), False),
        (Line(OURS, reach_seconds=1.0), True),
        (Line(OURS, reach_seconds=0.9), False),
    ],
)
def test_reach(line: Line, reached: bool | None) -> None:
    found = figures(ROUNDS, OURS, "curl")
    assert found is not None
    assert is_reached(line, found) is reached


def test_the_table_has_the_fastest_first_and_the_missing_last() -> None:
    lines = (
        Line("curl"),
        Line("rclone"),
        Line("never asked"),
        Line(OURS, "sha256", durable=True, reach=0.4),
    )
    text = table(lines, ROUNDS, "curl", {"rclone": "not installed"})
    assert text.splitlines()[2:] == [
        "| **localmodel** | sha256 | synced | 1.00 | 0.50 | ≤ 0.40, missed | 100 |",
        "| curl | no | no | 2.00 | 1.00 |  | 12 |",
        "| rclone | | | not installed | | | |",
    ]


def test_a_trial_is_not_judged() -> None:
    text = table((Line(OURS, reach=0.4),), ROUNDS, "curl", {}, judged=False)
    assert "missed" not in text


def test_peaks_are_over_all_rows() -> None:
    assert peaks([ROUNDS, [{"curl": Sample(1.0, 13_000_000)}]])["curl"] == 13_000_000


def test_only_what_is_between_the_markers_changes() -> None:
    document = "a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n"
    changed = between_markers(document, "new\n")
    assert changed == "a\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nb\n"
    assert between_markers(changed, "new") == changed
    with pytest.raises(ValueError, match="markers"):
        between_markers("nothing", "new")


def test_rows_have_a_reference_and_lines_of_their_own() -> None:
    for row in ROWS:
        names = [line.name for line in row.lines]
        assert row.reference in names
        assert len(names) == len(set(names))


def test_rows_and_peers_can_be_chosen() -> None:
    (row,) = chosen("small", "kserve-storage")
    assert {entry.tool for entry in row.entries} == {"s5cmd", "kserve-storage", OURS}
    assert chosen("", "") == ROWS
    with pytest.raises(ValueError, match="nothing"):
        chosen("nothing", "")
    with pytest.raises(ValueError, match="wget"):
        chosen("", "wget")
