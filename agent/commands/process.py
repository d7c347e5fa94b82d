"""The process: its signals and its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from localmodel.agent.commands.exit_codes import INTERRUPTED, TERMINATED, UNEXPECTED

if TYPE_CHECKING:
    from types import FrameType

# How long an exit waits for what is under way.
STOP_SECONDS = 2.0

_CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def fail(message: str) -> None:
    """Say what ends the command, in one line."""
    sys.stderr.write(f"localmodel-agent: {message}\n")


class Stop:
    """Set by SIGINT and SIGTERM; `code` is what the process ends with then."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.code = UNEXPECTED
        for number in _CODES:
            signal.signal(number, self._take)

    def finish(self, code: int) -> None:
        """End it for another reason. The first one counts."""
        if not self.event.is_set():
            self.code = code
            self.event.set()

    @property
    def is_set(self) -> bool:
        """Whether it is to end."""
        return self.event.is_set()

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.event.is_set():
            # Asked again: at once.
            leave(_CODES[signal.Signals(number)])
        self.finish(_CODES[signal.Signals(number)])


def begin_anew() -> NoReturn:
    """Start the program anew in this process: nothing that it knows is of use any more.

    It needs nobody who starts it again.
    """
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - it is ourselves
    except OSError as error:
        fail(f"cannot begin anew: {error.strerror}")
        leave(UNEXPECTED)


def leave(code: int) -> NoReturn:
    """End the process now.

    The threads that wait for the network end with it. An interpreter that shuts down around them
    may abort, and what they leave on the disk is made for a sudden end anyway.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Nobody reads it any more.
            continue
    os._exit(code)
