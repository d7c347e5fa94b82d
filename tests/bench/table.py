"""Statistics of the rounds, and the tables that show them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEADER = (
    "| tool | verified | on the disk | seconds | ratio | reach | memory, MB |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Sample:
    """One run: wall-clock seconds, and its peak memory."""

    seconds: float
    peak_bytes: int = 0


@dataclass(frozen=True)
class Line:
    """One line of a table. `reach` is an upper bound of the ratio, or of the seconds."""

    name: str
    verified: str = ""
    durable: bool = False
    reach: float | None = None
    reach_seconds: float | None = None


@dataclass(frozen=True)
class Figures:
    """The medians of a line."""

    seconds: float
    ratio: float | None
    peak_bytes: int


# By round, then by the name of the line.
Rounds = list[dict[str, Sample]]


def figures(rounds: Rounds, name: str, reference: str) -> Figures | None:
    """The medians of a line; each ratio is to the reference in the same round."""
    samples = [results[name] for results in rounds if name in results]
    if not samples:
        return None
    ratios = [
        results[name].seconds / results[reference].seconds
        for results in rounds
        if name in results and reference in results
    ]
    return Figures(
        median(sample.seconds for sample in samples),
        median(ratios) if ratios else None,
        max(sample.peak_bytes for sample in samples),
    )


def is_reached(line: Line, found: Figures) -> bool | None:
    """Whether a line reaches its expected speed; None if it has none."""
    if line.reach_seconds is not None:
        return found.seconds <= line.reach_seconds
    if line.reach is None or found.ratio is None:
        return None
    return found.ratio <= line.reach


def table(
    lines: Sequence[Line],
    rounds: Rounds,
    reference: str,
    missing: Mapping[str, str],
    *,
    judged: bool = True,
) -> str:
    """A Markdown table, the fastest line first; then the tools that could not run, and why."""
    known = [(line, figures(rounds, line.name, reference)) for line in lines]
    there = sorted(
        ((line, found) for line, found in known if found is not None),
        key=lambda pair: pair[1].seconds if pair[1].ratio is None else pair[1].ratio,
    )
    rows = [_row(line, found, judged=judged) for line, found in there]
    absent = [
        f"| {line.name} | | | {missing[line.name]} | | | |"
        for line, found in known
        if found is None and line.name in missing
    ]
    return "\n".join((*_HEADER, *rows, *absent))


def _row(line: Line, found: Figures, *, judged: bool) -> str:
    ratio = "" if found.ratio is None else f"{found.ratio:.2f}"
    reach = ""
    if line.reach_seconds is not None:
        reach = f"≤ {line.reach_seconds:g} s"
    elif line.reach is not None:
        reach = f"≤ {line.reach:.2f}"
    if judged and is_reached(line, found) is False:
        reach += ", missed"
    name = f"**{line.name}**" if line.name.startswith("localmodel") else line.name
    peak = f"{found.peak_bytes / 1e6:.0f}" if found.peak_bytes else ""
    cells = (
        name,
        line.verified or "no",
        "synced" if line.durable else "no",
        f"{found.seconds:.2f}",
        ratio,
        reach,
        peak,
    )
    return "| " + " | ".join(cells) + " |"


def peaks(all_rounds: Sequence[Rounds]) -> dict[str, int]:
    """The peak memory of each line over all rows."""
    found: dict[str, int] = {}
    for rounds in all_rounds:
        for results in rounds:
            for name, sample in results.items():
                found[name] = max(found.get(name, 0), sample.peak_bytes)
    return found


def between_markers(document: str, content: str, name: str = "bench") -> str:
    """The document with `content` between the markers. Raises ValueError without them."""
    first, last = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, begin, rest = document.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"there are no markers {first} and {last}")
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"
