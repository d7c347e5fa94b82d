"""The process: its signals and its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from agent.commands.exit_codes import INTERRUPTED, TERMINATED, UNEXPECTED

if TYPE_CHECKING:
    from types import FrameType

# How long an exit waits for the loop or a download to stop.
STOP_SECONDS = 2.0

_CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def fail(message: str) -> None:
    """Write the error that ends the command to stderr, in one line."""
    sys.stderr.write(f"localmodel-agent: {message}\n")


class InterruptedPullError(Exception):
    """A signal has interrupted a pull, or its verification."""


class Stop:
    """An event that SIGINT and SIGTERM set; `code` is the exit code of the process then."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.code = UNEXPECTED
        for number in _CODES:
            signal.signal(number, self._on_signal)

    def finish(self, code: int) -> None:
        """Set the event and the exit code. Only the first call counts."""
        if not self.event.is_set():
            self.code = code
            self.event.set()

    @property
    def is_set(self) -> bool:
        """Whether the process is to end."""
        return self.event.is_set()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.event.is_set():
            # A second signal ends the process without waiting for downloads.
            leave(_CODES[signal.Signals(number)])
        self.finish(_CODES[signal.Signals(number)])


def restart_process() -> NoReturn:
    """Replace the program with a new start of itself, by exec: all its state is out of date.

    The restart works without a supervisor.
    """
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same program
    except OSError as error:
        fail(f"cannot restart: {error.strerror}")
        leave(UNEXPECTED)


def leave(code: int) -> NoReturn:
    """End the process at once, without waiting for threads that are blocked on the network.

    An interpreter that shuts down while such threads run may abort. The files of a download on the
    disk survive a sudden end.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # The reader of the pipe is gone.
            continue
    os._exit(code)
