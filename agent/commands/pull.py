"""`localmodel-agent pull`: downloads one model into a directory, without Kubernetes."""

from __future__ import annotations

import queue
import random
import sys
import time
import traceback
from typing import TYPE_CHECKING

from agent.commands.assemble import make_engine, own_credentials
from agent.commands.exit_codes import OK, UNEXPECTED, USAGE, exit_code
from agent.commands.flags import ANYWHERE
from agent.commands.peer_flags import asked_peers
from agent.commands.process import STOP_SECONDS, InterruptedPullError, Stop, fail, leave
from agent.commands.progress import LogLines, Shown, duration, make_display
from agent.commands.pull_store import PullStore
from agent.disk.root import StoreError
from agent.jobs import allocator
from agent.jobs.reservations import Reservations
from agent.jobs.workers import Digested, Fetching, Finished, Workers
from agent.sources import all_sources
from agent.structs.failures import (
    TRANSIENT_KINDS,
    DownloadError,
    FailureKind,
    backoff,
)
from agent.structs.log import log
from agent.structs.requests import Request
from crds.keys import model_key
from crds.quantity import format_quantity

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from agent.commands.progress import Display
    from agent.jobs.workers import End, Task
    from agent.structs.manifest import Manifest

POLL_SECONDS = 0.2


def pull(options: argparse.Namespace) -> int:
    """Pull or verify a model, and end the process with the exit code."""
    allocator.tune()
    stop = Stop()
    display = make_display(quiet=options.quiet)
    log.send_to(LogLines(display))
    directory: Path = options.directory.resolve()
    work = _verification() if options.verify else _pull
    try:
        try:
            found = work(options, directory, display, stop)
        finally:
            display.close()
        _print_hash(found, options.hash, directory)
        code = OK
    except StoreError as error:
        fail(str(error))
        code = USAGE
    except DownloadError as error:
        fail(f"{error.kind.value}: {error.message}")
        code = exit_code(error.kind)
    except InterruptedPullError:
        fail(
            "interrupted"
            if options.verify
            else "interrupted: the downloaded bytes stay, and the same command resumes"
        )
        code = stop.code
    except Exception:  # noqa: BLE001 - the last resort of a command
        traceback.print_exc()
        code = UNEXPECTED
    return leave(code)


def _verification() -> Callable[[argparse.Namespace, Path, Display, Stop], str | None]:
    # A pull without it starts sooner.
    from agent.commands.pull_verify import verify  # noqa: PLC0415

    return verify


def _pull(options: argparse.Namespace, directory: Path, display: Display, stop: Stop) -> str | None:
    """Download the model unless it is complete already. Returns its hash."""
    request = _request(options)
    store = PullStore(directory)
    store.open()
    try:
        own = own_credentials()
        fetching = Fetching(
            all_sources(file_directories=[ANYWHERE]),
            make_engine(options),
            lambda _: own,
            asked_peers(options.peer, store),
        )
        puller = Puller(store, fetching, display, stop, retries=options.retries)
        if store.prepare(request.key, force=options.force):
            manifest = puller.hashed(request.key)
            display.say(f"{directory} is already there: {_contents(manifest)}")
        else:
            manifest = puller.pull(request)
            display.say(f"{directory} is there: {_contents(manifest)}, {puller.summary()}")
    finally:
        store.close()
    return manifest.hash


def _request(options: argparse.Namespace) -> Request:
    expected = frozenset({options.hash}) if options.hash else frozenset()
    return Request(model_key(options.uri), options.uri, (), expected)


def _contents(manifest: Manifest) -> str:
    count = len(manifest.files)
    return f"{count} {'file' if count == 1 else 'files'}, {format_quantity(manifest.size)}"


def _print_hash(found: str | None, expected: str | None, directory: Path) -> None:
    """Write the hash to stdout. Raises DownloadError if it is not the expected hash."""
    if found is not None:
        sys.stdout.write(f"{found}\n")
    if expected is not None and found != expected:
        raise DownloadError(
            FailureKind.CORRUPT, f"{directory} has the hash {found}, and {expected} is expected"
        )


