"""A process that the supervisor keeps running, and its form on disk."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
FIRST_DELAY = 0.5
LAST_DELAY = 5.0
# A process that lived this long did not die of what its last start met.
SETTLED_SECONDS = 10.0


@dataclass(frozen=True)
class Process:
    """What to run. Processes of a lower order are stopped later."""

    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str] = field(default_factory=dict)
    order: int = 0
    stop_seconds: float = 5.0

    def to_json(self) -> str:
        """Its form on disk."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Process:
        """Read its form on disk. Raises ValueError when it is not one."""
        try:
            raw: dict[str, Any] = json.loads(text)
            return cls(**{**raw, "argv": tuple(raw["argv"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a process: {error}") from error


def restart_delay(deaths: int) -> float:
    """Seconds before a process starts again that died this often in a row."""
    return float(min(FIRST_DELAY * 2 ** min(deaths - 1, 10), LAST_DELAY))


def deaths_in_a_row(before: int, lived_seconds: float) -> int:
    """How often in a row a process has died, with the death after this life."""
    return 1 if lived_seconds >= SETTLED_SECONDS else before + 1


def describe_status(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}"


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole, so that nobody reads half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.write_text(text)
    draft.replace(path)
