"""Signal handlers that end a command with or without cleanup."""

from __future__ import annotations

import signal
import sys

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _leave(number: int, _frame: object) -> None:
    # A second signal must not interrupt the cleanup.
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def end_on_signals() -> None:
    """Let Ctrl-C, TERM and a closed terminal end the process at once, without cleanup.

    For the time of the imports: Python may ignore an exception that a handler raises there.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def exit_on_signals() -> None:
    """Let Ctrl-C, TERM and a closed terminal raise SystemExit, so that cleanup runs."""
    for number in _SIGNALS:
        signal.signal(number, _leave)
