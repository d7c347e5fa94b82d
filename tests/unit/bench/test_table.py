"""The benchmark's statistics and tables."""

from __future__ import annotations

import pytest

from tests.bench.rows import OURS
from tests.bench.table import Line, Sample, between_markers, figures, table

ROUNDS = [
    {"curl": Sample(2.0, 10_000_000, 0.4), OURS: Sample(1.0, 100_000_000, 1.5)},
    {"curl": Sample(4.0, 11_000_000, 0.3), OURS: Sample(1.6, 90_000_000, 1.7)},
    {"curl": Sample(1.0, 12_000_000, 0.2), OURS: Sample(0.8, 95_000_000, 1.1)},
]


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    found = figures(ROUNDS, OURS, "curl")
    assert found is not None
    # Not 1.0 / 2.0, which the medians of the seconds would give.
    assert found.ratio == pytest.approx(0.5)
    assert found.seconds == 1.0
    assert found.cpu_seconds == 1.5
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


def test_the_table_has_the_fastest_first_and_the_missing_last() -> None:
    lines = (
        Line("curl"),
        Line("rclone"),
        Line("never asked"),
        Line(OURS, "sha256", durable=True),
    )
    text = table(lines, ROUNDS, "curl", {"rclone": "not installed"})
    assert text.splitlines()[2:] == [
        "| **localmodel** | sha256 | synced | 1.00 | 0.50 | 1.50 | 100 |",
        "| curl | no | no | 2.00 | 1.00 | 0.30 | 12 |",
        "| rclone | | | not installed | | | |",
    ]


def test_a_run_and_a_later_one() -> None:
    together = Sample(1.0, 5, 0.5, (0.1,)) + Sample(2.0, 4, 0.25, (0.2,))
    assert together == Sample(3.0, 5, 0.75, (0.1, 0.2))


def test_only_what_is_between_the_markers_changes() -> None:
    document = "a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n"
    changed = between_markers(document, "new\n")
    assert changed == "a\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nb\n"
    assert between_markers(changed, "new") == changed
    with pytest.raises(ValueError, match="markers"):
        between_markers("nothing", "new")
