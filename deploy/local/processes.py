"""Starts, watches and stops the processes of a local cluster, through files for the supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local import posix
from deploy.local.errors import LocalError, PortTakenError
from deploy.local.layout import CHECKOUT
from deploy.local.process import NAME, Process, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from deploy.local.layout import Layout

SUPERVISOR_SECONDS = 10.0
STOP_SECONDS = 20.0
DOWN_SECONDS = 60.0
POLL_SECONDS = 0.05
TAIL_LINES = 15
# Messages of etcd, the API server and gunicorn if another program has their port.
PORT_TAKEN = ("address already in use", "connection in use")


@dataclass(frozen=True)
class Ended:
    """The last exit of a process, and the number of its exits."""

    how: str
    count: int


class Processes:
    """Talks to the supervisor of one local cluster through its folder."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def start_supervisor(self, owner_pid: int) -> None:
        """Start the supervisor in a session of its own, and wait until it is ready."""
        log = self.layout.log("supervisor")
        with log.open("ab") as output:
            supervisor = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "deploy.local.supervisor",
                    str(self.layout.root),
                    f"--owner-pid={owner_pid}",
                ],
                cwd=CHECKOUT,
                env=posix.child_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + SUPERVISOR_SECONDS
        while not self.layout.supervisor_pid.exists():
            if supervisor.poll() is not None or time.monotonic() > deadline:
                raise LocalError(f"the supervisor did not start: see {log}", detail=tail(log))
            time.sleep(0.02)
        # The supervisor outlives this process; its lock shows whether it runs. The return code
        # prevents a ResourceWarning of Popen.
        supervisor.returncode = 0

    def running(self) -> bool:
        """Whether the supervisor or its guard runs."""
        layout = self.layout
        return posix.is_locked(layout.supervisor_lock) or posix.is_locked(layout.guard_lock)

    def stop_supervisor(self) -> bool:
        """Stop the supervisor with all processes, and wait. Returns whether any of them ran."""
        if not self.running():
            return False
        self.layout.keep.unlink(missing_ok=True)
        pid = self._read_pid(self.layout.supervisor_pid)
        if pid is not None and posix.is_locked(self.layout.supervisor_lock):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_SECONDS
        while self.running():
            if time.monotonic() > deadline:
                raise LocalError(
                    f"processes of {self.layout.root} do not stop",
                    todo=f"look at {self.layout.log('supervisor')}",
                )
            time.sleep(POLL_SECONDS)
        _collect(pid)
        return True

    def set(self, name: str, process: Process) -> None:
        """Write the file of a process, which the supervisor then starts."""
        if not NAME.fullmatch(name):
            raise LocalError(f"{name!r} cannot be the name of a process")
        write_atomically(self._spec(name), process.to_json())

    def names(self) -> list[str]:
        """The names of all processes, with those that `stop` has stopped."""
        found = [*self.layout.processes.glob("*.json"), *self.layout.stopped.glob("*.json")]
        return sorted(path.stem for path in found)

    def remove(self, name: str) -> None:
        """Stop a process and delete its file, and wait for its end."""
        self._spec(name).unlink(missing_ok=True)
        (self.layout.stopped / f"{name}.json").unlink(missing_ok=True)
        self._wait_gone(name)

    def stop(self, name: str) -> None:
        """Stop a process until `start`, and wait for its end."""
        self._spec(name).rename(self.layout.stopped / f"{name}.json")
        self._wait_gone(name)

    def start(self, name: str) -> None:
        """Start a stopped process with the same arguments."""
        (self.layout.stopped / f"{name}.json").rename(self._spec(name))

    def pid(self, name: str) -> int | None:
        """Id of a named process; None while the process does not run."""
        return self._read_pid(self.layout.pid(name))

    def wait_for_pid(self, name: str, *, after: int | None, seconds: float) -> int:
        """Wait until a process runs with another id than `after`. Returns its id."""
        deadline = time.monotonic() + seconds
        while (pid := self.pid(name)) is None or pid == after:
            if time.monotonic() > deadline:
                raise LocalError(f"{name} does not run", todo=f"look at {self.layout.log(name)}")
            time.sleep(POLL_SECONDS)
        return pid

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process. Returns the id of the process."""
        pid = self.pid(name)
        if pid is None:
            raise LocalError(f"{name} does not run", todo=f"look at {self.layout.log(name)}")
        os.kill(pid, number)
        return pid

    def ended(self, name: str) -> Ended | None:
        """The last exit of a process that was not stopped; None if it never ended so."""
        try:
            return Ended(**json.loads(self.layout.ended(name).read_text()))
        except FileNotFoundError:
            return None

    def wait(
        self,
        what: str,
        ready: Callable[[], bool],
        *,
        seconds: float,
        needs: Iterable[str] = (),
    ) -> None:
        """Wait until a check is true. Raises LocalError at once if a process of `needs` dies."""
        needed = tuple(needs)
        deadline = time.monotonic() + seconds
        while not ready():
            for name in needed:
                self.check_alive(name)
            if not posix.is_locked(self.layout.supervisor_lock):
                raise LocalError(
                    "the supervisor is gone", todo=f"look at {self.layout.log('supervisor')}"
                )
            if time.monotonic() > deadline:
                logs = ", ".join(str(self.layout.log(name)) for name in needed)
                raise LocalError(
                    f"{what} is not ready after {seconds:.0f} s",
                    todo=f"look at {logs}" if logs else "",
                    detail="\n".join(tail(self.layout.log(name)) for name in needed),
                )
            time.sleep(POLL_SECONDS)

    def check_alive(self, name: str) -> None:
        """Raise LocalError if a process has died since the cluster was started."""
        ended = self.ended(name)
        if ended is None:
            return
        log = self.layout.log(name)
        last = tail(log)
        taken = any(words in last.lower() for words in PORT_TAKEN)
        kind = PortTakenError if taken else LocalError
        raise kind(f"{name} died: {ended.how}", detail=last, todo=f"read more in {log}")

    def _spec(self, name: str) -> Path:
        return self.layout.processes / f"{name}.json"

    def _wait_gone(self, name: str) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while self.layout.pid(name).exists() and self.running():
            if time.monotonic() > deadline:
                raise LocalError(
                    f"{name} does not stop", todo=f"look at {self.layout.log('supervisor')}"
                )
            time.sleep(POLL_SECONDS)

    @staticmethod
    def _read_pid(path: Path) -> int | None:
        try:
            return int(path.read_text())
        except FileNotFoundError:
            return None


def _collect(pid: int | None) -> None:
    """Reap a supervisor that this process started."""
    if pid is None:
        return
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return "(there is no log)"
    return "\n".join(line[:300] for line in text.splitlines()[-lines:]) or "(the log is empty)"
