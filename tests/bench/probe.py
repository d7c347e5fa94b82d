"""Measures the latency of a small server that competes with a download for the cores."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import running

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = Path(__file__).resolve().parent / "probe_process.py"
_SECONDS = 30.0


class Probe:
    """A small server, and a client that asks it on a schedule, each in its own process."""

    def __init__(self, server: running.Worker, client: running.Worker) -> None:
        self._client = client
        self._port = server.ask({}, _SECONDS)["port"]

    def begin(self) -> None:
        """Start to ask. Raises FailedError."""
        self._client.ask({"port": self._port}, _SECONDS)

    def end(self) -> tuple[float, ...]:
        """Stop. Returns the latency of each request in seconds. Raises FailedError."""
        return tuple(self._client.ask({}, _SECONDS)["latencies"])


@contextmanager
def probe(scratch: Path) -> Iterator[Probe]:
    """Start the two processes."""
    with ExitStack() as stack:
        server, client = (
            stack.enter_context(running.worker([sys.executable, str(_PROGRAM), role], {}, scratch))
            for role in ("serve", "ask")
        )
        yield Probe(server, client)
