"""Steps that are measured in this process: a sync, a digest, and a write of the same bytes."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from typing import TYPE_CHECKING

from agent.disk.writeback import sync_file_system
from tests.bench.table import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.bench.origin import Tree

# With more files, one sync of the file system is faster than one of each file.
_MANY = 100
_WRITE_BYTES = 1 << 20


def _measured(step: Callable[[], object]) -> Sample:
    """The seconds, and the CPU seconds of this process and of its children that have ended."""
    began, used = time.monotonic(), _cpu_seconds()
    step()
    return Sample(time.monotonic() - began, cpu_seconds=_cpu_seconds() - used)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def sync(paths: Sequence[Path]) -> Sample:
    """An fsync of each file; of more than 100 files, one sync of their file system."""
    return _measured(lambda: _sync(paths))


def _sync(paths: Sequence[Path]) -> None:
    if len(paths) > _MANY:
        sync_file_system(paths[0].parent)
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def digest(paths: Sequence[Path]) -> Sample:
    """OpenSSL's SHA-256, on two cores if there are several files."""
    each = "1" if len(paths) <= _MANY else str(_MANY)
    return _measured(
        lambda: subprocess.run(
            ["xargs", "-0", "-P", "2", "-n", each, "openssl", "dgst", "-sha256"],
            input=b"\0".join(os.fsencode(path) for path in paths),
            stdout=subprocess.DEVNULL,
            check=True,
        )
    )


def write(folder: Path, tree: Tree) -> Sample:
    """Write files like those of a tree from memory in one thread, and sync them."""
    piece = memoryview(os.urandom(min(_WRITE_BYTES, tree.size)))
    paths = [folder / name for name in tree.files]

    def work() -> None:
        for path in paths:
            with path.open("wb", buffering=0) as file:
                for start in range(0, tree.size, len(piece)):
                    file.write(piece[: tree.size - start])
        _sync(paths)

    return _measured(work)
