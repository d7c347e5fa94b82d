"""The supervisor keeps the declared processes running, as kubelet does, until SIGTERM.

A process is declared by a JSON file in `run/processes`. The supervisor starts the process of a new
file, stops the process of a deleted file, and restarts a process that dies or whose file changes.
SIGTERM stops all processes, the highest order first. No process outlives the supervisor.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.local import posix
from deploy.local.layout import CHECKOUT, Layout
from deploy.local.process import (
    Process,
    deaths_in_a_row,
    describe_status,
    restart_delay,
    write_atomically,
)

TICK_SECONDS = 0.05


@dataclass
class Child:
    """A process that runs, or that has ended but whose group still has members."""

    spec: Process
    popen: subprocess.Popen[bytes]
    started: float
    kill_at: float | None = None
    status: int | None = None

    @property
    def group(self) -> int:
        """The id of the process group that the process leads."""
        return self.popen.pid


@dataclass
class Record:
    """The deaths of a process, and the time of its next start."""

    in_a_row: int = 0
    total: int = 0
    due: float = 0.0


class Supervisor:
    """Runs in one thread: the kernel ties a child to the thread that started it."""

    def __init__(self, layout: Layout, owner: int | None) -> None:
        self.layout = layout
        self.owner = owner
        self.owner_identity = posix.identity(owner) if owner is not None else None
        self.children: dict[str, Child] = {}
        self.records: dict[str, Record] = {}
        self.guard: subprocess.Popen[bytes] | None = None
        self.asked_to_stop = False
        self._wanted: dict[str, tuple[tuple[int, int], Process]] = {}
        self._prepare_child = posix.die_with_parent()

    def run(self) -> None:
        """Supervise until a signal, or until the owner ends; then stop all processes."""
        posix.adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask_to_stop)
        self._start_guard()
        write_atomically(self.layout.supervisor_pid, f"{os.getpid()}\n")
        say(f"supervisor ready, process {os.getpid()}")
        try:
            while not self.asked_to_stop and not self._owner_is_gone():
                self._tick()
                time.sleep(TICK_SECONDS)
        finally:
            self._stop_everything()
            with suppress(OSError):
                self.layout.supervisor_pid.unlink()

    def _ask_to_stop(self, number: int, _frame: object) -> None:
        say(f"stopping because of signal {number}")
        self.asked_to_stop = True

    def _owner_is_gone(self) -> bool:
        if self.owner is None or self.layout.keep.exists():
            return False
        now = posix.identity(self.owner)
        if now is not None and now == self.owner_identity:
            return False
        say(f"owner {self.owner} is gone")
        return True

    def _tick(self) -> None:
        self._reap()
        try:
            wanted = self._read_wanted()
        except FileNotFoundError:
            say(f"{self.layout.processes} is gone")
            self.asked_to_stop = True
            return
        now = time.monotonic()
        for name, child in self.children.items():
            if child.kill_at is None and wanted.get(name) != child.spec:
                self._begin_stop(name, child, now)
        self._kill_overdue(now)
        for name, spec in sorted(wanted.items(), key=lambda item: item[1].order):
            record = self.records.setdefault(name, Record())
            if name not in self.children and now >= record.due:
                self._start(name, spec, record)
        for name in self.records.keys() - wanted.keys():
            self.records[name].due = 0.0

    def _read_wanted(self) -> dict[str, Process]:
        found: dict[str, tuple[tuple[int, int], Process]] = {}
        for entry in os.scandir(self.layout.processes):
            if not entry.name.endswith(".json") or entry.name.startswith("."):
                continue
            name = entry.name.removesuffix(".json")
            known = self._wanted.get(name)
            try:
                stat = entry.stat()
                version = (stat.st_ino, stat.st_mtime_ns)
                if known and known[0] == version:
                    found[name] = known
                else:
                    found[name] = (version, Process.from_json(Path(entry.path).read_text()))
            except FileNotFoundError:
                continue
            except ValueError as error:
                say(f"{entry.path}: {error}")
                if known:
                    found[name] = (version, known[1])
        self._wanted = found
        return {name: spec for name, (_, spec) in found.items()}

    def _start(self, name: str, spec: Process, record: Record) -> None:
        log = self.layout.log(name)
        try:
            with log.open("ab") as output:
                popen = subprocess.Popen(
                    spec.argv,
                    cwd=spec.cwd,
                    env=os.environ | spec.env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=self._prepare_child,  # noqa: PLW1509  there is one thread only
                )
        except (OSError, subprocess.SubprocessError) as error:
            with log.open("a") as output_text:
                output_text.write(f"{spec.argv[0]} did not start: {error}\n")
            self._count_death(name, record, 0.0, f"did not start: {error}")
            return
        self._send_to_guard(f"+{popen.pid}")
        self.children[name] = Child(spec, popen, time.monotonic())
        write_atomically(self.layout.pid(name), f"{popen.pid}\n")
        say(f"{name} started, process {popen.pid}")

    def _begin_stop(self, name: str, child: Child, now: float) -> None:
        say(f"{name} is being stopped")
        child.kill_at = now + child.spec.stop_seconds
        if child.status is None:
            with suppress(ProcessLookupError):
                os.kill(child.popen.pid, signal.SIGTERM)

    def _kill_overdue(self, now: float) -> None:
        for name, child in self.children.items():
            if child.kill_at is not None and now >= child.kill_at:
                say(f"{name} did not stop by itself and is killed")
                posix.kill_group(child.group)
                child.kill_at = now + child.spec.stop_seconds

    def _reap(self) -> None:
        """Reap every process that ended, and drop children whose group has ended."""
        by_pid = {child.popen.pid: child for child in self.children.values()}
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if info is None:
                break
            # Before waitpid, because no other process can get the id of an unreaped process.
            if info.si_pid in by_pid:
                posix.kill_group(info.si_pid)
            _, status = os.waitpid(info.si_pid, 0)
            if info.si_pid in by_pid:
                child = by_pid[info.si_pid]
                child.status = status
                child.popen.returncode = os.waitstatus_to_exitcode(status)
            elif self.guard is not None and info.si_pid == self.guard.pid:
                self.guard.returncode = os.waitstatus_to_exitcode(status)
                self._start_guard()
        for name, child in list(self.children.items()):
            if child.status is not None and posix.group_is_gone(child.group):
                self._forget(name, child, child.status)

    def _forget(self, name: str, child: Child, status: int) -> None:
        self._send_to_guard(f"-{child.group}")
        del self.children[name]
        if child.kill_at is None:
            record = self.records.setdefault(name, Record())
            lived = time.monotonic() - child.started
            self._count_death(name, record, lived, describe_status(status))
        else:
            say(f"{name} stopped: {describe_status(status)}")
        with suppress(OSError):
            self.layout.pid(name).unlink()

    def _count_death(self, name: str, record: Record, lived: float, how: str) -> None:
        record.in_a_row = deaths_in_a_row(record.in_a_row, lived)
        record.total += 1
        delay = restart_delay(record.in_a_row)
        record.due = time.monotonic() + delay
        say(f"{name} died after {lived:.1f} s: {how}; starts again in {delay:.1f} s")
        with suppress(OSError):
            write_atomically(
                self.layout.ended(name), json.dumps({"how": how, "count": record.total})
            )

    def _stop_everything(self) -> None:
        for order in sorted({child.spec.order for child in self.children.values()}, reverse=True):
            names = [name for name, child in self.children.items() if child.spec.order == order]
            for name in names:
                if self.children[name].kill_at is None:
                    self._begin_stop(name, self.children[name], time.monotonic())
            while any(name in self.children for name in names):
                time.sleep(TICK_SECONDS / 2)
                self._reap()
                self._kill_overdue(time.monotonic())
        guard, self.guard = self.guard, None
        if guard is not None and guard.stdin is not None:
            with suppress(OSError):
                guard.stdin.close()
            with suppress(ChildProcessError):
                guard.wait(timeout=10)
        say("everything is stopped")

    def _start_guard(self) -> None:
        self.guard = subprocess.Popen(
            [sys.executable, "-m", "deploy.local.guard", str(self.layout.root)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        for child in self.children.values():
            self._send_to_guard(f"+{child.group}")

    def _send_to_guard(self, line: str) -> None:
        if self.guard is None or self.guard.stdin is None:
            return
        # If the guard has just died, _start_guard sends all groups to the next guard.
        with suppress(OSError):
            self.guard.stdin.write(f"{line}\n".encode())
            self.guard.stdin.flush()


def say(text: str) -> None:
    """Write a line to the supervisor's log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)


def main(arguments: list[str]) -> int:
    """Supervise the processes of one local cluster."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.supervisor", description=__doc__)
    parser.add_argument("root", type=Path, help="folder of the local cluster")
    parser.add_argument("--owner-pid", type=int, help="stop everything when this process is gone")
    options = parser.parse_args(arguments)
    layout = Layout(options.root.resolve())
    lock = posix.try_lock(layout.supervisor_lock)
    if lock is None:
        print(f"a supervisor is running in {layout.root}", file=sys.stderr)
        return 1
    Supervisor(layout, options.owner_pid).run()
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
