"""Runs work in a forked process, which starts at once."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deploy.local import posix

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_pipe_write = os.write


@dataclass
class Fork:
    """A child process, which sends messages as lines of JSON."""

    pid: int
    pipe: int
    status: int | None = None
    _rest: bytes = b""
    _told: list[Any] = field(default_factory=list)

    def receive(self) -> list[Any] | None:
        """Wait for messages. Returns the new ones; None when the child has ended."""
        piece = os.read(self.pipe, 1 << 16)
        if not piece:
            return None
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [json.loads(line) for line in lines]

    def receive_all(self, seconds: float) -> list[Any]:
        """All messages until the child ends; after the time limit the child is killed."""
        messages: list[Any] = []
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.pipe], [], [], left)[0]:
                self.end()
                return messages
            more = self.receive()
            if more is None:
                self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                os.close(self.pipe)
                return messages
            messages += more

    def end(self) -> None:
        """Kill the child, if it still runs."""
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self.pipe)


def fork(work: Callable[[Callable[[object], None]], None], log: Path | None = None) -> Fork:
    """Do the work in a child process, which can send messages and ends with this process.

    The child's stderr goes to the log, or to this process' stderr. This process must have only one
    thread.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    prepare = posix.die_with_parent()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Fork(pid, reading)
    code = 1
    try:
        prepare()
        os.close(reading)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(descriptor, 2)

        def send(what: object) -> None:
            _pipe_write(writing, json.dumps(what).encode() + b"\n")

        work(send)
        code = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(code)
