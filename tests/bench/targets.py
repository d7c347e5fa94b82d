"""The targets of localmodel in the rows, and the table of what was measured. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.latency import p99_ratio
from tests.bench.rows import (
    BESIDE_HTTP,
    BESIDE_S3,
    BOTH_AFTER,
    CRC,
    FLOOR,
    OURS,
    PULLED,
    ROWS,
    SHA256_AFTER,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.bench.table import Rounds

_HEADER = ("| work | target | measured | |", "| --- | --- | --- | --- |")
_S5CMD_VERIFIED = f"s5cmd{SHA256_AFTER}"
_S5CMD_SYNCED = f"s5cmd{BOTH_AFTER}"
_PEERS = {
    row.name: [
        entry.name
        for entry in row.entries
        if not entry.name.startswith(OURS) and not entry.line.durable
    ]
    for row in ROWS
}


@dataclass(frozen=True)
class Results:
    """The rounds of each row, and the bytes of its files."""

    rounds: Mapping[str, Rounds]
    sizes: Mapping[str, int]

    def middle(self, row: str, line: str, figure: str) -> float | None:
        """The median of a figure of a line."""
        return _median(
            attrgetter(figure)(results[line]) for results in self.rounds[row] if line in results
        )

    def ratio(self, row: str, line: str, to: str, figure: str) -> float | None:
        """The median ratio of a figure of two lines in the same round."""
        value = attrgetter(figure)
        return _median(
            value(results[line]) / value(results[to])
            for results in self.rounds[row]
            if line in results and to in results and value(results[to])
        )

    def peak_mb(self, row: str, line: str) -> float | None:
        """The highest peak memory of a line, in MB."""
        found = [results[line].peak_bytes / 1e6 for results in self.rounds[row] if line in results]
        return max(found, default=None)

    def is_disk_the_limit(self, row: str) -> bool:
        """Whether a write of the bytes takes longer than the fastest download by a peer.

        No peer waits for the disk.
        """
        floor = self.middle(row, FLOOR, "seconds")
        peers = [self.middle(row, name, "seconds") for name in _PEERS[row]]
        fastest = min((seconds for seconds in peers if seconds is not None), default=None)
        return floor is not None and fastest is not None and floor > fastest


Value = Callable[[Results], "float | None"]


@dataclass(frozen=True)
class Target:
    """An upper bound of a value in a row; no row is all rows.

    `of` and `unit` surround the bound in the table. `only_for_the_disk` is a bound that counts
    where the disk is the limit.
    """

    row: str
    work: str
    of: str
    bound: float
    unit: str
    value: Value
    only_for_the_disk: bool = False

    @property
    def text(self) -> str:
        """The bound, as people read it."""
        return f"{self.of} ≤ {self.bound:g}{self.unit}"


def _quoted(line: str) -> str:
    """The name of a line within a sentence."""
    if line == FLOOR:
        return "the disk's floor"
    return f'"{line}"' if "," in line else line


def _time(row: str, work: str, bound: float, to: str, *, line: str = OURS) -> Target:
    return Target(
        row,
        work,
        f"ratio to {_quoted(to)}",
        bound,
        "",
        lambda found: found.ratio(row, line, to, "seconds"),
    )


def _disk(row: str, work: str, bound: float, to: str) -> Target:
    return replace(_time(row, work, bound, to), only_for_the_disk=True)


def _p99(line: str, work: str) -> Target:
    return Target(
        "latency",
        work,
        "ratio of p99 to s5cmd",
        1.1,
        "",
        lambda found: p99_ratio(found.rounds["latency"], line, "s5cmd"),
    )


def _cpu_per_gib(found: Results) -> float | None:
    used = found.middle("one-http", OURS, "cpu_seconds")
    return None if used is None else used / (found.sizes["one-http"] / (1 << 30))


def _peak_mb(found: Results) -> float | None:
    """The agent's highest peak in all rows. A pull is another process."""
    names = {line.name for row in ROWS if row.name != "pull" for line in row.lines}
    peaks = [
        found.peak_mb(row, name)
        for row in found.rounds
        for name in names
        if row != "pull" and name.startswith(OURS)
    ]
    return max((peak for peak in peaks if peak is not None), default=None)


