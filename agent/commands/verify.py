"""Compares files on the disk with what a source lists, and with what was downloaded."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localmodel.agent.disk.files import read_whole
from localmodel.agent.disk.modes import closed_folders, closed_problem, is_closed
from localmodel.agent.disk.repair import checksum_of
from localmodel.agent.engine.digests import Digests
from localmodel.agent.structs.manifest import ManifestFile, model_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from localmodel.agent.structs.manifest import Manifest
    from localmodel.agent.structs.remote import Checksum, RemoteFile


class StoppedError(Exception):
    """The comparison was broken off."""


@dataclass(frozen=True)
class Expected:
    """What a file should be. None: nothing says so."""

    path: str
    size: int | None
    checksum: Checksum | None = None
    sha256: str | None = None
    # Of the source, now and when the file was downloaded.
    version: str | None = None
    former_version: str | None = None


@dataclass(frozen=True)
class Checked:
    """One file; `problem` is empty if it is as it should be."""

    path: str
    size: int = 0
    sha256: str | None = None
    problem: str = ""
    # Whether a checksum says so, and not only the size.
    proved: bool = False


@dataclass(frozen=True)
class Comparison:
    """All files of a directory."""

    files: tuple[Checked, ...]

    @property
    def problems(self) -> tuple[Checked, ...]:
        """The files that are not as they should be."""
        return tuple(file for file in self.files if file.problem)

    @property
    def unproved(self) -> tuple[Checked, ...]:
        """The files of which only the size could be compared."""
        return tuple(file for file in self.files if not file.problem and not file.proved)

    @property
    def size(self) -> int:
        """Bytes that were read."""
        return sum(file.size for file in self.files)

    @property
    def hash(self) -> str | None:
        """The model's hash, as LocalModelCache.spec.hash has it; None if a file is wrong."""
        if self.problems:
            return None
        return model_hash(
            ManifestFile(path=file.path, size=file.size, sha256=file.sha256) for file in self.files
        )


def expected_of_manifest(manifest: Manifest) -> tuple[Expected, ...]:
    """What a manifest says of its files."""
    return tuple(
        Expected(file.path, file.size, checksum_of(file.checksum), file.sha256)
        for file in manifest.files
    )


def expected_of_source(
    listing: Sequence[RemoteFile], manifest: Manifest | None
) -> tuple[Expected, ...]:
    """What a source says of its files, and the manifest where the source says nothing."""
    pulled = {file.path: file for file in manifest.files} if manifest else {}
    return tuple(
        Expected(
            file.path,
            file.size,
            file.checksum,
            pulled[file.path].sha256 if file.path in pulled else None,
            file.version,
            pulled[file.path].version if file.path in pulled else None,
        )
        for file in listing
    )


class Comparer:
    """Reads files. `done` is how many bytes it has read, for whoever wants to know."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.done = 0
        self._stopped = stopped
        self._lock = threading.Lock()

    def compare(
        self, directory: Path, expected: Sequence[Expected], *, is_ours: bool
    ) -> Comparison:
        """Each expected file, and each other one that is there. Raises StoppedError and OSError.

        What is ours was readable for everybody when it was published, and has to be so still.
        """
        names = {file.path for file in expected}
        extra = sorted(_files(directory) - names)

        def check(file: Expected) -> Checked:
            return self._check(directory / file.path, file, is_ours=is_ours)

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "verify") as threads:
            checked = list(threads.map(check, expected))
        checked += [Checked(path, problem="is not a file of the model") for path in extra]
        if is_ours:
            closed = closed_folders(directory, names)
            checked += [
                Checked(path, problem=f"{problem}: chmod a+rx it")
                for path, problem in closed.items()
            ]
        return Comparison(tuple(checked))

    def _check(self, path: Path, file: Expected, *, is_ours: bool) -> Checked:
        if not path.is_file():
            return Checked(file.path, problem="is not there")
        found = path.stat()
        size = found.st_size
        if file.size is not None and size != file.size:
            return Checked(file.path, problem=f"has {size} bytes, and {file.size} at the source")
        digests = Digests(file.checksum, size)
        self._read(path, digests)
        return Checked(
            file.path,
            size,
            digests.sha256,
            _problem(file, digests) or (_mode_problem(found.st_mode) if is_ours else ""),
            proved=file.checksum is not None or file.sha256 is not None,
        )

    def _read(self, path: Path, digests: Digests) -> None:
        def take(piece: memoryview) -> None:
            # A copy: the checksums of awscrt take bytes only.
            digests.update(bytes(piece))
            with self._lock:
                self.done += len(piece)

        try:
            with path.open("rb", buffering=0) as opened:
                read_whole(opened, take, self._stopped)
        except InterruptedError:
            raise StoppedError from None


def _problem(file: Expected, digests: Digests) -> str:
    if file.checksum is not None:
        if digests.agree:
            return ""
        return f"has another {file.checksum.algorithm} than at the source: it is damaged or changed"
    if file.sha256 is not None and file.sha256 != digests.sha256:
        return "has other content than was downloaded: it is damaged or changed"
    if file.former_version and file.version and file.former_version != file.version:
        return "has changed at the source since it was downloaded"
    return ""


def _mode_problem(mode: int) -> str:
    return f"{closed_problem(mode)}: chmod a+r it" if is_closed(mode) else ""


def _files(directory: Path) -> set[str]:
    return {
        Path(folder, name).relative_to(directory).as_posix()
        for folder, _, names in os.walk(directory)
        for name in names
    }
