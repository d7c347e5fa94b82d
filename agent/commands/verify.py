"""Compares files on the disk with the listing of a source, and with the manifest of a copy."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.disk.files import paths_below
from agent.disk.modes import closed_folders, closed_problem, is_closed
from agent.disk.repair import checksum_of
from agent.disk.verify import Expected, Fault, Verifier
from agent.structs.manifest import ManifestFile, model_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.disk.verify import Verdict
    from agent.structs.manifest import Manifest
    from agent.structs.remote import RemoteFile

_PROBLEMS = {
    Fault.MISSING: "is not there",
    Fault.NOT_A_FILE: "is {0.kind}, and a file at the source",
    Fault.SIZE: "has {0.size} bytes, and {size} at the source",
    Fault.CHECKSUM: "has another {algorithm} than at the source: it is damaged or changed",
    Fault.CONTENT: "has other content than was downloaded: it is damaged or changed",
}


@dataclass(frozen=True)
class Listed:
    """The expected state of a file, from the source's listing and the manifest.

    A version is None where neither the source nor the manifest has it.
    """

    expected: Expected
    # The version of the file at its source, now and when it was downloaded.
    version: str | None = None
    former_version: str | None = None


@dataclass(frozen=True)
class Compared:
    """The result for one file; `problem` is empty if the file is as expected."""

    path: str
    size: int = 0
    sha256: str | None = None
    problem: str = ""
    # Whether a checksum or digest was compared, and not only the size.
    proved: bool = False


@dataclass(frozen=True)
class Comparison:
    """The results for all files of a directory."""

    files: tuple[Compared, ...]

    @property
    def problems(self) -> tuple[Compared, ...]:
        """The files that differ from what is expected."""
        return tuple(file for file in self.files if file.problem)

    @property
    def unproved(self) -> tuple[Compared, ...]:
        """The files of which only the size could be compared."""
        return tuple(file for file in self.files if not file.problem and not file.proved)

    @property
    def size(self) -> int:
        """The bytes of all files that were read."""
        return sum(file.size for file in self.files)

    @property
    def hash(self) -> str | None:
        """The model's hash, as in LocalModelCache.spec.hash; None if a file has a problem."""
        if self.problems:
            return None
        return model_hash(
            ManifestFile(path=file.path, size=file.size, sha256=file.sha256) for file in self.files
        )


def listed_in_manifest(manifest: Manifest) -> tuple[Listed, ...]:
    """The expected files of a manifest."""
    return tuple(
        Listed(Expected(file.path, file.size, checksum_of(file.checksum), file.sha256))
        for file in manifest.files
    )


def listed_at_source(
    listing: Sequence[RemoteFile], manifest: Manifest | None
) -> tuple[Listed, ...]:
    """The expected files of a source's listing, with digests and versions of the manifest."""
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
    """Compares the files of a directory. `done` is how many bytes were read so far."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.done = 0
        self._stopped = stopped
        self._lock = threading.Lock()

    def compare(
        self, directory: Path, files: Sequence[Listed], *, is_ours: bool, has_others: bool = False
    ) -> Comparison:
        """The results for each listed file and each other file. No symbolic link is followed.

        With `has_others`, the directory may have other files, as an adopted one does.

        `is_ours` is whether the agent published the directory, so that all users must be able to
        read its files. Raises CancelledError once stopped, and OSError.
        """
        names = {file.expected.path for file in files}
        extra = [] if has_others else sorted(set(paths_below(directory)) - names)
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
