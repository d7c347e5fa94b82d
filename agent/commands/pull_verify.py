"""`localmodel-agent pull --verify`: compares a directory with the model at its source."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from agent.commands.assemble import own_credentials
from agent.commands.flags import ANYWHERE
from agent.commands.process import InterruptedPullError
from agent.commands.progress import Shown
from agent.commands.pull_store import PullStore
from agent.commands.verify import Comparer, listed_at_source, listed_in_manifest
from agent.jobs.archive.model import archive_of
from agent.sources import all_sources
from agent.structs.failures import CancelledError, DownloadError, FailureKind, public_uri
from crds.keys import model_key
from crds.quantity import format_quantity

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from agent.commands.process import Stop
    from agent.commands.progress import Display
    from agent.commands.verify import Comparison

POLL_SECONDS = 0.2


def verify(
    options: argparse.Namespace, directory: Path, display: Display, stop: Stop
) -> str | None:
    """Compare the directory with the source. Returns the model's hash.

    Raises DownloadError if they differ, and InterruptedPullError after a signal.
    """
    if not directory.is_dir():
        raise DownloadError(FailureKind.NOT_FOUND, f"{directory} is not there: pull it first")
    comparison = _compare(options.uri, directory, display, stop)
    for file in comparison.problems:
        display.say(f"{file.path} {file.problem}")
    if comparison.problems:
        raise DownloadError(
            FailureKind.CORRUPT,
            f"{directory} differs from {public_uri(options.uri)} in {len(comparison.problems)} of "
            f"{len(comparison.files)} files",
        )
    count = len(comparison.files)
    display.say(
        f"{directory} is the same as {public_uri(options.uri)}: {count} "
        f"{'file' if count == 1 else 'files'}, {format_quantity(comparison.size)}"
    )
    if comparison.unproved:
        display.say(
            f"of {len(comparison.unproved)} of them only the size was compared: neither the "
            "source nor an earlier pull has a checksum"
        )
    return comparison.hash


def _compare(uri: str, directory: Path, display: Display, stop: Stop) -> Comparison:
    """Compare in a thread, so that a signal need not wait for the network or the disk."""
    ends: queue.SimpleQueue[Comparison | BaseException] = queue.SimpleQueue()
    comparer = Comparer(lambda: stop.is_set)

    def work() -> None:
        try:
            ends.put(_comparison(uri, directory, comparer))
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            ends.put(error)

    display.show(directory.name, Shown("listing"))
    threading.Thread(target=work, name="compare", daemon=True).start()
    total = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    while True:
        try:
            end = ends.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if stop.is_set:
                raise InterruptedPullError from None
            display.show(directory.name, Shown("verifying", comparer.done, total))
            continue
        if isinstance(end, CancelledError):
            raise InterruptedPullError
        if isinstance(end, BaseException):
            raise end
        return end


def _comparison(uri: str, directory: Path, comparer: Comparer) -> Comparison:
    manifest = PullStore(directory).manifest(model_key(uri))
    source = all_sources(file_directories=[ANYWHERE]).of(uri, "")
    listing = source.resolve(uri, own_credentials(), None).files
    if archive_of(listing) is None:
        expected = listed_at_source(listing, manifest)
        return comparer.compare(directory, expected, is_ours=manifest is not None)
    if manifest is None:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{public_uri(uri)} is an archive, which can be compared only with the manifest of an "
            f"earlier pull, and {directory} has no manifest: pull it first",
        )
    return comparer.compare(directory, listed_in_manifest(manifest), is_ours=True)
