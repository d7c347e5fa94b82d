"""Whether a source gives the content of what it lists: at many stores that takes another right."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from agent.sources.base import RangeIgnoredError
from agent.sources.waits import HEAD_SECONDS, current, resume, waiting

if TYPE_CHECKING:
    from agent.sources.base import RemoteFile, RemoteModel
    from agent.sources.waits import Wait

# How many files are asked for at once.
PROBES = 8


def check_readable(model: RemoteModel) -> None:
    """Raises DownloadError unless the first byte of each file comes.

    An empty file has none, and nothing to hide. It takes a request or two for each file, and ends
    with the first that is refused, or with what the thread waits for.
    """
    files = (file for file in model.files if file.size != 0)
    outer, turn, refused = current(), threading.Lock(), threading.Event()

    def probe() -> None:
        # Each asks for one file after the other: of many, no more is held than what is asked for.
        while not refused.is_set():
            with turn:
                file = next(files, None)
            if file is None:
                return
            try:
                _probe(model, file, outer)
            except BaseException:
                refused.set()
                raise

    with ThreadPoolExecutor(PROBES, thread_name_prefix="probe") as threads:
        for one in [threads.submit(probe) for _ in range(PROBES)]:
            one.result()


def _probe(model: RemoteModel, file: RemoteFile, outer: Wait | None) -> None:
    resume(outer)
    whole = not file.ranges or file.size is None
    with waiting(HEAD_SECONDS):
        try:
            body = model.read(file, 0, file.size if whole else 1)
        except RangeIgnoredError:
            # It was about to send the file.
            return
        try:
            body.read(1)
        finally:
            body.close()
