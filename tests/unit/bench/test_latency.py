"""The table of latencies."""

from __future__ import annotations

import pytest

from tests.bench.latency import latency_table, p99_ratio, percentile
from tests.bench.rows import OURS
from tests.bench.table import Line, Sample

# In all rounds, 1 to 100 ms beside s5cmd, and half of that beside localmodel.
ROUNDS = [
    {
        "s5cmd": Sample(1.0, latencies=tuple(ms / 1e3 for ms in range(first, 101, 2))),
        OURS: Sample(1.0, latencies=tuple(ms / 2e3 for ms in range(first, 101, 2))),
    }
    for first in (2, 1)
]


def test_a_percentile_is_one_of_the_values() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert percentile(values, 0.5) == 2.0
    assert percentile(values, 0.51) == 3.0
    assert percentile(values, 0.99) == 4.0
    assert percentile([7.0], 0.5) == 7.0


def test_the_table_is_of_the_requests_of_all_rounds() -> None:
    lines = (Line("s5cmd"), Line("curl"), Line(OURS), Line("never asked"))
    text = latency_table(lines, ROUNDS, "s5cmd", {"curl": "failed"})
    assert text.splitlines()[2:] == [
        "| **localmodel** | 100 | 25.00 | 49.50 | 0.50 | 50.0 |",
        "| s5cmd | 100 | 50.00 | 99.00 | 1.00 | 100.0 |",
        "| curl | failed | | | | |",
    ]


def test_nobody_asked_beside_the_reference() -> None:
    assert p99_ratio(ROUNDS, OURS, "s5cmd") == pytest.approx(0.5)
    assert p99_ratio(ROUNDS, OURS, "curl") is None
