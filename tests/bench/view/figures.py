"""The rows of the benchmark, and its table. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Row:
    """What is measured. target: most seconds."""

    name: str
    what: str
    target: float | None = None


STATUS = Row("status", "`kubectl localmodel status`, the whole process", 2.0)
JSON = Row("json", "`kubectl localmodel status -o json`, the whole process")
START = Row("start", "`kubectl localmodel ui`, from its start to its address")
FIRST = Row("first", "its page, from the navigation to the drawn matrix, the first time", 1.0)
AGAIN = Row("again", "its page, loaded again", 1.0)
CHANGE = Row("change", "a changed cell, from the write to the API server to the drawn cell")
ROWS = (STATUS, JSON, START, FIRST, AGAIN, CHANGE)


@dataclass(frozen=True)
class Sample:
    """Wall-clock seconds; and seconds of CPU of the process, or of the page's main thread."""

    seconds: float
    cpu: float | None = None


# By name of the row.
Round = dict[str, Sample]

_HEADER = (
    "| what | seconds, median (most) | of CPU, median | target |",
    "| --- | --- | --- | --- |",
)


def table(rounds: Sequence[Round]) -> str:
    """The medians over the rounds."""
    return "\n".join((*_HEADER, *(_line(row, rounds) for row in ROWS)))


def _line(row: Row, rounds: Sequence[Round]) -> str:
    samples = [results[row.name] for results in rounds]
    seconds = [sample.seconds for sample in samples]
    used = [sample.cpu for sample in samples if sample.cpu is not None]
    middle = median(seconds)
    target = ""
    if row.target is not None:
        target = f"≤ {row.target:g} s" + (", missed" if middle > row.target else "")
    cpu = f"{median(used):.2f}" if used else ""
    return f"| {row.what} | {middle:.2f} ({max(seconds):.2f}) | {cpu} | {target} |"
