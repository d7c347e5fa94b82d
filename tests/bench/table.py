"""Statistics of the rounds, and the tables that show them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEADER = (
    "| tool | verified | on the disk | seconds | ratio | CPU, s | memory, MB |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Sample:
    """One run: wall-clock seconds, its peak memory, and the CPU seconds of all its processes.

    `latencies` are those of a small server beside the run, in seconds, if they were measured.
    """

    seconds: float
    peak_bytes: int = 0
    cpu_seconds: float = 0.0
    latencies: tuple[float, ...] = ()

    def __add__(self, later: Sample) -> Sample:
        """This run and a later one."""
        return Sample(
            self.seconds + later.seconds,
            max(self.peak_bytes, later.peak_bytes),
            self.cpu_seconds + later.cpu_seconds,
            self.latencies + later.latencies,
        )


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    name: str
    verified: str = ""
    durable: bool = False


@dataclass(frozen=True)
class Figures:
    """The medians of a line, and the peak of its memory."""

    seconds: float
    ratio: float | None
    cpu_seconds: float
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
        median(sample.cpu_seconds for sample in samples),
        max(sample.peak_bytes for sample in samples),
    )


def table(lines: Sequence[Line], rounds: Rounds, reference: str, missing: Mapping[str, str]) -> str:
    """A Markdown table, the fastest line first; then the tools that could not run, and why."""
    known = [(line, figures(rounds, line.name, reference)) for line in lines]
    there = sorted(
        ((line, found) for line, found in known if found is not None),
        key=lambda pair: pair[1].seconds if pair[1].ratio is None else pair[1].ratio,
    )
    rows = [_row(line, found) for line, found in there]
    absent = [
        f"| {line.name} | | | {missing[line.name]} | | | |"
        for line, found in known
        if found is None and line.name in missing
    ]
    return "\n".join((*_HEADER, *rows, *absent))


def _row(line: Line, found: Figures) -> str:
    cells = (
        shown(line.name),
        line.verified or "no",
        "synced" if line.durable else "no",
        f"{found.seconds:.2f}",
        "" if found.ratio is None else f"{found.ratio:.2f}",
        f"{found.cpu_seconds:.2f}",
        f"{found.peak_bytes / 1e6:.0f}" if found.peak_bytes else "",
    )
    return "| " + " | ".join(cells) + " |"


def shown(name: str) -> str:
    """The name of a line in a table: localmodel's are bold."""
    return f"**{name}**" if name.startswith("localmodel") else name


def between_markers(document: str, content: str, name: str = "bench") -> str:
    """The document with `content` between the markers. Raises ValueError without them."""
    first, last = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, begin, rest = document.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"there are no markers {first} and {last}")
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"
