"""The table of the benchmark. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from tests.bench.pods.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.pods.rows import Row

# Median milliseconds of a row in one round: without the policies, and with them.
Round = dict[str, tuple[float, float]]

_HEADER = (
    "| create | without policies, ms | with them, ms | ratio | added, ms | target |",
    "| --- | --- | --- | --- | --- | --- |",
)


def table(rounds: Sequence[Round]) -> str:
    """Medians over the rounds; ratio and difference are of the same round."""
    return "\n".join((*_HEADER, *(_line(row, rounds) for row in ROWS)))


def _line(row: Row, rounds: Sequence[Round]) -> str:
    found = [results[row.name] for results in rounds]
    added = median(after - before for before, after in found)
    target = ""
    if row.target is not None:
        target = f"≤ {row.target:g}" + (", missed" if added > row.target else "")
    cells = (
        row.name,
        f"{median(before for before, _ in found):.2f}",
        f"{median(after for _, after in found):.2f}",
        f"{median(after / before for before, after in found):.2f}",
        f"{added:.2f}",
        target,
    )
    return "| " + " | ".join(cells) + " |"
