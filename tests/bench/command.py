"""What the benchmarks on a local cluster share: their exit codes, and that one runs at a time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from deploy.local.errors import LocalError
from deploy.local.layout import CHECKOUT
from deploy.local.posix import try_lock
from deploy.local.signals import exit_on_signals
from tests.bench.running import BenchError, FailedError
from tests.bench.table import between_markers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


DOCUMENT = CHECKOUT / "docs" / "benchmarks.md"


def run_benchmark(run: Callable[[], None]) -> int:
    """Run a benchmark. Returns its exit code; an error of its own is printed without a trace."""
    exit_on_signals()
    try:
        run()
    except LocalError as error:
        sys.stderr.write(f"{error.text()}\n")
        return 1
    except (BenchError, FailedError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def make_work_folder(work: Path, what: str) -> None:
    """Make a benchmark's folder, and lock it until this process ends.

    Raises BenchError if another process has the lock.
    """
    work.mkdir(parents=True, exist_ok=True)
    if try_lock(work / "lock") is None:
        raise BenchError(f"another benchmark of {what} is running")


def publish(text: str, section: str, *, write: bool) -> None:
    """Print the results of a benchmark, and write them into their section of the docs if asked."""
    sys.stdout.write(text + "\n")
    if write:
        DOCUMENT.write_text(between_markers(DOCUMENT.read_text(), text, section))
