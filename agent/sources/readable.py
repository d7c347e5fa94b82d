"""Whether a source gives the content of what it lists: at many stores that takes another right."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from agent.failures import DownloadError, FailureKind
from agent.sources.base import RangeIgnoredError
from agent.sources.waits import HEAD_SECONDS, current, resume, waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.sources.base import RemoteFile, RemoteModel
    from agent.sources.waits import Wait

# How many files are asked for at once.
PROBES = 8


def check_readable(model: RemoteModel) -> None:
    """Raises DownloadError unless the first byte of each file comes.

    An empty file has none, and nothing to hide. It takes a request or two for each file, and ends
    with the first that is refused, or with what the thread waits for. What is refused beside others
    is asked for again alone, and all after it: an origin may allow fewer connections.
    """
    files = [file for file in model.files if file.size != 0]
    for file in files[_probe_together(model, files) :]:
        _probe(model, file, current())


def _probe_together(model: RemoteModel, files: Sequence[RemoteFile]) -> int:
    """How many files come before the first that is refused.

    Raises DownloadError for any other failure, and for the refusal of an only file.
    """
    threads = ThreadPoolExecutor(min(PROBES, len(files) or 1), thread_name_prefix="probe")
    outer = current()
    probes = [threads.submit(_probe, model, file, outer) for file in files]
    alone = False
    try:
        for number, probe in enumerate(probes):
            try:
                probe.result()
            except DownloadError as error:
                if error.kind is not FailureKind.DENIED or len(files) == 1:
                    raise
                alone = True
                return number
        return len(files)
    finally:
        threads.shutdown(wait=alone, cancel_futures=True)


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
