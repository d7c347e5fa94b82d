"""Runs tools with a timeout, and measures their memory and CPU. No process outlives its run."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.bench.table import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

POLL_SECONDS = 0.02
# A short program is polled more often, so that little of its growth is missed.
_FIRST_POLL_SECONDS = 0.002
_LOOP = "print('{}', flush=True)\nwhile True: pass"


class BenchError(Exception):
    """The benchmark cannot continue. The message says why."""


class FailedError(Exception):
    """A tool failed."""


def run(argv: Sequence[str], env: Mapping[str, str], cwd: Path, timeout: float) -> Sample:
    """Run a program, and measure its whole time, and the CPU of it and of all its children."""
    with _started(argv, env, cwd) as (process, log):
        began = time.monotonic()
        peak, used = _await(process, began, timeout)
        seconds = time.monotonic() - began
        if process.returncode is None:
            raise FailedError(f"took more than {timeout:.0f} s")
        if process.returncode:
            raise FailedError(_told(argv, process.returncode, log))
    return Sample(seconds, peak, used)


def _await(process: subprocess.Popen[bytes], began: float, timeout: float) -> tuple[int, float]:
    """Wait for the end of a program.

    Returns the peak memory of its largest process, and the CPU seconds of all that it waited for.
    """
    peak, used = 0, 0.0
    # A pidfd is ready at once when the process ends, so that polling the memory adds no delay.
    ended = os.pidfd_open(process.pid)
    try:
        while (elapsed := time.monotonic() - began) < timeout:
            peak = max(peak, _peak(process.pid))
            poll = min(POLL_SECONDS, max(_FIRST_POLL_SECONDS, elapsed / 50))
            if select.select([ended], [], [], poll)[0]:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                used = usage.ru_utime + usage.ru_stime
                break
    finally:
        os.close(ended)
    return peak, used


def _peak(pid: int) -> int:
    """The highest peak memory of a process and of its children, in bytes."""
    found = 0
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = max((_peak(int(child)) for child in children), default=0)
    with suppress(OSError):
        found = max(found, status_bytes("VmHWM", pid))
    return found


def status_bytes(name: str, pid: int | str = "self") -> int:
    """A value of /proc/<pid>/status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


class Worker:
    """A process that reads jobs as lines of JSON, and answers each with a line of JSON."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    def ask(self, question: object, timeout: float) -> Any:
        """Send a job. Returns the answer. Raises FailedError."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        return self.receive(timeout)

    def receive(self, timeout: float) -> Any:
        """Wait for the next line of the process. Raises FailedError."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise FailedError(f"took more than {timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(5)
            raise FailedError(_told(["its process"], self._process.returncode, self._log))
        answer = json.loads(line)
        if "error" in answer:
            raise FailedError(answer["error"])
        return answer

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid


class Peak:
    """The peak memory of a process and its children, whichever is largest, until `stop`."""

    def __init__(self, process: Worker) -> None:
        self._pid = process.pid
        self._stopped = threading.Event()
        self._peak = 0
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            self._peak = max(self._peak, _peak(self._pid))

    def stop(self) -> int:
        """The peak in bytes."""
        self._stopped.set()
        self._thread.join()
        return max(self._peak, _peak(self._pid))


@contextmanager
def worker(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> Iterator[Worker]:
    """Start a worker, and wait until it reports that it is ready."""
    with _started(argv, env, cwd, pipes=True) as (process, log):
        found = Worker(process, log)
        found.receive(60)
        yield found


@contextmanager
def busy_loops(count: int, cwd: Path) -> Iterator[None]:
    """Run this many endless loops, each in a session of its own as tools and servers are."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(worker([sys.executable, "-c", _LOOP], {}, cwd))
        yield


@contextmanager
def _started(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, pipes: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    log_path = cwd / f"log-{os.urandom(4).hex()}"
    with (
        log_path.open("w+b") as log,
        subprocess.Popen(
            # The child ends with this process, also if that is killed.
            ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else log,
            stderr=log,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(cwd), **env},
            cwd=cwd,
            start_new_session=True,
        ) as process,
    ):
        log_path.unlink()
        try:
            yield process, log
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _told(argv: Sequence[str], code: int, log: IO[bytes]) -> str:
    log.seek(0)
    text = log.read().decode(errors="replace").strip()
    return f"{Path(argv[0]).name} ended with {code}: {text[-800:]}"