_ONE_HTTP, _ONE_S3 = "one file, http", "one file, S3"
_FOLDER_HTTP, _FOLDER_S3 = "8 files, http", "8 files, S3"

TARGETS = (
    _time("one-http", _ONE_HTTP, 0.70, "curl"),
    Target("one-http", _ONE_HTTP, "CPU", 1.9, " s per GiB", _cpu_per_gib),
    _time("one-s3", _ONE_S3, 0.75, "curl"),
    Target(
        "one-s3",
        _ONE_S3,
        f"ratio of CPU to {_quoted(_S5CMD_VERIFIED)}",
        0.6,
        "",
        lambda found: found.ratio("one-s3", OURS, _S5CMD_VERIFIED, "cpu_seconds"),
    ),
    _time("one-s3", f"{_ONE_S3}, checksum of the store", 0.48, "curl", line=CRC),
    _time("folder-http", _FOLDER_HTTP, 0.60, "curl"),
    _time("folder-s3", _FOLDER_S3, 0.60, "curl"),
    _time("folder-s3", f"{_FOLDER_S3}, checksum of the store", 0.48, "curl", line=CRC),
    Target(
        "throttled",
        "one file, S3, streams held to 50 MiB/s",
        "time",
        2.0,
        " s",
        lambda found: found.middle("throttled", OURS, "seconds"),
    ),
    _time("small", "10,000 small files, S3", 1.0, "s5cmd"),
    _time("one-s3-busy", f"{_ONE_S3}, busy node", 0.9, _S5CMD_VERIFIED),
    _time("folder-s3-busy", f"{_FOLDER_S3}, busy node", 0.9, _S5CMD_VERIFIED),
    _disk("one-http", _ONE_HTTP, 1.1, FLOOR),
    _disk("one-s3", _ONE_S3, 1.1, FLOOR),
    _disk("one-s3", _ONE_S3, 0.6, _S5CMD_SYNCED),
    _disk("folder-http", _FOLDER_HTTP, 1.1, FLOOR),
    _disk("folder-s3", _FOLDER_S3, 1.1, FLOOR),
    _disk("folder-s3", _FOLDER_S3, 0.6, _S5CMD_SYNCED),
    Target("", "the agent in all rows", "memory", 110.0, " MB", _peak_mb),
    Target(
        "pull",
        "a pull of 1 MiB, http",
        "CPU",
        0.35,
        " s",
        lambda found: found.middle("pull", PULLED, "cpu_seconds"),
    ),
    Target(
        "pull",
        "a pull of 1 MiB, http",
        "memory",
        45.0,
        " MB",
        lambda found: found.peak_mb("pull", PULLED),
    ),
    _p99(BESIDE_HTTP, "a small server beside one file, http"),
    _p99(BESIDE_S3, "a small server beside one file, S3"),
)


def target_table(found: Results, *, judged: bool) -> str:
    """A Markdown table of the targets in the rows that ran. Without `judged`, no verdicts."""
    lines = [
        _line(target, found, judged=judged)
        for target in TARGETS
        if not target.row or target.row in found.rounds
    ]
    return "\n".join((*_HEADER, *lines))


def _line(target: Target, found: Results, *, judged: bool) -> str:
    value = target.value(found)
    verdict = ""
    if value is None:
        verdict = "not measured"
    elif target.only_for_the_disk and not found.is_disk_the_limit(target.row):
        verdict = "the disk is not the limit"
    elif judged:
        verdict = "met" if value <= target.bound else "**missed**"
    return f"| {target.work} | {target.text} | {_number(value)} | {verdict} |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None
