"""Staging: an unfinished download on the disk, which continues where it stopped.

    files/...        the files; large ones are allocated with their full size at the start
    journal.json     the listed files and their versions
    progress-<n>     a byte for each block of each file, in the order of the journal

A block marked WRITTEN survives a kill of the agent, but not a loss of power: the mark counts only
until the next boot. A block marked DURABLE was synced before it was marked.
"""

from __future__ import annotations

import errno
import os
import threading
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from agent.disk.blocks import (
    BLOCK_BYTES,
    DURABLE,
    Blocks,
    block_count,
    done_bytes,
    without_written,
)
from agent.disk.files import (
    FILE_MODE,
    PRIVATE_MODE,
    blocks_of,
    delete_durably,
    delete_file,
    delete_tree,
    make_directory,
    walk,
    write_atomically,
)
from agent.disk.journal import Journal, JournalFile, read_journal
from agent.disk.writeback import begin_writeback, sync_file_system
from agent.structs.manifest import check_path, folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.structs.manifest import Grant
    from agent.structs.remote import RemoteFile

# Smaller files are not allocated before their bytes are written.
ALLOCATE_BYTES = 1 << 20
# With more files than this, one sync of the file system is faster than a sync of each file.
SYNC_EACH = 64

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a sync makes durable: runs of blocks, each as its first block and its last one + 1."""

    blocks: Blocks
    runs: Sequence[tuple[int, int]]


class StagedFile:
    """One file in staging. Several threads may write to it; one at a time may mark blocks.

    After a failed sync the kernel may count bytes as written that the disk does not have, and a
    second sync would succeed. So blocks that were not durable before count as missing then, and the
    next attempt fetches them again.
    """

    def __init__(
        self,
        files: Path,
        path: str,
        size: int | None,
        blocks: Blocks,
        progress: _Progress,
        *,
        goes_on: bool = True,
    ) -> None:
        # Whether a partial file can continue after a restart: the source can send the rest, and the
        # version shows that it belongs to the same content.
        self.goes_on = goes_on
        self._files = files
        self._path = path
        self._progress = progress
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        # Whether the file was empty when it was opened.
        self._fresh = False
        self.size = size
        self.blocks = blocks

    def open(self) -> None:
        """Open the file for writes and reads. Raises OSError, also if the disk is full."""
        with self._lock:
            if self._descriptor is not None:
                return
            self._fresh = not self.blocks.done
            flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if self._fresh else 0)
            descriptor = _open_below(self._files, self._path, flags)
            self._descriptor = descriptor
            # Pods of any user must be able to read it, whatever the umask.
            os.fchmod(descriptor, FILE_MODE)
            if self.size and self.size >= ALLOCATE_BYTES:
                os.posix_fallocate(descriptor, 0, self.size)

    def write(self, piece: bytes, offset: int) -> None:
        """Write bytes at an offset."""
        written = os.pwrite(self._fd, piece, offset)
        while written < len(piece):
            # One call may write only a part.
            written += os.pwrite(self._fd, piece[written:], offset + written)

    def mark(self, start: int, end: int) -> None:
        """Mark bytes as written. `start` follows marked bytes, or is the start of a block."""
        blocks = self.blocks.mark(start, end)
        if blocks is not None and self.goes_on:
            first, last = blocks
            self._progress.write(first, self.blocks.marks[first:last])

    def flush(self, start: int, end: int) -> None:
        """Start the write-back of written bytes, so that the last sync has little left to do."""
        try:
            begin_writeback(self._fd, start, end, self._files / self._path)
        except OSError:
            # The file was complete, and another thread has closed it: its descriptor is invalid,
            # or belongs to another file by now.
            if self._descriptor is not None:
                raise

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read written bytes. Returns their number."""
        return os.preadv(self._fd, [buffer], offset)

    def differs(self, piece: bytes, offset: int) -> bool:
        """Whether the bytes on the disk, marked or not, are not these."""
        return os.pread(self._fd, len(piece), offset) != piece

    def begin_checkpoint(self) -> Checkpoint | None:
        """The blocks for the next `sync` to make durable; None if there are none."""
        runs = self.blocks.written() if self.goes_on and self._descriptor is not None else None
        return Checkpoint(self.blocks, runs) if runs else None

    def sync(self) -> bool:
        """Make durable what is written. False if the file was closed meanwhile."""
        with self._lock:
            if self._descriptor is None:
                return False
            os.fdatasync(self._descriptor)
            return True

    def end_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Mark the blocks as DURABLE, after the sync, unless the file has started over."""
        if self.blocks is checkpoint.blocks:
            self.blocks.settle(checkpoint.runs)
            for first, last in checkpoint.runs:
                self._progress.write(first, self.blocks.marks[first:last])

    def forget_unsynced(self) -> None:
        """Have the next attempt fetch all blocks that are not DURABLE: a sync has failed."""
        self._progress.write(0, without_written(self.blocks.marks))

    def seal(self, size: int, *, sync: bool) -> None:
        """Close the complete file, whose size this is. With `sync`, it is durable afterwards."""
        if not self._fresh:
            # An earlier version of the file may have been longer.
            os.ftruncate(self._fd, size)
        if sync:
            try:
                os.fsync(self._fd)
            except OSError:
                self.forget_unsynced()
                raise
            self._progress.write(0, bytes([DURABLE]) * len(self.blocks.marks))
        self.close()

    def mark_complete(self) -> None:
        """Mark all blocks as DURABLE: the caller has put the complete file in place."""
        self._progress.write(0, bytes([DURABLE]) * len(self.blocks.marks))

    def restart(self) -> None:
        """Mark all blocks as missing."""
        self._fresh = False
        self.blocks = Blocks(self.size or 0)
        self._progress.write(0, self.blocks.marks)

    def drop(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Mark these ranges as missing. Their bytes stay readable until others are written.

        A range starts with a block, and ends with one or with the file.
        """
        marks = bytearray(self.blocks.marks)
        for start, end in ranges:
            first, last = start // BLOCK_BYTES, block_count(end)
            marks[first:last] = bytes(last - first)
        # A file that is opened again must not be emptied.
        self._fresh = False
        self.blocks = Blocks(self.size or 0, marks)
        self._progress.write(0, marks)

    def close(self) -> None:
        """Close the file; it may be opened again."""
        with self._lock:
            # Reset before the close: a thread whose call fails can see that the file was closed.
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)

    @property
    def _fd(self) -> int:
        descriptor = self._descriptor
        if descriptor is None:
            raise OSError(errno.EBADF, "the file was closed", str(self._files / self._path))
        return descriptor


