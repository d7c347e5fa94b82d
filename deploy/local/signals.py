"""Turns signals into an orderly way out."""

from __future__ import annotations

import signal
import sys


def _leave(number: int, _frame: object) -> None:
    # The way out is not interrupted a second time.
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def exit_on_signals() -> None:
    """Let Ctrl-C, TERM and a closed terminal raise SystemExit, so that everything is cleaned up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
