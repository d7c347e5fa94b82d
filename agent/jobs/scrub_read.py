"""Reads published files at a low rate, and compares them with their manifest."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from localmodel.agent.disk.on_disk import MISSING
from localmodel.agent.engine.limits import TokenBucket
from localmodel.agent.structs.notes import BadFile

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from localmodel.agent.structs.manifest import Manifest

_READ_BYTES = 1 << 20
# What says that the medium has lost it. Others, such as too many open files, say nothing of it.
_LOST = {errno.EIO, errno.EUCLEAN, errno.EBADMSG, *MISSING}


class ScrubStoppedError(Exception):
    """The reading was broken off."""


class ScrubReader:
    """Reads one model after the other at `rate` bytes per second. Clock and wait can be replaced.

    Pages that it brings into the page cache go again at once; those that were there stay, since
    what serves reads them.
    """

    def __init__(
        self,
        rate: int,
        stopped: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._bucket = TokenBucket(rate)
        self._stopped = stopped
        self._clock = clock
        self._wait = wait or stopped.wait
        self._buffer = memoryview(bytearray(_READ_BYTES))

    def bad_files(self, tree: Path, manifest: Manifest) -> tuple[BadFile, ...]:
        """The files that differ, or cannot be read in two tries.

        Raises ScrubStoppedError, and OSError where nothing can be said of a file.
        """
        bad = []
        for file in manifest.files:
            problem = self._problem(tree / file.path, file.sha256)
            if problem:
                bad.append(BadFile(path=file.path, problem=problem))
        return tuple(bad)

    def _problem(self, path: Path, expected: str | None) -> str:
        try:
            found = self._read_twice(path)
        except OSError as error:
            if error.errno not in _LOST:
                raise
            return f"cannot be read: {error.strerror}"
        return "" if found == expected else "has other content than was downloaded"

    def _read_twice(self, path: Path) -> str:
        with suppress(OSError):
            return self._digest(path)
        return self._digest(path)

    def _digest(self, path: Path) -> str:
        digest = hashlib.sha256()
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            # No reading ahead: what is in the cache was there before, then.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            offset = 0
            while count := self._read(descriptor, offset):
                digest.update(self._buffer[:count])
                offset += count
                delay = self._bucket.take(count, self._clock())
                if self._stopped.is_set() or (delay and self._wait(delay)):
                    raise ScrubStoppedError
        finally:
            os.close(descriptor)
        return digest.hexdigest()

    def _read(self, descriptor: int, offset: int) -> int:
        with suppress(OSError):
            # Some file systems cannot tell whether it is cached; then it counts as not cached.
            if os.preadv(descriptor, [self._buffer], offset, os.RWF_NOWAIT) == len(self._buffer):
                return len(self._buffer)
        count = os.preadv(descriptor, [self._buffer], offset)
        os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)
        return count
