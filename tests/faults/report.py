"""The results of all faults, as a table for the terminal and the docs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FAILURES = 20


@dataclass
class Row:
    """One kind of fault. `skipped` says why it was not injected."""

    part: str
    name: str
    injected: int = 0
    survived: int = 0
    lost: int = 0
    skipped: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether every fault was survived, and nothing was lost."""
        return self.injected == self.survived and not self.lost

    def take(self, problems: Sequence[str], lost: int, injected: int = 1) -> None:
        """Add the results of some faults."""
        self.injected += injected
        self.lost += lost
        if problems or lost:
            self.failures += problems
        else:
            self.survived += injected


def table(rows: Sequence[Row]) -> str:
    """All rows in Markdown, with their sum."""
    lines = [
        "| part | fault | injected | survived | lost, bytes |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        if row.skipped:
            lines.append(f"| `{row.part}` | {row.name} | skipped: {row.skipped} | | |")
        else:
            figures = f"{row.injected:,} | {row.survived:,} | {row.lost:,}"
            lines.append(f"| `{row.part}` | {row.name} | {figures} |")
    sums = [sum(getattr(row, name) for row in rows) for name in ("injected", "survived", "lost")]
    lines.append("| | **all** | " + " | ".join(f"**{figure:,}**" for figure in sums) + " |")
    return "\n".join(lines)


def failures(rows: Sequence[Row]) -> str:
    """The faults that were not survived, one per line."""
    found = [f"{row.part}: {row.name}: {line}" for row in rows for line in row.failures]
    more = len(found) - MAX_FAILURES
    return "\n".join(found[:MAX_FAILURES] + ([f"... and {more} more"] if more > 0 else []))
