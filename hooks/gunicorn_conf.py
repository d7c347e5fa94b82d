"""gunicorn's configuration for the hooks, in the image and in the local cluster.

GUNICORN_CMD_ARGS overrides it: docs/scale.md has the values for a large cluster.
"""

import fcntl
import gc
import itertools
import os
import shutil
import socket
import sys
import tempfile
import threading
from typing import Any

from crds.base import build_all
from crds.version import __version__

# In memory: neither the metric files nor gunicorn's heartbeats need a writable disk.
_MEMORY = "/dev/shm"  # noqa: S108
# The workers' metric files. A folder that the environment names is left alone.
_SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "localmodel-metrics-"


def _lock(path: str, flags: int) -> int | None:
    """Lock a folder. Returns its descriptor; None: it is gone, foreign, or a process has it."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | flags)
        gone = os.fstat(folder).st_nlink == 0
    except BlockingIOError:
        gone = True
    if gone:
        os.close(folder)
    return None if gone else folder


def _make() -> str:
    """Make a folder, which this process and its workers lock as long as one of them lives."""
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=_MEMORY)
        # A process that starts now may have removed it before the lock.
        if _lock(path, flags=0) is not None:
            return path


def _remove_left() -> None:
    """Remove the folders of killed processes: a pod's memory outlives its container."""
    for entry in list(os.scandir(_MEMORY)):
        if entry.name.startswith(_PREFIX):
            folder = _lock(entry.path, fcntl.LOCK_NB)
            if folder is not None:
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(folder)


_MADE = None
if _SHARED_DIR not in os.environ:
    _remove_left()
    _MADE = os.environ[_SHARED_DIR] = _make()

# A cluster's pods may have IPv6 addresses only. Such a socket takes calls by IPv4 too.
bind = "[::]:8080" if socket.has_dualstack_ipv6() else "0.0.0.0:8080"
# Two, so that the long call of a large group does not block the calls of nodes.
workers = 2
worker_class = "gthread"
threads = 8
preload_app = True
# Metacontroller keeps idle connections for 90 s, and a sync on a closed connection fails.
keepalive = 120
# The longest call takes 30 seconds: see metacontroller/nodegroups.yaml.
graceful_timeout = 35
control_socket_disable = True
worker_tmp_dir = _MEMORY

# The API server stores objects with up to 10,000 levels, and msgspec counts each level, also where
# it skips an object: one deep object would end each call that gets it.
sys.setrecursionlimit(12_000)
# So many levels take 4 MiB of a thread's stack.
threading.stack_size(16 << 20)

# A large request makes 200,000 objects without reference cycles. With the default thresholds, the
# garbage collector would scan them again and again.
_OBJECTS_OF_A_REQUEST = 250_000


def when_ready(server: Any) -> None:
    """Exclude loaded modules from garbage collections, so that workers share their pages."""
    server.log.info("localmodel-hooks %s", __version__)
    build_all()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_OF_A_REQUEST, 10, 10)


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker the lowest slot that no living worker has: see hooks/metrics.py."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)


def post_fork(_server: object, worker: Any) -> None:
    """Name the worker's metric files after its slot."""
    os.environ["LOCALMODEL_HOOKS_WORKER_SLOT"] = str(worker.slot)


def on_exit(_server: object) -> None:
    """Delete the metric files."""
    if _MADE is not None:
        shutil.rmtree(_MADE, ignore_errors=True)
