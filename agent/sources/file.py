"""file:// and pvc://: files that are on the node already, below directories that flags name.

A URI is a tenant's input: without the flags, file:///var/run/secrets/... would publish the agent's
own token. Links are followed only to files of the same model.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from agent.sources.answers import changed
from agent.sources.bodies import bounded
from agent.sources.streams import open_file
from agent.structs.failures import DownloadError, FailureKind, public_uri, scheme
from agent.structs.remote import RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.structs.credentials import Credentials


@dataclass
class _LocalModel:
    """The files of a directory, as they were listed."""

    files: tuple[RemoteFile, ...]
    origin: str = "file://localhost"
    version: str | None = None

    def read(self, file: RemoteFile, start: int, end: int | None) -> _LocalBody:
        """A range of a file, if it is still the one that was listed."""
        opened: Any = None
        try:
            opened = _opened(file.location)
            body = _LocalBody(opened, file, file.size if end is None else end)
            real = Path(f"/proc/self/fd/{opened.fileno()}").readlink()
            # A folder of the path may have become a link since it was listed.
            if real != Path(file.location):
                raise changed(file.location)
            body.check()
            opened.seek(start)
        except (OSError, DownloadError) as error:
            if opened is not None:
                opened.close()
            if isinstance(error, DownloadError):
                raise
            raise _failure(error, file.location) from None
        return body


def _opened(location: str) -> Any:
    """An open file. Raises OSError, and DownloadError where it is no file any more."""
    # Whoever writes to a claim may have put a FIFO there: a blocking open would never return.
    descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise changed(location)
        return open_file(f"/proc/self/fd/{descriptor}", "rb", compression="disable")
    finally:
        os.close(descriptor)


class _LocalBody:
    """A range of a file that must not change until its last byte is read."""

    def __init__(self, opened: Any, file: RemoteFile, end: int | None) -> None:
        self._opened = opened
        self._file = file
        self._end = end
        self._aborted = False

    def read(self, size: int) -> bytes:
        if self._aborted:
            raise DownloadError(
                FailureKind.UNREACHABLE, f"{self._file.location}: reading was broken off"
            )
        try:
            at = self._opened.tell()
            left = size if self._end is None else min(size, self._end - at)
            piece: bytes = self._opened.read(left) if left > 0 else b""
            if not piece or at + len(piece) == self._end:
                self.check()
        except OSError as error:
            raise _failure(error, self._file.location) from None
        if left > 0 and not piece and self._end is not None:
            raise changed(self._file.location)
        return piece

    def check(self) -> None:
        """Raises DownloadError (Changed) if the open file is not the listed one."""
        if _version(os.fstat(self._opened.fileno())) != self._file.version:
            raise changed(self._file.location)

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        self._opened.close()


class FileSource:
    """Files below directories of the node, and below the directories of mounted claims."""

    def __init__(
        self, directories: Sequence[Path], claims: Mapping[str, Path] | None = None
    ) -> None:
        self._directories = tuple(Path(os.path.realpath(path)) for path in directories)
        self._claims = {name: Path(os.path.realpath(path)) for name, path in (claims or {}).items()}

    def resolve(self, uri: str, _credentials: Credentials, _version: str | None) -> _LocalModel:
        """The one file, or all files below the folder."""
        try:
            root = self._claimed(uri) if scheme(uri) == "pvc" else self._allowed(uri)
            if root.is_dir():
                files = tuple(bounded(_walk(root, uri), public_uri(uri)))
            else:
                files = (_file(root.name, root, root.parent, uri),)
        except OSError as error:
            raise _failure(error, public_uri(uri)) from None
        except ValueError:
            # A zero byte, or a URI that cannot be split.
            raise DownloadError(
                FailureKind.UNSUPPORTED, f"{public_uri(uri)} is no path: check sourceModelUri"
            ) from None
        if not files:
            raise DownloadError(
                FailureKind.NOT_FOUND, f"{public_uri(uri)} is empty: put the model's files there"
            )
        return _LocalModel(files)

    def _allowed(self, uri: str) -> Path:
        """The real path of a file:// URI. Raises DownloadError (Denied) unless it may be read."""
        parts = urlsplit(uri)
        real = Path(os.path.realpath(unquote(parts.path)))
        if not parts.netloc and any(real.is_relative_to(named) for named in self._directories):
            return real.resolve(strict=True)
        named = ", ".join(str(path) for path in self._directories) or "none"
        raise DownloadError(
            FailureKind.DENIED,
            f"{public_uri(uri)} is not below a directory that this agent may read ({named}): mount "
            "the model's directory into the agent and name it with --allow-file-dir",
        )

    def _claimed(self, uri: str) -> Path:
        """The real path of a pvc:// URI. Raises DownloadError (Denied) unless it may be read."""
        parts = urlsplit(uri)
        top = self._claims.get(parts.netloc)
        if top is None:
            raise DownloadError(
                FailureKind.DENIED,
                f"{public_uri(uri)}: this agent does not have the claim {parts.netloc!r}: mount "
                "the claim into the agent and name its directory with --allow-pvc "
                "claim=directory",
            )
        real = Path(os.path.realpath(top / unquote(parts.path).lstrip("/")))
        if not real.is_relative_to(top):
            raise DownloadError(
                FailureKind.DENIED, f"{public_uri(uri)} leaves its claim: check sourceModelUri"
            )
        return real.resolve(strict=True)


def _walk(root: Path, uri: str) -> Iterator[RemoteFile]:
    def stop(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=stop):  # noqa: TID251
        folders.sort()
        for name in sorted(names + [f for f in folders if Path(folder, f).is_symlink()]):
            path = Path(folder, name)
            yield _file(path.relative_to(root).as_posix(), path, root, uri)


def _file(name: str, path: Path, root: Path, uri: str) -> RemoteFile:
    """One file, at its real path. Raises DownloadError for a file that must not be copied."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(root):
        raise DownloadError(
            FailureKind.DENIED,
            f"{path} is a link that leaves {public_uri(uri)}: replace it by the file itself",
        )
    found = real.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{path} is neither a file nor a link to a file: remove it from the model",
        )
    return RemoteFile(name, str(real), found.st_size, _version(found))


def _version(found: os.stat_result) -> str:
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def _failure(error: OSError, place: str) -> DownloadError:
    """The one place where errors of the file system become failures."""
    where = str(error.filename or place)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DownloadError(
            FailureKind.NOT_FOUND,
            f"{where} is not there: check sourceModelUri, and that the directory is mounted into "
            "the agent",
        )
    if isinstance(error, PermissionError):
        return DownloadError(
            FailureKind.DENIED,
            f"{where} may not be read by the agent's user: let everybody read it (chmod -R a+rX), "
            "or give the agent the capability DAC_READ_SEARCH",
        )
    return DownloadError(
        FailureKind.INTERNAL, f"{where} cannot be read: {error.strerror}; check the node's disk"
    )
