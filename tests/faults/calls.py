"""Counts the calls to the file system below a root, so that a chosen call can fail."""

from __future__ import annotations

import ctypes
import io
import os
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

from agent.disk import writeback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Calls that write, and calls that only read.
CHANGES = (
    *("chmod", "fchmod", "fdatasync", "fsync", "ftruncate", "link", "mkdir", "posix_fallocate"),
    *("pwrite", "rename", "replace", "rmdir", "unlink", "write"),
)
LOOKS = ("listdir", "lstat", "preadv", "scandir", "stat", "statvfs")
# Functions of the C library that Python does not have.
FOREIGN_CHANGES = ("sync_file_range", "syncfs")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_readlink = os.readlink


class Crash(BaseException):
    """A simulated kill of the process: the code under test must not catch it."""


@dataclass(frozen=True)
class Call:
    """One call. `target` is the new name of a rename, `size` the bytes of a write."""

    name: str
    path: str
    changes: bool
    creates: bool = False
    target: str = ""
    size: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


@dataclass(frozen=True)
class Fault:
    """A fault of one of the calls that it `meets`, and possibly of all later calls.

    `act` gets the call, the real function and its arguments, and replaces the call.
    """

    act: Callable[..., Any]
    meets: Callable[[Call], bool] = field(default=lambda _: True)
    later: Fault | None = None


def raising(error: Callable[[Call], BaseException]) -> Callable[..., Any]:
    """Raise instead of the call."""

    def act(call: Call, *_: Any) -> Any:
        raise error(call)

    return act


class Calls:
    """Counts the calls; call number `fail_at` of those that the fault meets fails, if set."""

    def __init__(self, root: Path, fault: Fault | None = None, fail_at: int = 0) -> None:
        self.root = str(root)
        self.log: list[Call] = []
        self.met = 0
        self.struck = False
        # Called before a call fails, and after each call that changed something.
        self.before: Callable[[Call], None] = lambda _: None
        self.after: Callable[[Call], None] = lambda _: None
        self._fault, self._fail_at = fault, fail_at
        self._lock = threading.Lock()
        self._own = threading.local()

    def do(self, call: Call, real: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Make the call, or inject the fault."""
        fault = self._next(call)
        if fault is None:
            result = real(*arguments, **keywords)
        else:
            with self.unseen():
                self.before(call)
            result = fault.act(call, real, arguments, keywords)
        if call.changes:
            with self.unseen():
                self.after(call)
        return result

    def _next(self, call: Call) -> Fault | None:
        with self._lock:
            self.log.append(call)
            fault = self._fault
            if fault is None:
                return None
            if self.struck:
                later = fault.later
                return later if later is not None and later.meets(call) else None
            self.met += fault.meets(call)
            self.struck = fault.meets(call) and self.met == self._fail_at
            return fault if self.struck else None

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Do not count the calls of this thread within the context."""
        self._own.unseen = True
        try:
            yield
        finally:
            self._own.unseen = False

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            folder = keywords.get("dir_fd", keywords.get("src_dir_fd"))
            path = self._below(arguments[0] if arguments else ".", folder)
            if path is None:
                return real(*arguments, **keywords)
            call = _describe(name, path, arguments)
            return self.do(call, real, *arguments, **keywords)

        return wrapped

    def open(
        self, path: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any
    ) -> Any:
        """A replacement of io.open, which Path.open calls."""
        if mode != "rb" or self._below(path, None) is None:
            return _io_open(path, mode, buffering, *rest, **named)
        call = Call("open", str(path), changes=False)
        raw = self.do(call, _CountedFile, path, self)
        return raw if buffering == 0 else io.BufferedReader(raw)

    def _below(self, place: Any, folder: int | None) -> str | None:
        """The path of a call, if below the root."""
        if getattr(self._own, "unseen", False):
            return None
        try:
            path = _path_of(place)
            if folder is not None:
                path = f"{_path_of(folder)}/{path}"
        except (OSError, TypeError):
            return None
        return path if path == self.root or path.startswith(self.root + "/") else None


class _CountedFile(io.FileIO):
    """A file whose reads are counted."""

    def __init__(self, path: str, calls: Calls) -> None:
        super().__init__(path)
        self._calls = calls
        self._call = Call("read", str(path), changes=False)

    def readall(self) -> Any:
        return self._calls.do(self._call, super().readall)

    def readinto(self, buffer: Any) -> Any:
        return self._calls.do(self._call, super().readinto, buffer)


class _Library:
    """The functions of the C library that `agent.disk.writeback` uses, counted."""

    def __init__(self, calls: Calls, real: Any) -> None:
        for name in FOREIGN_CHANGES:
            setattr(self, name, _told_by_errno(calls.wrap(name, getattr(real, name))))


def _told_by_errno(call: Callable[..., int]) -> Callable[..., int]:
    def wrapped(*arguments: Any) -> int:
        try:
            return call(*arguments)
        except OSError as error:
            ctypes.set_errno(error.errno or 0)
            return -1

    return wrapped


def _path_of(place: Any) -> str:
    if isinstance(place, int):
        return _readlink(f"/proc/self/fd/{place}")
    return os.fsdecode(place)


def _describe(name: str, path: str, arguments: tuple[Any, ...]) -> Call:
    if name == "open":
        flags = arguments[1]
        return Call(name, path, changes=bool(flags & _WRITES), creates=bool(flags & os.O_CREAT))
    if name in {"rename", "replace"}:
        return Call(name, path, changes=True, creates=True, target=os.fsdecode(arguments[1]))
    if name in {"write", "pwrite"}:
        return Call(name, path, changes=True, creates=True, size=len(arguments[1]))
    grows = {"link", "mkdir", "posix_fallocate", "fsync", "fdatasync", *FOREIGN_CHANGES}
    return Call(name, path, changes=name not in LOOKS, creates=name in grows)


_io_open = io.open


@contextmanager
def watched(calls: Calls) -> Iterator[Calls]:
    """Route the calls of this process through `calls`."""
    with ExitStack() as stack:
        for name in ("open", *CHANGES, *LOOKS):
            patch = mock.patch.object(os, name, calls.wrap(name, getattr(os, name)))
            stack.enter_context(patch)
        stack.enter_context(mock.patch.object(io, "open", calls.open))
        library = _Library(calls, writeback._LIBC)
        stack.enter_context(mock.patch.object(writeback, "_LIBC", library))
        yield calls


@contextmanager
def faults(
    root: Path,
    fail_at: int,
    error: Callable[[], BaseException] = Crash,
    *,
    once: bool = False,
) -> Iterator[Calls]:
    """Raise in call number `fail_at` of those that write, and unless `once` in all later ones."""

    def meets(call: Call) -> bool:
        return call.changes or call.name in {"open", "preadv"}

    act = raising(lambda _: error())
    fault = Fault(act, meets, None if once else Fault(act, meets))
    with watched(Calls(root, fault, fail_at)) as calls:
        yield calls
