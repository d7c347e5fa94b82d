"""webhdfs://, swebhdfs:// and hdfs://: files of a Hadoop file system.

WebHDFS is read by HTTP, in ranges. hdfs:// is read the same way where HDFS_NAMENODE is set, as
KServe does, and otherwise by the `hdfs` program, in whole streams. HDFS's own checksums
(GETFILECHECKSUM) depend on the sizes of its blocks and chunks, so they do not prove a download.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from agent.sources.answers import Get, answered, changed
from agent.sources.bodies import bounded
from agent.sources.checked_body import CheckedBody
from agent.sources.hdfs_program import program_model
from agent.sources.transport import Transport, origin_of
from agent.structs.failures import DownloadError, FailureKind, public_uri, scheme
from agent.structs.remote import RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from agent.sources.transport import Transports
    from agent.structs.credentials import Credentials
    from agent.structs.remote import Body, RemoteModel

_PORTS = {"webhdfs": 9870, "swebhdfs": 9871}
# Settings of KServe that are refused: without them, a request would be another than meant.
_UNSUPPORTED = ("KERBEROS_PRINCIPAL", "KERBEROS_KEYTAB", "TLS_CERT", "TLS_CA", "HEADERS")
_WAITING = {"StandbyException", "SafeModeException", "RetriableException"}
_NO_TOKEN = {"InvalidToken", "SecretManager$InvalidToken", "ExpiredTokenException"}
_PASSING = {FailureKind.UNREACHABLE, FailureKind.THROTTLED}
# Failures of one namenode after which the next one is asked.
_ELSEWHERE = {FailureKind.UNREACHABLE, FailureKind.DENIED, FailureKind.THROTTLED}
_T = TypeVar("_T")


class _Status(BaseModel):
    """The status of a file or a folder, as a namenode reports it."""

    model_config = ConfigDict(alias_generator=to_camel)

    path_suffix: str = ""
    type: str
    length: int = Field(default=0, ge=0)
    modification_time: int = 0
    file_id: int = 0

    @property
    def version(self) -> str | None:
        """What changes with the file; None where the server reports neither time nor ID."""
        if not self.modification_time and not self.file_id:
            return None
        return f"{self.modification_time}-{self.length}-{self.file_id}"


class _OneStatus(BaseModel):
    status: _Status = Field(alias="FileStatus")


class _Statuses(BaseModel):
    # Validation stops at the first error: the report of each is larger than its entry.
    entries: Annotated[list[_Status], FailFast()] = Field(alias="FileStatus")


class _Listing(BaseModel):
    statuses: _Statuses = Field(alias="FileStatuses")


class _RemoteException(BaseModel):
    exception: str


_EXCEPTION = TypeAdapter(dict[str, _RemoteException])


@dataclass(frozen=True)
class _Cluster:
    """The namenodes of one file system, and the user of the requests."""

    namenodes: tuple[str, ...]
    transport: Transport
    query: tuple[tuple[str, str], ...] = field(repr=False)
    user: str

    def where(self, path: str) -> str:
        """The name of a path in messages."""
        # Without a user and password.
        host = urlsplit(self.namenodes[0]).netloc.rpartition("@")[2]
        return f"webhdfs://{host}{path}"

    def status(self, path: str) -> _Status:
        """The status of a file or a folder."""
        return self._ask(path, "GETFILESTATUS", _OneStatus).status

    def entries(self, path: str) -> list[_Status]:
        """The entries of a folder."""
        return self._ask(path, "LISTSTATUS", _Listing).statuses.entries

    def open(self, file: RemoteFile, start: int, end: int) -> Body:
        """A range. The namenode redirects to a datanode, which answers 200 with the range alone."""
        part = {"offset": start}
        if end > start:
            part["length"] = end - start

        def read(namenode: str) -> Body:
            return self.transport.read(
                Get(
                    url=self._url(namenode, file.location, "OPEN", **part),
                    where=self.where(file.location),
                    start=start,
                    end=end,
                    size=file.size,
                    ranges=False,
                )
            )

        return self._first(read)

    def _url(self, namenode: str, path: str, op: str, **part: int) -> str:
        query = urlencode([("op", op), *part.items(), *self.query])
        return f"{namenode}/webhdfs/v1{quote(path)}?{query}"

    def _ask(self, path: str, op: str, shape: type[_T]) -> _T:
        where = self.where(path)

        def ask(namenode: str) -> _T:
            url = self._url(namenode, path, op)
            answer = self.transport.call("GET", url, where)
            if answer.status_code >= 400:
                raise _refusal(answer, where, self.user)
            try:
                return TypeAdapter(shape).validate_json(answer.content)
            except ValidationError:
                raise DownloadError(
                    FailureKind.UNSUPPORTED,
                    f"{where} is not answered by a namenode: give the host and port of its web "
                    "interface (dfs.namenode.http-address)",
                ) from None

        return self._first(ask)

    def _first(self, attempt: Callable[[str], _T]) -> _T:
        """The answer of the first namenode that is up and active."""
        errors: list[DownloadError] = []
        for namenode in self.namenodes:
            try:
                return attempt(namenode)
            except DownloadError as error:
                if error.kind not in _ELSEWHERE:
                    raise
                errors.append(error)
        raise next((e for e in errors if e.kind is FailureKind.DENIED), errors[-1])


@dataclass
class _WebModel:
    """The listed files of a cluster."""

    cluster: _Cluster
    files: tuple[RemoteFile, ...]
    origin: str
    version: str | None = None

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """A range of a file, which must be the listed one until its last byte has come."""

        def check() -> None:
            now = self.cluster.status(file.location)
            if (now.version, now.length) != (file.version, file.size):
                raise changed(self.cluster.where(file.location))

        stop = (file.size or 0) if end is None else end
        try:
            body = self.cluster.open(file, start, stop)
        except DownloadError as error:
            # Servers answer differently to an offset behind the end of a file that became shorter.
            if error.kind not in _PASSING:
                check()
            raise
        return CheckedBody(body, stop - start, check)


class HdfsSource:
    """Files of Hadoop file systems.

    `sends_own_token` is whether the agent's own delegation token goes to a namenode that a URI
    names, and not only to those of HDFS_NAMENODE.
    """

    def __init__(self, transports: Transports, *, sends_own_token: bool = True) -> None:
        self._transports = transports
        self._sends_own_token = sends_own_token

    def resolve(self, uri: str, credentials: Credentials, _version: str | None) -> RemoteModel:
        """The one file, or all files below the folder."""
        asked = [name for name in _UNSUPPORTED if credentials.get(name)]
        if asked and not credentials.own:
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{public_uri(uri)}: this agent cannot use {', '.join(asked)}: give "
                "HADOOP_USER_NAME or HDFS_DELEGATION_TOKEN instead (hdfs fetchdt makes a token)",
            )
        sends_token = self._sends_own_token or not credentials.own
        cluster, path = _cluster(uri, credentials, self._transports, sends_token=sends_token)
        if cluster is None:
            return program_model(uri, credentials)
        files = tuple(bounded(_walk(cluster, path), cluster.where(path)))
        if not files:
            raise _empty(uri)
        return _WebModel(cluster, files, origin_of(cluster.namenodes[0]))


def _cluster(
    uri: str, settings: Credentials, transports: Transports, *, sends_token: bool
) -> tuple[_Cluster | None, str]:
    """The cluster and the path of a URI; no cluster where only the `hdfs` program can read it.

    With HDFS_NAMENODE a URI without a port is a path alone, as in KServe: `hdfs://models/a`.
    """
    kind = scheme(uri)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _no_path(uri) from None
    named = settings.get("HDFS_NAMENODE").replace(",", ";").split(";")
    namenodes = tuple(one.strip().rstrip("/") for one in named if one.strip())
    token = settings.get("HDFS_DELEGATION_TOKEN").strip()
    if namenodes and port is None:
        root = settings.get("HDFS_ROOTPATH").strip().rstrip("/")
        path = f"{root}/{unquote(uri.partition('://')[2]).strip('/')}"
        namenodes = tuple(one if "://" in one else f"http://{one}" for one in namenodes)
    elif kind == "hdfs":
        return None, parts.path
    else:
        secure = "s" if kind == "swebhdfs" else ""
        netloc = f"[{host}]" if ":" in host else host
        namenodes = (f"http{secure}://{netloc}:{port or _PORTS[kind]}",)
        path = unquote(parts.path)
        token = token if sends_token else ""
    path = "/" + path.strip("/")
    if path == "/" or not urlsplit(namenodes[0]).netloc or ".." in path.split("/"):
        raise _no_path(uri)
    user = settings.get("HADOOP_USER_NAME") or unquote(parts.username or "")
    query = {
        "user.name": user,
        "doas": settings.get("USER_PROXY"),
        "delegation": token,
    }
    if token:
        # The token names the user, and a namenode refuses a request with both.
        query |= {"user.name": "", "doas": ""}
    trusted = settings.get("TLS_SKIP_VERIFY").lower() != "true"
    asked = tuple((name, value) for name, value in query.items() if value)
    return _Cluster(namenodes, transports.trusting(trusted), asked, user), path


def _walk(cluster: _Cluster, top: str) -> Iterator[RemoteFile]:
    first = cluster.status(top)
    base = posixpath.dirname(top) if first.type == "FILE" else top
    pending = [(top, first)]
    while pending:
        path, status = pending.pop()
        if status.type == "DIRECTORY":
            entries = cluster.entries(path)
            pending += [(f"{path}/{entry.path_suffix}", entry) for entry in reversed(entries)]
        elif status.type == "FILE":
            yield RemoteFile(posixpath.relpath(path, base), path, status.length, status.version)
        else:
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{cluster.where(path)} is neither a file nor a folder: replace the link by the "
                "file itself",
            )


def _refusal(answer: requests.Response, where: str, user: str) -> DownloadError:
    try:
        found = _EXCEPTION.validate_json(answer.content)
        exception = found["RemoteException"].exception
    except (ValidationError, KeyError):
        exception = ""
    if exception in _WAITING:
        return DownloadError(
            FailureKind.UNREACHABLE,
            f"{where}: the namenode is not ready ({exception}): name the active one in the URI or "
            "in HDFS_NAMENODE, it is tried again by itself",
        )
    if exception in _NO_TOKEN:
        return DownloadError(
            FailureKind.DENIED,
            f"{where}: HDFS_DELEGATION_TOKEN is wrong or has ended: make a new one (hdfs fetchdt)",
        )
    if answer.status_code == 401:
        return DownloadError(
            FailureKind.DENIED,
            f"{where} wants a login, such as Kerberos, which this agent has not: give it "
            "HDFS_DELEGATION_TOKEN (hdfs fetchdt makes one), or HADOOP_USER_NAME where users are "
            "trusted by name",
        )
    if answer.status_code == 403:
        return DownloadError(
            FailureKind.DENIED,
            f"{where} may not be read by {user or 'an unnamed user'} ({exception or 'Forbidden'}): "
            "give that user the right to, or set HADOOP_USER_NAME or HDFS_DELEGATION_TOKEN",
        )
    return answered(answer, where, exception)


def _no_path(uri: str) -> DownloadError:
    return DownloadError(
        FailureKind.UNSUPPORTED,
        f"{public_uri(uri)} names no path of a file system: write webhdfs://namenode:9870/path",
    )


def _empty(uri: str) -> DownloadError:
    return DownloadError(
        FailureKind.NOT_FOUND, f"{public_uri(uri)} is empty: put the model's files there"
    )
