"""The document that a benchmark ends with."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from crds.quantity import format_quantity
from tests.bench import install
from tests.bench.bench import SMALL_BYTES
from tests.bench.rows import OURS
from tests.bench.table import between_markers, peaks, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.bench import Settings
    from tests.bench.rows import Row
    from tests.bench.table import Rounds

MEMORY_REACH_BYTES = 150_000_000


def report(
    settings: Settings,
    results: Mapping[str, Rounds],
    failed: Mapping[tuple[str, str], str],
    *,
    judged: bool,
) -> str:
    """All tables, in Markdown."""
    parts = [_machine(settings)]
    parts += [
        _row(settings, row, results[row.name], failed, judged=judged) for row in settings.rows
    ]
    parts.append(_memory(results))
    return "\n\n".join(parts)


def _row(
    settings: Settings,
    row: Row,
    rounds: Rounds,
    failed: Mapping[tuple[str, str], str],
    *,
    judged: bool,
) -> str:
    tree = settings.tree(row)
    title = row.title.format(
        one=format_quantity(tree.size),
        shard=format_quantity(tree.size),
        small=format_quantity(SMALL_BYTES),
    )
    if row.tree == "small":
        title = title.replace("10,000", f"{tree.count:,}")
    missing = {name: why for (of, name), why in failed.items() if of == row.name}
    parts = [
        f"### {title}",
        f"Ratios to {row.reference}. {row.notes}".strip(),
        table(row.lines, rounds, row.reference, missing, judged=judged),
    ]
    return "\n\n".join(parts)


def _memory(results: Mapping[str, Rounds]) -> str:
    found = peaks(list(results.values()))
    ours = max((peak for name, peak in found.items() if name.startswith(OURS)), default=0)
    verdict = "" if ours <= MEMORY_REACH_BYTES else ", missed"
    return (
        f"The agent's memory was {ours / 1e6:.0f} MB at most in all of these "
        f"(≤ {MEMORY_REACH_BYTES / 1e6:.0f}{verdict})."
    )


def _machine(settings: Settings) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = [
        f"{os.cpu_count()} cores ({_processor()})",
        f"{format_quantity(memory)} of memory",
        f"Linux {platform.release().partition('-')[0]}",
        f"{_file_system(settings.work)} on the disk",
        f"Python {platform.python_version()}",
    ]
    return (
        f"{', '.join(facts)}; {', '.join(install.versions())}. "
        f"{settings.rounds} rounds, in the order of seed {settings.seed}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """The kind of the file system that a path is on."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[2] == number:
            return words[words.index("-") + 1]
    return "a file system"


def write(document: Path, text: str) -> None:
    """Put the tables into the document."""
    document.write_text(between_markers(document.read_text(), text))