class Puller:
    """Downloads a model with the agent's workers, retries failures, and shows the progress."""

    def __init__(
        self, store: PullStore, fetching: Fetching, display: Display, stop: Stop, *, retries: int
    ) -> None:
        self._store = store
        self._display = display
        self._stop = stop
        self._retries = retries
        self._name = store.directory.name
        self._events: queue.SimpleQueue[End] = queue.SimpleQueue()
        self._workers = Workers(fetching, store, Reservations(), self._events.put, adopts=False)
        self._started = time.monotonic()
        self._seconds = 0.0
        # Bytes that earlier pulls left in staging; None until the first listing.
        self._resumed: int | None = None
        # The most bytes on the disk so far, now and before the current attempt.
        self._most = self._most_before = 0

    def pull(self, request: Request) -> Manifest:
        """Download the model, with retries. Returns its manifest.

        Raises DownloadError and InterruptedPullError.
        """
        attempts = 0
        while (error := self._try(request)) is not None:
            attempts = 1 if self._has_advanced else attempts + 1
            if error.kind not in TRANSIENT_KINDS or attempts > self._retries:
                raise error
            delay = max(backoff(error.kind, attempts, random.random()), error.retry_after or 0.0)  # noqa: S311 - not for cryptography
            self._display.say(
                f"{error.kind.value}: {error.message}; try {attempts} of {self._retries} in "
                f"{duration(delay)}"
            )
            if self._stop.event.wait(delay):
                raise InterruptedPullError
        self._seconds = time.monotonic() - self._started
        return self.hashed(request.key)

    def hashed(self, key: str) -> Manifest:
        """The manifest, after computing the digests that publication left for later."""
        manifest = self._store.manifest(key)
        if manifest is None:
            raise _unreadable(self._store)
        if manifest.hash is not None:
            return manifest
        self._display.show(self._name, Shown("hashing", manifest.size, manifest.size))
        self._workers.digest(manifest, self._stop.event)
        end = self._next(None)
        if self._stop.is_set:
            raise InterruptedPullError
        if not isinstance(end, Digested) or end.manifest is None:
            raise _unreadable(self._store)
        self._store.rewrite(end.manifest)
        return end.manifest

    def summary(self) -> str:
        """The duration, the bytes of earlier pulls and the speed, for a message."""
        fetched = self._most - (self._resumed or 0)
        text = f"in {duration(self._seconds)}"
        if self._resumed:
            text = f"{format_quantity(self._resumed)} of it from before, {text}"
        rate = int(fetched / self._seconds) if self._seconds else 0
        return f"{text}, {format_quantity(rate)}/s"

    def _try(self, request: Request) -> DownloadError | None:
        """Make one attempt. Returns the error that the attempt ended with, or None."""
        self._most_before = self._most
        self._display.show(self._name, Shown("listing"))
        task = self._workers.start(request, time.monotonic())
        end = self._next(task)
        if not isinstance(end, Finished) or end.cancelled:
            raise InterruptedPullError
        self._show_progress(task)
        return end.error

    @property
    def _has_advanced(self) -> bool:
        """Whether the last attempt added bytes to those of all attempts before."""
        return self._most > self._most_before

    def _next(self, task: Task | None) -> End:
        """Wait for the end of the worker's job; `task` is its download, if it is one.

        Raises InterruptedPullError after a signal.
        """
        while True:
            try:
                return self._events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                pass
            if self._stop.is_set:
                if task is not None:
                    task.cancelled.set()
                    self._wind_down()
                raise InterruptedPullError
            if task is not None:
                self._show_progress(task)

    def _wind_down(self) -> None:
        try:
            self._events.get(timeout=STOP_SECONDS)
        except queue.Empty:
            # The download is blocked on the network; its files survive a sudden end.
            return

    def _show_progress(self, task: Task) -> None:
        transfer = task.transfer(time.monotonic())
        if not transfer.listed:
            return
        if self._resumed is None:
            self._resumed = task.here
        self._most = max(self._most, transfer.done)
        state = "finishing" if transfer.done == transfer.total else "downloading"
        self._display.show(
            self._name, Shown(state, transfer.done, transfer.total, transfer.bytes_per_second)
        )


def _unreadable(store: PullStore) -> DownloadError:
    return DownloadError(
        FailureKind.INTERNAL, f"{store.directory} cannot be read back: check the disk"
    )
