"""hdfs:// by the `hdfs` program, which finds namenodes and logins in Hadoop's own configuration.

The program has no ranges, and its times of change have the precision of a minute.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.sources.answers import changed
from agent.sources.bodies import bounded
from agent.sources.streams import hdfs
from agent.structs.failures import DownloadError, FailureKind, public_uri
from agent.structs.remote import RangeIgnoredError, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.structs.credentials import Credentials

PROGRAM = "hdfs"
PROGRAM_SECONDS = 300.0

_LINE = re.compile(
    r"([-d])[-rwxsStT]{9}\S?\s+\S+\s+\S+\s+\S+\s+(\d+)\s+(\d{4}-\d\d-\d\d \d\d:\d\d) (.+)"
)
# Characters that the program takes for patterns.
_PATTERNS = frozenset("*?[]{}\\")


@dataclass
class _ProgramModel:
    """The files that the program listed."""

    files: tuple[RemoteFile, ...]
    origin: str
    version: str | None = None

    def read(self, file: RemoteFile, start: int, end: int | None) -> _ProgramBody:
        """The whole file, in one stream."""
        if start or end not in {None, file.size}:
            raise RangeIgnoredError(file.location)
        try:
            return _ProgramBody(hdfs.CliRawInputBase(file.location), file)
        except OSError:
            raise _no_program(file.location) from None


class _ProgramBody:
    """The content of one file, as the program prints it."""

    def __init__(self, opened: hdfs.CliRawInputBase, file: RemoteFile) -> None:
        self._opened = opened
        self._file = file
        self._left = file.size or 0

    def read(self, size: int) -> bytes:
        try:
            piece = self._opened.read(size)
        except (OSError, ValueError):
            raise self._broken() from None
        self._left -= len(piece)
        if self._left < 0:
            raise changed(self._file.location)
        if not self._left or not piece:
            self._check()
        if self._left and not piece:
            raise self._broken()
        return piece

    def _check(self) -> None:
        if [one.version for one in _listed(self._file.location)] != [self._file.version]:
            raise changed(self._file.location)

    def _broken(self) -> DownloadError:
        return DownloadError(
            FailureKind.UNREACHABLE,
            f"{self._file.location}: `{PROGRAM} dfs -cat` ended before the file did: see what it "
            "says in the agent's log, it is tried again by itself",
        )

    def abort(self) -> None:
        running = self._opened._sub  # noqa: SLF001  # close() would wait for the reader
        if running is not None:
            running.terminate()

    def close(self) -> None:
        self._opened.close()


def program_model(uri: str, credentials: Credentials) -> _ProgramModel:
    """The one file, or all files below the folder."""
    if credentials.items and not credentials.own:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{public_uri(uri)} is read with the Hadoop configuration of the agent, which takes no "
            "credentials of a cache: use webhdfs://namenode:9870/path, or name HDFS_NAMENODE in "
            "the credentials",
        )
    parts = urlsplit(uri)
    # The form in which the program prints paths: with the namenode, if the URI names one.
    target = (f"hdfs://{parts.netloc}{parts.path}" if parts.netloc else parts.path).rstrip("/")
    if not parts.path.strip("/") or _PATTERNS & set(target):
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{public_uri(uri)} names no path that the program `{PROGRAM}` takes: write "
            "hdfs://namenode:8020/path, without any of * ? [ ] { } and \\",
        )
    found = tuple(bounded(_listed(target), target))
    if not found:
        raise DownloadError(
            FailureKind.NOT_FOUND, f"{public_uri(uri)} is empty: put the model's files there"
        )
    return _ProgramModel(found, f"hdfs://{parts.netloc or 'default'}")


def _listed(target: str) -> Iterator[RemoteFile]:
    folder = target.rpartition("/")[0]
    for line in _run("-ls", "-R", target).splitlines():
        fields = _LINE.fullmatch(line)
        if fields is None:
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{target}: `{PROGRAM} dfs -ls` printed a line that this agent does not know: use "
                "webhdfs://namenode:9870/path",
            )
        kind, size, minute, location = fields.groups()
        if kind == "d":
            continue
        path = location.removeprefix(f"{folder}/" if location == target else f"{target}/")
        if path == location or _PATTERNS & set(path):
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{location} has a name that `{PROGRAM} dfs -cat` takes for a pattern: use "
                "webhdfs://namenode:9870/path",
            )
        yield RemoteFile(path, location, int(size), f"{minute}-{size}", ranges=False)


def _run(*arguments: str) -> str:
    program = shutil.which(PROGRAM)
    target = arguments[-1]
    if program is None:
        raise _no_program(target)
    try:
        ran = subprocess.run(  # noqa: S603  # no shell, and the path begins with / or hdfs://
            [program, "dfs", *arguments],
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=PROGRAM_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise DownloadError(
            FailureKind.UNREACHABLE,
            f"{target}: `{PROGRAM} dfs -ls` does not end: check Hadoop's configuration "
            "(HADOOP_CONF_DIR) and the network, it is tried again by itself",
        ) from None
    except OSError:
        raise _no_program(target) from None
    if ran.returncode:
        raise _failure(ran.stderr, target)
    return ran.stdout


def _failure(said: str, target: str) -> DownloadError:
    if "No such file or directory" in said:
        return DownloadError(
            FailureKind.NOT_FOUND,
            f"{target} is not there: check sourceModelUri, and that the model is there",
        )
    if any(word in said for word in ("GSS", "Kerberos", "Client cannot authenticate")):
        return DownloadError(
            FailureKind.DENIED,
            f"{target} wants a Kerberos login: run kinit for the agent's user, or use webhdfs:// "
            "with HDFS_DELEGATION_TOKEN",
        )
    if "Permission denied" in said or "AccessControlException" in said:
        return DownloadError(
            FailureKind.DENIED,
            f"{target} may not be read: give the agent's Hadoop user (HADOOP_USER_NAME) the right "
            "to",
        )
    return DownloadError(
        FailureKind.UNREACHABLE,
        f"{target} cannot be listed: run `{PROGRAM} dfs -ls -R {target}` as the agent to see why; "
        "check Hadoop's configuration (HADOOP_CONF_DIR), it is tried again by itself",
    )


def _no_program(where: str) -> DownloadError:
    return DownloadError(
        FailureKind.UNSUPPORTED,
        f"{where} needs the program `{PROGRAM}`, which is not on the agent's PATH: use "
        "webhdfs://namenode:9870/path, set HDFS_NAMENODE, or install Hadoop's client in the "
        "agent's image",
    )