class _Progress:
    """The marks of one file, in the progress file and in `marks` of the whole download."""

    def __init__(self, descriptor: int, marks: bytearray, offset: int) -> None:
        self._descriptor = descriptor
        self._marks = marks
        self._offset = offset

    def write(self, first: int, marks: bytes | bytearray) -> None:
        """Write marks, beginning with the one of this block."""
        start = self._offset + first
        self._marks[start : start + len(marks)] = marks
        os.pwrite(self._descriptor, bytes(marks), start)


class _Staged(Mapping[str, StagedFile]):
    """The files of a download, by path. Used by one thread at a time.

    `marks` has the marks of all files, one after the other. A StagedFile is made when a file is
    accessed, and dropped by `forget`: a model may have very many files.
    """

    def __init__(
        self, folder: Path, files: Sequence[RemoteFile], marks: bytearray, descriptor: int
    ) -> None:
        self._folder = folder
        self._files = files
        self._marks = marks
        self._descriptor = descriptor
        self._at = {file.path: number for number, file in enumerate(files)}
        counts = (block_count(file.size or 0) for file in files)
        self._offsets = array("Q", accumulate(counts, initial=0))
        self._made: dict[str, StagedFile] = {}

    def __getitem__(self, path: str) -> StagedFile:
        made = self._made.get(path)
        if made is None:
            number = self._at[path]
            progress = _Progress(self._descriptor, self._marks, self._offsets[number])
            file = self._files[number]
            made = StagedFile(
                self._folder,
                path,
                file.size,
                Blocks(file.size or 0, self._marks_of(number)),
                progress,
                goes_on=file.ranges and file.version is not None,
            )
            self._made[path] = made
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._files)

    def done(self, path: str) -> int:
        """Bytes of a file on the disk."""
        made = self._made.get(path)
        if made is not None:
            return made.blocks.done
        number = self._at[path]
        return done_bytes(self._files[number].size or 0, self._marks_of(number))

    def forget(self, path: str) -> None:
        """Close a file, and keep only its marks in memory."""
        made = self._made.pop(path, None)
        if made is not None:
            made.close()

    def forget_unsynced(self) -> None:
        """See StagedFile.forget_unsynced."""
        os.pwrite(self._descriptor, without_written(self._marks), 0)

    def close(self) -> None:
        """Close all files."""
        for made in self._made.values():
            made.close()

    def _marks_of(self, number: int) -> bytearray:
        return self._marks[self._offsets[number] : self._offsets[number + 1]]


