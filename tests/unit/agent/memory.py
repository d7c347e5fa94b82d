"""A source in memory, with callbacks for tests."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.structs.causes import unreachable
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import RangeIgnoredError, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.structs.credentials import Credentials
    from agent.structs.remote import Checksum


@dataclass
class Memory:
    """A source with one model. `announced` are the sizes in its listing, if they are false."""

    contents: dict[str, bytes]
    announced: dict[str, int | None] = field(default_factory=dict)
    on_read: Callable[[str, int], None] = lambda _path, _position: None
    on_open: Callable[[str, int, int | None], None] = lambda _path, _start, _end: None
    on_abort: Callable[[], None] = lambda: None
    piece: int = 1 << 20
    ranges: bool = True
    # Whether the listing announces ranges although the source sends whole files.
    ignores_ranges: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, Checksum] = field(default_factory=dict)
    origin: str = "mem://origin"
    version: str | None = None

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.opened: list[tuple[str, int, int | None]] = []
        self.sent: Counter[str] = Counter()
        self.open_now = 0
        self.most_open = 0
        self.resolved = 0

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        return tuple(
            RemoteFile(
                path,
                path,
                self.announced.get(path, len(data)),
                self.versions.get(path, "v1"),
                self.checksums.get(path),
                ranges=self.ranges,
            )
            for path, data in self.contents.items()
        )

    def resolve(self, _uri: str, _credentials: Credentials, _version: str | None) -> Memory:
        self.resolved += 1
        return _Listing(self)  # type: ignore[return-value]

    def read(self, file: RemoteFile, start: int, end: int | None) -> _Stream:
        with self.lock:
            self.opened.append((file.path, start, end))
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        try:
            self.on_open(file.path, start, end)
            self._check(file, start, end)
            return _Stream(self, file.path, start, end)
        except BaseException:
            with self.lock:
                self.open_now -= 1
            raise

    def _check(self, file: RemoteFile, start: int, end: int | None) -> None:
        if self.versions.get(file.path, "v1") != file.version:
            raise DownloadError(FailureKind.CHANGED, f"{file.path} changed")
        if self.ignores_ranges and file.ranges and (start, end) != (0, file.size):
            raise RangeIgnoredError(file.path)


class _Listing:
    """The model at the time of its listing."""

    def __init__(self, memory: Memory) -> None:
        self.files = memory.files
        self.origin, self.version = memory.origin, memory.version
        self.read = memory.read


class _Stream:
    def __init__(self, memory: Memory, path: str, start: int, end: int | None) -> None:
        self._memory, self._path = memory, path
        self._data = memory.contents[path]
        self._at, self._end = start, end
        self._aborted = False
        self._closed = False

    def read(self, size: int) -> bytes:
        self._memory.on_read(self._path, self._at)
        if self._aborted:
            raise unreachable(ConnectionAbortedError(), "mem")
        size = min(size, self._memory.piece)
        if self._end is not None:
            size = min(size, self._end - self._at)
        piece = self._data[self._at : self._at + size]
        if not piece and self._end is not None and self._at < self._end:
            raise unreachable(ConnectionError(), "mem")
        self._at += len(piece)
        with self._memory.lock:
            self._memory.sent[self._path] += len(piece)
        return piece

    def abort(self) -> None:
        self._aborted = True
        self._memory.on_abort()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with self._memory.lock:
                self._memory.open_now -= 1
