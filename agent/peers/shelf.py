"""What this agent has for its peers: published copies, and the pieces of downloads under way."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agent.disk.no_follow import open_file
from agent.disk.on_disk import MISSING
from agent.peers.shared_model import SharedCopy, SharedDownload, SharedModel, accepted
from agent.structs.verified import verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from agent.disk.published import Stamp
    from agent.disk.store import Store
    from agent.structs.exchange import SharedFile

MAX_WAIT_SECONDS = 25.0
# How often a poll looks whether its peer is still there.
_LOOK_SECONDS = 1.0
# How much is known of published copies that are asked for: models, and files of all of them.
MAX_MODELS = 64
MAX_FILES = 200_000


@dataclass(frozen=True)
class Opened:
    """An open file: its size in bytes, and the pieces that may be read (None: all).

    Leaving its context closes the descriptor.
    """

    descriptor: int
    size: int
    pieces: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)


class _Place:
    """A model on the shelf. `changed` is held for what changes, and notified of it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.model = SharedModel()
        # Held while the copy is read from the disk, and by nobody that must not wait.
        self.reading = threading.Lock()
        self.stamp: Stamp | None = None


class Shelf:
    """Files of models by their key and their SHA-256. Any thread may call it.

    A `grant` is the digest of a requester's grant: without one of the model's, it is as if the
    model were not there. Methods raise OSError if the disk gives an error.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        # The one that was asked for last is the last one.
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._manifests = threading.Lock()

    # A download tells what it has. A key has one download at a time.

    def begin(self, key: str, grant: str, files: Iterable[SharedFile], folder: Path) -> None:
        """Serve these files of a folder to requesters with this grant, as they are written."""
        download = SharedDownload.of(grant, files, str(folder))
        with self._lock:
            place = self._places.setdefault(key, _Place())
            with place.changed:
                place.model.begin(download)
                place.changed.notify_all()

    def wrote(self, key: str, digest: str, pieces: int) -> None:
        """Serve these pieces of a file too. It does not wait for the disk."""
        self._change(key, lambda model: model.wrote(digest, pieces))

    def asks(self, key: str, digest: str, pieces: int) -> None:
        """Say which pieces are asked for at the origin now. It does not wait for the disk."""
        self._change(key, lambda model: model.asks(digest, pieces))

    def lost(self, key: str, digest: str) -> None:
        """Serve no piece of a file of the download any more. It does not wait for the disk."""
        self._change(key, lambda model: model.lost(digest))

    def _change(self, key: str, change: Callable[[SharedModel], bool]) -> None:
        """Change a model, if it is here, and tell those who wait if it has changed."""
        place = self._places.get(key)
        if place is not None:
            with place.changed:
                if change(place.model):
                    place.changed.notify_all()

    def end(self, key: str) -> None:
        """The download is over: serve what was published of it."""
        place = self._places.get(key)
        if place is None:
            return
        # What the disk does not tell now is read when a peer asks.
        with suppress(OSError):
            # First, so that peers see no moment without the files.
            self._read(key, place, self._store.stamp(key))
        with place.changed:
            place.model.end()
            place.changed.notify_all()
        self._tidy(key, place)

    # Peers ask

    def open(self, key: str, grant: str, digest: str) -> Opened | None:
        """Open a file; None if it is not there. The caller closes it."""
        place = self._find(key)
        if place is None:
            return None
        with place.changed:
            copy, download = place.model.copy_for(grant), place.model.download_for(grant)
            pieces = download.pieces.get(digest) if download else None
        opened = None
        if copy and digest in copy.files:
            opened = _open(self._store.path(key), copy.files[digest])
        if opened is None and download and pieces is not None:
            file = download.files[digest]
            opened = _open(Path(download.folder), file, pieces)
            if opened is None and self._store.is_moving(key):
                # A publication has moved the files, and not yet their manifest.
                opened = _open(self._store.path(key), file, pieces)
        return opened

    def pieces(
        self,
        key: str,
        grant: str,
        after: int,
        wait: float,
        gone: Callable[[], bool] = lambda: False,
    ) -> tuple[int, dict[str, str]] | None:
        """The revision, and the pieces of the files that have changed after another one.

        It waits up to `wait` seconds for a change, or until the peer is `gone`. None if there is
        neither a copy nor a download. See SharedModel.news.
        """
        deadline = time.monotonic() + min(wait, MAX_WAIT_SECONDS)
        while True:
            place = self._find(key)
            if place is None:
                return None
            with place.changed:
                model = place.model
                if model.copy_for(grant) is None and model.download_for(grant) is None:
                    return None
                news = model.news(grant, after)
                left = deadline - time.monotonic()
                if news is not None:
                    return news
                if left <= 0 or gone():
                    return after, {}
                place.changed.wait(min(left, _LOOK_SECONDS))

    def manifest(self, key: str, grant: str, expected: str) -> bytes | None:
        """The verified manifest of the published copy, if `expected` is its hash."""
        # One at a time: a manifest may have many files.
        with self._manifests:
            found = self._store.intact(key)
            if found is None or grant not in accepted(found[0].access):
                return None
            manifest = verified(found[0])
            content = manifest.encode() if manifest else b""
        return content if manifest and manifest.hash == expected else None

    def _find(self, key: str) -> _Place | None:
        """The place of a key, with what is known of its copy brought up to date."""
        stamp = self._store.stamp(key)
        with self._lock:
            place = self._places.get(key)
            if place is None:
                if stamp is None:
                    return None
                place = self._places[key] = _Place()
            self._places.move_to_end(key)
        if place.stamp != stamp:
            self._read(key, place, stamp)
            self._shrink(key)
        return None if self._tidy(key, place) else place

    def _read(self, key: str, place: _Place, stamp: Stamp | None) -> None:
        with place.reading:
            if place.stamp == stamp:
                return
            found = self._store.intact(key) if stamp else None
            copy = SharedCopy.of(*found) if found else None
            with place.changed:
                place.model.replace(copy)
                place.stamp = stamp
                place.changed.notify_all()

    def _tidy(self, key: str, place: _Place) -> bool:
        """Forget a place with nothing in it. Returns whether it has nothing in it."""
        with self._lock, place.changed:
            empty = place.model.is_empty
            if empty and self._places.get(key) is place:
                del self._places[key]
            return empty

    def _shrink(self, kept: str) -> None:
        """Forget the copies that nobody has asked for in the longest time, if there are many."""
        with self._lock:
            size = sum(place.model.size for place in self._places.values())
            for key, place in list(self._places.items()):
                if len(self._places) <= MAX_MODELS and size <= MAX_FILES:
                    break
                if key != kept and place.model.download is None:
                    size -= place.model.size
                    del self._places[key]


def _open(folder: Path, file: SharedFile, pieces: int | None = None) -> Opened | None:
    try:
        descriptor = open_file(folder, file.path)
    except OSError as error:
        # A link in its way is as if it were missing.
        if error.errno in MISSING or error.errno == errno.ELOOP:
            return None
        raise
    found = os.fstat(descriptor)
    # A file under way is at its full size only at its end.
    if stat.S_ISREG(found.st_mode) and (pieces is not None or found.st_size == file.size):
        return Opened(descriptor, file.size, pieces)
    os.close(descriptor)
    return None