class Staging:
    """The staging folder of one key."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = directory / "files"
        self._progress: int | None = None
        self.staged = self._nothing()

    @property
    def path_of_files(self) -> Path:
        """The folder of the files."""
        return self._files

    def version(self, uri: str) -> str | None:
        """The version of the partial download; None if the source has no versions of models."""
        journal = self._read_journal(uri)
        return journal.version if journal else None

    def is_anothers(self, uri: str, origin: str, by: Grant) -> bool:
        """Whether the partial download is from this server, by other credentials than `by`."""
        journal = self._read_journal(uri)
        return journal is not None and journal.is_of(origin) and journal.by != by

    def begin(
        self,
        uri: str,
        version: str | None,
        files: Sequence[RemoteFile],
        origin: str | None = None,
        by: Grant | None = None,
    ) -> tuple[str, ...]:
        """Prepare staging for these files, and keep what it has of them from the same server.

        Returns the paths of files that were there in another version, and start over.
        """
        self.close()
        make_directory(self._directory)
        make_directory(self._files)
        # What is in files/ is complete no longer: see the store.
        delete_durably(self._directory / "staged.json")
        former = self._read_journal(uri)
        goes_on = former is not None and former.is_of(origin)
        kept, changed = self._kept(former if goes_on else None, files)
        self._drop_others({file.path for file in files})
        number = 1 + int(former.progress.rpartition("-")[2]) if former else 1
        journal = Journal(
            uri=uri,
            version=version,
            origin=origin,
            by=by,
            boot=_boot_id(),
            progress=f"progress-{number}",
            files=tuple(JournalFile.of(file) for file in files),
        )
        marks = bytearray()
        for file in files:
            check_path(file.path)
            marks += kept.get(file.path) or bytes(block_count(file.size or 0))
        descriptor = self._write_progress(journal.progress, marks)
        write_atomically(self._directory / "journal.json", journal.encode())
        if former is not None:
            delete_file(self._directory / former.progress)
        self.staged = _Staged(self._files, files, marks, descriptor)
        return changed

    def sync(self) -> None:
        """Make all files durable that were sealed without a sync."""
        if len(self.staged) > SYNC_EACH:
            try:
                sync_file_system(self._files)
            except OSError:
                self.staged.forget_unsynced()
                raise

    def done(self) -> int:
        """Bytes of all files on the disk."""
        return sum(map(self.staged.done, self.staged))

    def allocated(self) -> int:
        """Bytes of the disk that are allocated to files and not written yet."""
        total = 0
        for path in self.staged:
            with suppress(FileNotFoundError):
                total += max(0, blocks_of(self.path(path).stat()) - self.staged.done(path))
        return total

    def path(self, path: str) -> Path:
        """The path of a staged file."""
        return self._files / check_path(path)

    def create(self, path: str) -> int:
        """Create a file that is not listed, such as one from an archive. Returns its descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = _open_below(self._files, check_path(path), flags)
        os.fchmod(descriptor, FILE_MODE)
        return descriptor

    def drop(self, path: str) -> None:
        """Delete a staged file that is no part of the model, such as an archive."""
        delete_file(self.path(path))

    def close(self) -> None:
        """Close all files; the download can be continued later."""
        self.staged.close()
        self.staged = self._nothing()
        if self._progress is not None:
            os.close(self._progress)
            self._progress = None

    def _nothing(self) -> _Staged:
        return _Staged(self._files, (), bytearray(), -1)

    def _kept(
        self, former: Journal | None, files: Sequence[RemoteFile]
    ) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """The marks to keep, by path; and the paths of files that were there in another version."""
        if former is None:
            delete_tree(self._files)
            make_directory(self._files)
            return {}, ()
        here = {entry.path: (entry, marks) for entry, marks in self._read_progress(former)}
        same_boot = former.boot == _boot_id()
        kept: dict[str, bytes] = {}
        changed: list[str] = []
        for file in files:
            entry, marks = here.get(file.path, (None, b""))
            valid = bytes(mark if same_boot or mark == DURABLE else 0 for mark in marks)
            if entry is None or not any(valid):
                continue
            whole = all(valid) and not file.recheck
            pinned = file.version and (file.ranges or whole)
            if entry.continues_as(JournalFile.of(file)) and pinned and self._has(file):
                kept[file.path] = valid
            else:
                changed.append(file.path)
                delete_file(self.path(file.path))
        return kept, tuple(changed)

    def _has(self, file: RemoteFile) -> bool:
        path = self.path(file.path)
        return path.is_file() and (
            path.stat().st_size == file.size or (file.size or 0) < ALLOCATE_BYTES
        )

    def _drop_others(self, paths: set[str]) -> None:
        """Delete the files and folders that are not in this listing."""
        kept = folders(paths)
        for root, names, found in walk(self._files, topdown=False):
            for name in found:
                path = Path(root, name)
                if path.relative_to(self._files).as_posix() not in paths:
                    path.unlink()
            for name in names:
                path = Path(root, name)
                if path.relative_to(self._files).as_posix() not in kept:
                    path.unlink() if path.is_symlink() else path.rmdir()

    def _read_journal(self, uri: str) -> Journal | None:
        journal = read_journal(self._directory)
        return journal if journal is not None and journal.uri == uri else None

    def _read_progress(self, journal: Journal) -> Iterator[tuple[JournalFile, bytes]]:
        try:
            progress = (self._directory / journal.progress).read_bytes()
        except FileNotFoundError:
            progress = b""
        offset = 0
        for entry in journal.files:
            count = block_count(entry.size or 0)
            marks = progress[offset : offset + count]
            yield entry, marks if len(marks) == count else bytes(count)
            offset += count

    def _write_progress(self, name: str, marks: bytearray) -> int:
        """Write the marks to a new progress file. Returns its descriptor, which stays open."""
        descriptor = os.open(
            self._directory / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE
        )
        self._progress = descriptor
        os.pwrite(descriptor, marks, 0)
        os.fsync(descriptor)
        return descriptor


def _open_below(files: Path, path: str, flags: int) -> int:
    """Open a file, and make its folders where they are missing. Returns its descriptor."""
    # A text: a model may have very many files.
    target = f"{files}/{path}"
    try:
        return os.open(target, flags, FILE_MODE)
    except FileNotFoundError:
        for parent in reversed(PurePath(path).parents[:-1]):
            make_directory(files / parent)
        return os.open(target, flags, FILE_MODE)


def announced_size(directory: Path) -> int | None:
    """The size of the model of an unfinished download; None if its source did not report it."""
    journal = read_journal(directory)
    if journal is None:
        return None
    sizes = [file.size for file in journal.files]
    return None if None in sizes else sum(size or 0 for size in sizes)


def forget_progress(directory: Path) -> None:
    """Delete the journal and the marks of a download: it will not use what is in files/."""
    delete_file(directory / "journal.json")
    for path in directory.glob("progress-*"):
        delete_file(path)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        # Marks of WRITTEN blocks then never count after a restart.
        return f"unknown-{os.getpid()}"
