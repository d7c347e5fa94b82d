"""Runs long commands that end when their caller is interrupted."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

from deploy.local import posix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

END_SECONDS = 5.0


def run_logged(
    argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None
) -> int:
    """Run a command with its output in a file, and return its exit code.

    An exception during the wait, such as KeyboardInterrupt, ends the command and its children.
    """
    with log.open("wb") as output:
        command = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            return command.wait()
        except BaseException:
            _end(command)
            raise


def _end(command: subprocess.Popen[bytes]) -> None:
    posix.kill_group(command.pid, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline and not posix.group_is_gone(command.pid):
        command.poll()
        time.sleep(0.05)
    posix.kill_group(command.pid)
    command.wait()
