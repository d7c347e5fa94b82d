"""Functions for processes and file locks that the standard library lacks."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from deploy.local.errors import LocalError

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# Variables of the user's shell that would change a program of the cluster.
UNWANTED = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "GUNICORN_CMD_ARGS")
UNWANTED_PREFIXES = ("ETCD_", "MAKE", "MFLAGS")
LOOPBACK = ("127.0.0.1", "localhost")

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process, so that it can reap them."""
    if _libc is not None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> Callable[[], None]:
    """A preexec_fn for a child, which makes the kernel kill the child when this process dies."""
    parent = os.getpid()

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def identity(pid: int) -> str | None:
    """A string that differs for a later process with the same id; None if the process has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if sys.platform == "linux":
            return None
        return _identity_by_signal(pid)
    # The second field is the program's name in parentheses, and may contain spaces.
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if state in "ZX" else f"{pid}@{started}"


def _identity_by_signal(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return str(pid)


def group_is_gone(group: int) -> bool:
    """Whether a process group has no members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def kill_group(group: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to each member of a process group, which may have none."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for programs of the cluster: no proxy for loopback, no other cluster."""
    env = {
        key: value
        for key, value in environ.items()
        if key not in UNWANTED and not key.startswith(UNWANTED_PREFIXES)
    }
    for key in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in env.get(key, "").split(",") if host]
        env[key] = ",".join(hosts + [host for host in LOOPBACK if host not in hosts])
    env["PYTHONUNBUFFERED"] = "1"
    return env


def try_lock(path: Path) -> int | None:
    """Lock a file while the returned descriptor is open; None if another process has the lock."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def is_locked(path: Path) -> bool:
    """Whether a process has the lock of a file."""
    if not path.exists():
        return False
    fd = try_lock(path)
    if fd is None:
        return True
    os.close(fd)
    return False


@contextmanager
def locked(path: Path, *, seconds: float, error: LocalError) -> Iterator[None]:
    """Lock a file for a `with` block. Raises the error if another process keeps the lock."""
    deadline = time.monotonic() + seconds
    while (fd := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise error
        time.sleep(0.1)
    try:
        yield
    finally:
        os.close(fd)
