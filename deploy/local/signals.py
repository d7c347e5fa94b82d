"""Turns signals into an orderly way out."""

from __future__ import annotations

import signal
import sys

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _leave(number: int, _frame: object) -> None:
    # The way out is not interrupted a second time.
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def end_on_signals() -> None:
    """Let Ctrl-C, TERM and a closed terminal end the process: there is nothing to clean up yet.

    What is raised while modules are imported may be lost: Python ignores it in callbacks.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def exit_on_signals() -> None:
    """Let Ctrl-C, TERM and a closed terminal raise SystemExit, so that everything is cleaned up."""
    for number in _SIGNALS:
        signal.signal(number, _leave)
