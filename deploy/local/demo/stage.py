"""Prints the demo: its chapters, the user's commands, and the checks that passed."""

from __future__ import annotations

import shlex
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.local.cluster import Cluster
    from deploy.local.console import Console

# Far beyond the seconds that a step takes, for a busy machine.
WAIT_SECONDS = 180.0


class Stage:
    """Prints and runs the demo's commands. `times` has the title and seconds of each chapter."""

    def __init__(self, cluster: Cluster, console: Console) -> None:
        self.cluster = cluster
        self.console = console
        self.times: list[tuple[str, float]] = []

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """Print a title, and measure the time of the `with` block."""
        self.console.line(f"\n▶ {title}")
        started = time.monotonic()
        yield
        self.times.append((title, time.monotonic() - started))

    def holds(self, what: str) -> None:
        """Print that a check passed."""
        self.console.line(f"  ✓ {what}")

    def apply(self, name: str, manifest: str) -> None:
        """Print a manifest, and apply it. Raises LocalError."""
        (self.cluster.root / name).write_text(manifest)
        self.show(name, manifest)
        self.kubectl("apply", "-f", name)

    def show(self, name: str, manifest: str) -> None:
        """Print a manifest."""
        self.console.line(f"  $ cat {name}\n{_indented(manifest)}")

    def kubectl(self, *args: str) -> None:
        """Run kubectl, and print its output. Raises LocalError if it fails."""
        self.console.line(f"  $ kubectl {shlex.join(args)}")
        done = self.cluster.kubectl(*args, cwd=self.cluster.root)
        if done.returncode:
            raise LocalError(f"kubectl {args[0]} failed", detail=done.stderr)
        self.console.line(_indented(done.stdout))


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines()).rstrip()
