"""The specification of a process that the supervisor keeps running, and its file format."""

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
# A process that ran for this long has started well: its next restart waits FIRST_DELAY.
SETTLED_SECONDS = 10.0


@dataclass(frozen=True)
class Process:
    """A command with its folder and environment. Processes of a lower order are stopped later."""

    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str] = field(default_factory=dict)
    order: int = 0
    stop_seconds: float = 5.0

    def to_json(self) -> str:
        """The content of the process's file."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Process:
        """Parse the content of a process's file. Raises ValueError."""
        try:
            raw: dict[str, Any] = json.loads(text)
            return cls(**{**raw, "argv": tuple(raw["argv"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a process: {error}") from error


def restart_delay(deaths: int) -> float:
    """Seconds to wait before the restart of a process that died `deaths` times in a row."""
    return float(min(FIRST_DELAY * 2 ** min(deaths - 1, 10), LAST_DELAY))


def deaths_in_a_row(before: int, lived_seconds: float) -> int:
    """How often a process has died in a row, including a death after `lived_seconds`."""
    return 1 if lived_seconds >= SETTLED_SECONDS else before + 1


def describe_status(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}"


def write_atomically(path: Path, text: str) -> None:
    """Replace a file atomically, so that no reader gets a part of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.write_text(text)
    draft.replace(path)
