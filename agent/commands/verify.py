"""Compares files on the disk with what a source lists, and with what was downloaded."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localmodel.agent.disk.modes import closed_folders, closed_problem, is_closed
from localmodel.agent.disk.repair import checksum_of
from localmodel.agent.disk.verify import Expected, Fault, Verifier
from localmodel.agent.structs.manifest import ManifestFile, model_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from localmodel.agent.disk.verify import Verdict
    from localmodel.agent.structs.manifest import Manifest
    from localmodel.agent.structs.remote import RemoteFile

_PROBLEMS = {
    Fault.MISSING: "is not there",
    Fault.NOT_A_FILE: "is {0.kind}, and a file at the source",
    Fault.SIZE: "has {0.size} bytes, and {size} at the source",
    Fault.CHECKSUM: "has another {algorithm} than at the source: it is damaged or changed",
    Fault.CONTENT: "has other content than was downloaded: it is damaged or changed",
}


@dataclass(frozen=True)
class Listed:
    """A file as its source and the manifest of its download have it. None: nothing says so."""

    expected: Expected
    # The version of the file at its source, now and when it was downloaded.
    version: str | None = None
    former_version: str | None = None


@dataclass(frozen=True)
class Compared:
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

    files: tuple[Compared, ...]

    @property
    def problems(self) -> tuple[Compared, ...]:
        """The files that are not as they should be."""
        return tuple(file for file in self.files if file.problem)

    @property
    def unproved(self) -> tuple[Compared, ...]:
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


def listed_in_manifest(manifest: Manifest) -> tuple[Listed, ...]:
    """What a manifest says of its files."""
    return tuple(
        Listed(Expected(file.path, file.size, checksum_of(file.checksum), file.sha256))
        for file in manifest.files
    )


def listed_at_source(
    listing: Sequence[RemoteFile], manifest: Manifest | None
) -> tuple[Listed, ...]:
    """What a source says of its files, and the manifest where the source says nothing."""
    pulled = {file.path: file for file in manifest.files} if manifest else {}
    return tuple(
        Listed(
            Expected(
                file.path,
                file.size,
                file.checksum,
                pulled[file.path].sha256 if file.path in pulled else None,
            ),
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

    def compare(self, directory: Path, files: Sequence[Listed], *, is_ours: bool) -> Comparison:
        """Each listed file, and each other one that is there. No link in `directory` is followed.

        What is ours was readable for everybody when it was published, and has to be so still.
        Raises CancelledError once stopped, and OSError.
        """
        names = {file.expected.path for file in files}
        extra = sorted(_files(directory) - names)
        verifier = Verifier(directory.resolve(), self._stopped, report=self._count)

        def check(file: Listed) -> Compared:
            return _compared(file, verifier.verify(file.expected), is_ours=is_ours)

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "verify") as threads:
            compared = list(threads.map(check, files))
        compared += [Compared(path, problem="is not a file of the model") for path in extra]
        if is_ours:
            closed = closed_folders(directory, names)
            compared += [
                Compared(path, problem=f"{problem}: chmod a+rx it")
                for path, problem in closed.items()
            ]
        return Comparison(tuple(compared))

    def _count(self, size: int) -> None:
        with self._lock:
            self.done += size


def _compared(file: Listed, verdict: Verdict, *, is_ours: bool) -> Compared:
    expected = file.expected
    problem = _problem(file, verdict)
    if verdict.sha256 is None:
        return Compared(expected.path, problem=problem)
    return Compared(
        expected.path,
        verdict.size,
        verdict.sha256,
        problem or (_mode_problem(verdict.mode) if is_ours else ""),
        proved=expected.checksum is not None or expected.sha256 is not None,
    )


def _problem(file: Listed, verdict: Verdict) -> str:
    expected = file.expected
    if verdict.fault is not None:
        algorithm = expected.checksum.algorithm if expected.checksum else ""
        return _PROBLEMS[verdict.fault].format(verdict, size=expected.size, algorithm=algorithm)
    if expected.checksum is None and len({file.version, file.former_version} - {None, ""}) > 1:
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
