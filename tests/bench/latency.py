"""The table of a small server's latency beside downloads. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.bench.table import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.table import Line, Rounds

_HEADER = (
    "| beside | requests | p50, ms | p99, ms | ratio of p99 | longest, ms |",
    "| --- | --- | --- | --- | --- | --- |",
)


def latencies(rounds: Rounds, name: str) -> list[float]:
    """The latencies beside a line in all rounds, in seconds, the shortest first."""
    return sorted(
        latency for results in rounds if name in results for latency in results[name].latencies
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the values that this share of them does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def p99_ratio(rounds: Rounds, name: str, reference: str) -> float | None:
    """The p99 beside a line, divided by that beside another one."""
    ours, theirs = latencies(rounds, name), latencies(rounds, reference)
    if not ours or not theirs:
        return None
    return percentile(ours, 0.99) / percentile(theirs, 0.99)


def latency_table(
    lines: Sequence[Line], rounds: Rounds, reference: str, missing: Mapping[str, str]
) -> str:
    """A Markdown table, the lowest p99 first; then the tools that could not run, and why."""
    known = [(line, latencies(rounds, line.name)) for line in lines]
    there = sorted((pair for pair in known if pair[1]), key=lambda pair: percentile(pair[1], 0.99))
    rows = [
        _row(line.name, found, p99_ratio(rounds, line.name, reference)) for line, found in there
    ]
    absent = [
        f"| {line.name} | {missing[line.name]} | | | | |"
        for line, found in known
        if not found and line.name in missing
    ]
    return "\n".join((*_HEADER, *rows, *absent))


def _row(name: str, found: Sequence[float], ratio: float | None) -> str:
    cells = (
        shown(name),
        f"{len(found):,}",
        f"{percentile(found, 0.5) * 1e3:.2f}",
        f"{percentile(found, 0.99) * 1e3:.2f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{found[-1] * 1e3:.1f}",
    )
    return "| " + " | ".join(cells) + " |"
