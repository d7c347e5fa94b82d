"""Reads published files at a low rate, and compares them with their manifest."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.disk.on_disk import MISSING
from agent.disk.verify import DIFFERS, READ_BYTES, Expected, Fault, Verdict, Verifier
from agent.structs.failures import CancelledError
from agent.structs.records import BadFile
from agent.structs.token_bucket import TokenBucket

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.structs.manifest import Manifest

# Errors that mean that the disk has lost the data. Other errors, such as too many open files, say
# nothing about it.
_LOST = {errno.EIO, errno.EUCLEAN, errno.EBADMSG, *MISSING}


class ScrubReader:
    """Reads models at `rate` bytes per second, and calls `read` with the size of each piece.

    Clock and wait can be replaced.

    Pages that it loads into the page cache are dropped at once; pages that were cached before stay,
    since model servers read them.
    """

    def __init__(
        self,
        rate: int,
        stopped: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        read: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._bucket = TokenBucket(rate)
        self._stopped = stopped
        self._clock = clock
        self._wait = wait or stopped.wait
        self._count = read
        self._buffer = memoryview(bytearray(READ_BYTES))

    def bad_files(self, tree: Path, manifest: Manifest) -> tuple[BadFile, ...]:
        """The files that differ from the manifest, or cannot be read in two tries.

        Raises CancelledError once stopped, and OSError for errors that say nothing about a file.
        """
        verifier = Verifier(tree.resolve(), self._stopped.is_set, pieces=self._pieces)
        bad = []
        for file in manifest.files:
            problem = _problem(verifier, Expected(file.path, file.size, sha256=file.sha256))
            if problem:
                bad.append(BadFile(path=file.path, problem=problem))
        return tuple(bad)

    def _pieces(self, descriptor: int) -> Iterator[memoryview]:
        # Without read-ahead, every page that is found in the cache was there before.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        offset = 0
        while count := self._read(descriptor, offset):
            offset += count
            self._count(count)
            delay = self._bucket.take(count, self._clock())
            if delay and self._wait(delay):
                raise CancelledError
            yield self._buffer[:count]

    def _read(self, descriptor: int, offset: int) -> int:
        with suppress(OSError):
            # File systems without RWF_NOWAIT fail here: then the page counts as not cached.
            if os.preadv(descriptor, [self._buffer], offset, os.RWF_NOWAIT) == len(self._buffer):
                return len(self._buffer)
        count = os.preadv(descriptor, [self._buffer], offset)
        os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)
        return count


def _problem(verifier: Verifier, expected: Expected) -> str:
    try:
        verdict = _verify_twice(verifier, expected)
    except OSError as error:
        if error.errno not in _LOST:
            raise
        return f"cannot be read: {error.strerror}"
    if verdict.fault is Fault.MISSING:
        return f"cannot be read: {os.strerror(errno.ENOENT)}"
    return "" if verdict.fault is None else DIFFERS


def _verify_twice(verifier: Verifier, expected: Expected) -> Verdict:
    with suppress(OSError):
        return verifier.verify(expected)
    return verifier.verify(expected)
