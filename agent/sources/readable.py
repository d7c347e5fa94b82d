"""A check that the listed files can be read: at many stores that takes another right."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING

from agent.sources.waits import HEAD_SECONDS, current, resume, waiting
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import RangeIgnoredError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.sources.waits import Wait
    from agent.structs.remote import RemoteFile, RemoteModel

# How many files are asked for at once.
PROBES = 8


def check_readable(model: RemoteModel) -> None:
    """Raises DownloadError unless the first byte of each file comes.

    Empty files are left out. The check takes a request or two for each file, and ends with the
    first refused file or with the wait of its thread. A file that is refused while others are
    requested is requested again alone, as are all after it: an origin may allow fewer connections.
    """
    files = (file for file in model.files if file.size != 0)
    some = list(islice(files, 2))
    left = chain(some, files)
    if len(some) > 1:
        left = chain(_refused_together(model, left), left)
    for file in left:
        _probe(model, file, current())


def _refused_together(model: RemoteModel, files: Iterator[RemoteFile]) -> list[RemoteFile]:
    """Request several files at once, until one is refused.

    Returns the refused files. Raises DownloadError for any other failure.
    """
    outer, turn, over = current(), threading.Lock(), threading.Event()
    refused: list[RemoteFile] = []

    def probe() -> None:
        # One file after the other, so that a long list is not held in memory.
        while not over.is_set():
            with turn:
                file = next(files, None)
            if file is None:
                return
            try:
                _probe(model, file, outer)
            except BaseException as error:
                over.set()
                if not isinstance(error, DownloadError) or error.kind is not FailureKind.DENIED:
                    raise
                refused.append(file)

    with ThreadPoolExecutor(PROBES, thread_name_prefix="probe") as threads:
        for one in [threads.submit(probe) for _ in range(PROBES)]:
            one.result()
    return refused


def _probe(model: RemoteModel, file: RemoteFile, outer: Wait | None) -> None:
    resume(outer)
    whole = not file.ranges or file.size is None
    with waiting(HEAD_SECONDS):
        try:
            body = model.read(file, 0, file.size if whole else 1)
        except RangeIgnoredError:
            # The server was about to send the whole file.
            return
        try:
            body.read(1)
        finally:
            body.close()
