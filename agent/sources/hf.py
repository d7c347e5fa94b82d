"""hf://: models of the Hugging Face Hub, or of a mirror that speaks its protocol.

A revision is resolved to a commit, and every file is read at that commit: a branch that moves
changes nothing. HF_TOKEN and HF_ENDPOINT are those of the named credentials, else of the agent's
environment; with credentials that name no endpoint the agent's endpoint is used, never its token.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urljoin, urlsplit

from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError

from agent.credentials import Credentials
from agent.failures import DownloadError, FailureKind, public_uri
from agent.sources.answers import MAX_RETRY_AFTER_SECONDS, Get, answered, changed, retry_after
from agent.sources.base import Checksum, ChecksumAlgorithm, RemoteFile
from agent.sources.bodies import bounded
from agent.sources.transport import IDENTITY, Transport, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from agent.sources.base import Body
    from agent.sources.transport import Transports

DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_REVISION = "main"
MAX_REDIRECTS = 5

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[\w+@#=,][\w+@#=,./-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RESET = re.compile(r";\s*t=(\d+)")
# The answers to a signed URL that is too old: stores differ.
_STALE = {FailureKind.DENIED, FailureKind.NOT_FOUND, FailureKind.INTERNAL}


class _Revision(BaseModel):
    sha: str = Field(pattern="^[0-9a-f]{40}$")


class _Lfs(BaseModel):
    oid: str
    size: int = Field(ge=0)


class _Entry(BaseModel):
    """A file or a folder of a listing. A large file's `oid` is that of its pointer."""

    type: str
    path: str
    oid: str = ""
    size: int = Field(default=0, ge=0)
    lfs: _Lfs | None = None


# The first wrong one is enough: each has a report that is larger than itself.
_ENTRIES = TypeAdapter(Annotated[list[_Entry], FailFast()])


@dataclass(frozen=True)
class _Repository:
    """One model at one hub, and what it is asked with. `where` names it in messages."""

    name: str
    where: str
    endpoint: str
    token: str = field(repr=False)
    transport: Transport

    @property
    def origin(self) -> str:
        """The hub itself: the only one that gets the token."""
        return origin_of(self.endpoint)

    def headers(self, url: str) -> dict[str, str]:
        """What a request for this URL carries."""
        if self.token and origin_of(url) == self.origin:
            return {**IDENTITY, "Authorization": f"Bearer {self.token}"}
        return dict(IDENTITY)

    def file_url(self, commit: str, path: str) -> str:
        """The hub's own address of a file at a commit."""
        return f"{self.endpoint}/{self.name}/resolve/{commit}/{quote(path, safe='/')}"

    def commit(self, revision: str) -> str:
        """The commit that a revision is now."""
        url = f"{self.endpoint}/api/models/{self.name}/revision/{quote(revision, safe='')}"
        answer = self._ask(url)
        try:
            return _Revision.model_validate_json(answer.content).sha
        except ValidationError:
            raise self._strange() from None

    def files(self, commit: str) -> Iterator[RemoteFile]:
        """All files at a commit."""
        base = f"{self.endpoint}/api/models/{self.name}/tree/{commit}"
        query = "recursive=true&expand=false"
        seen: set[str] = set()
        while query and query not in seen:
            seen.add(query)
            answer = self._ask(f"{base}?{query}")
            try:
                entries = _ENTRIES.validate_json(answer.content)
            except ValidationError:
                raise self._strange() from None
            yield from (_remote_file(entry) for entry in entries if entry.type == "file")
            # Of the next page's address only the query is taken, so it leads nowhere else.
            following = answer.links.get("next", {}).get("url", "")
            query = following.partition("#")[0].partition("?")[2]

    def locate(self, commit: str, file: RemoteFile) -> str:
        """Where a large file's bytes are: a signed URL of another host, or the hub's own."""
        url = self.file_url(commit, file.location)
        where = f"{self.where}/{file.path}"
        for _ in range(MAX_REDIRECTS):
            answer = self.transport.call(
                "HEAD", url, where, check=False, headers=self.headers(url), allow_redirects=False
            )
            if answer.status_code in {405, 501}:
                # A mirror that knows no HEAD: each range then follows the redirect.
                return url
            if answer.status_code >= 400:
                raise self.refusal(answer, where)
            _check_announced(answer, file, commit, where)
            if not answer.is_redirect:
                return url
            try:
                url = urljoin(url, answer.headers["Location"])
                elsewhere = origin_of(url) != self.origin
            except ValueError:
                raise self._strange() from None
            if elsewhere:
                return url
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{where} redirects in circles: check HF_ENDPOINT ({public_uri(self.endpoint)})",
        )

    def _ask(self, url: str) -> requests.Response:
        answer = self.transport.call("GET", url, self.where, check=False, headers=self.headers(url))
        if answer.status_code >= 400:
            raise self.refusal(answer, self.where)
        return answer

    def refusal(self, answer: requests.Response, where: str) -> DownloadError:
        """What an answer of 400 or above says to a person."""
        by_code = self._refused_by_code(answer)
        found = by_code or self._refused_by_status(answer)
        if found is not None:
            kind, message = found
            # Of a private model a hub says that there is none.
            hides = by_code is None and kind is FailureKind.NOT_FOUND
            return DownloadError(kind, f"{where} {message}", hides=hides)
        error = answered(answer, where)
        error.retry_after = _retry_after(answer)
        return error

    def _refused_by_code(self, answer: requests.Response) -> tuple[FailureKind, str] | None:
        page = f"{public_uri(self.endpoint)}/{self.name}"
        code = answer.headers.get("X-Error-Code", "")
        if code == "GatedRepo":
            give = "of HF_TOKEN" if self.token else "whose HF_TOKEN you give to the cache"
            return FailureKind.DENIED, (
                f"is gated: accept its licence at {page} with the account {give}"
            )
        if code == "RevisionNotFound":
            return FailureKind.NOT_FOUND, (
                f"has no such revision: see {page}/tree/main, and check sourceModelUri"
            )
        if code == "EntryNotFound":
            return FailureKind.NOT_FOUND, f"is not in the model: see {page}/tree/main"
        return None

    def _refused_by_status(self, answer: requests.Response) -> tuple[FailureKind, str] | None:
        hub, status = public_uri(self.endpoint), answer.status_code
        page = f"{hub}/{self.name}"
        if status == 401 and self.token:
            return FailureKind.DENIED, (
                f"cannot be asked for, as the hub refuses HF_TOKEN: give one that {hub} knows"
            )
        if status in {401, 404}:
            hint = "that HF_TOKEN may read it" if self.token else "give HF_TOKEN if it is private"
            # Without a token the hub does not tell which of the two it is.
            return FailureKind.DENIED if status == 401 else FailureKind.NOT_FOUND, (
                f"does not exist at {hub}, or is private: check sourceModelUri, and {hint}"
            )
        if status == 403 and "disabled" in answer.headers.get("X-Error-Message", ""):
            return FailureKind.DENIED, (
                f"was switched off by the hub: see {page}, or use another model"
            )
        if status == 403:
            return FailureKind.DENIED, f"may not be read: give HF_TOKEN the right to read {page}"
        return None

    def _strange(self) -> DownloadError:
        return DownloadError(
            FailureKind.UNSUPPORTED,
            f"{self.where}: {public_uri(self.endpoint)} does not answer as a Hugging Face hub "
            "does: check HF_ENDPOINT",
        )


class _Place:
    """Where one large file's bytes are now. Asked for once, and again when it was refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._url = ""

    def url(self, locate: Callable[[], str], refused: str = "") -> str:
        """The URL, another one than the refused one if there is another."""
        with self._lock:
            if self._url == refused:
                self._url = locate()
            return self._url


@dataclass
class _HubModel:
    """The files of a commit."""

    repository: _Repository
    files: tuple[RemoteFile, ...]
    origin: str
    version: str
    places: dict[str, _Place]

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """A range of a file at the commit."""

        def locate() -> str:
            return self.repository.locate(self.version, file)

        place = self.places.get(file.path)
        if place is None:
            url = self.repository.file_url(self.version, file.location)
        else:
            url = place.url(locate)
        try:
            return self._read(url, file, start, end)
        except DownloadError as error:
            if error.kind not in _STALE:
                raise
            if place is None:
                # A refusal that tells why.
                locate()
                raise
        return self._read(place.url(locate, refused=url), file, start, end)

    def _read(self, url: str, file: RemoteFile, start: int, end: int | None) -> Body:
        # The pin is the commit in the URL. ETags are no pin: the hosts of signed URLs have theirs.
        return self.repository.transport.read(
            Get(
                url=url,
                where=f"{self.repository.where}/{file.path}",
                start=start,
                end=end,
                size=file.size,
                headers=self.repository.headers(url),
                ranges=file.ranges and end != start,
                alone=file.checksum is None,
            )
        )


class HuggingFaceSource:
    """Models of the Hugging Face Hub and of its mirrors."""

    def __init__(self, transports: Transports) -> None:
        self._transport = transports.trusting()

    def resolve(self, uri: str, credentials: Credentials | None, version: str | None) -> _HubModel:
        """All files of the model at one commit: the former one if the hub still has it."""
        name, revision = split(uri)
        repository = _repository(uri, name, credentials, self._transport)
        commit = _former(repository, version) or repository.commit(revision)
        files = tuple(bounded(repository.files(commit), repository.where))
        if not files:
            raise DownloadError(
                FailureKind.NOT_FOUND,
                f"{public_uri(uri)} has no file: check sourceModelUri and its revision",
            )
        # Large files are behind signed URLs; the hub itself sends the small ones.
        large = [f for f in files if f.checksum and f.checksum.algorithm is _LARGE and f.size]
        places = {file.path: _Place() for file in large}
        return _HubModel(repository, files, repository.origin, commit, places)


_LARGE = ChecksumAlgorithm.SHA256


def split(uri: str) -> tuple[str, str]:
    """Name and revision of `hf://org/model[:revision]`. Raises DownloadError (Unsupported)."""
    name, _, revision = uri.partition("://")[2].partition(":")
    name, revision = name.rstrip("/"), revision or DEFAULT_REVISION
    wrong = not _REVISION.fullmatch(revision) or ".." in revision or "/." in revision
    if wrong or not _NAME.fullmatch(name) or ".." in name:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{public_uri(uri)} names no model of a hub: write hf://organisation/model, or "
            "hf://organisation/model:revision with a branch, a tag or a commit",
        )
    return name, revision


def _repository(
    uri: str, name: str, credentials: Credentials | None, transport: Transport
) -> _Repository:
    settings = Credentials.of(os.environ) if credentials is None else credentials
    endpoint = settings.get("HF_ENDPOINT") or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    endpoint, token = endpoint.strip().rstrip("/"), settings.get("HF_TOKEN").strip()
    where = public_uri(uri)
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{where}: HF_ENDPOINT is no address of a hub: give one such as {DEFAULT_ENDPOINT}",
        )
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise DownloadError(
            FailureKind.DENIED,
            f"{where}: HF_TOKEN is no token: give the bare token, which begins with hf_",
        )
    return _Repository(name, where, endpoint, token, transport)


def _former(repository: _Repository, version: str | None) -> str | None:
    """The former commit, if the hub still has it."""
    if version is None or not _COMMIT.fullmatch(version):
        return None
    try:
        return version if repository.commit(version) == version else None
    except DownloadError as error:
        if error.kind is FailureKind.NOT_FOUND:
            return None
        raise


def _remote_file(entry: _Entry) -> RemoteFile:
    checksum = None
    size, version = entry.size, entry.oid
    if entry.lfs is not None:
        size, version = entry.lfs.size, entry.lfs.oid.removeprefix("sha256:")
        if _SHA256.fullmatch(version):
            checksum = Checksum(_LARGE, version)
    elif _COMMIT.fullmatch(version):
        checksum = Checksum(ChecksumAlgorithm.GIT_BLOB, version)
    # What a mirror has at a commit is proven by the checksum alone.
    return RemoteFile(
        entry.path, entry.path, size, version or None, checksum, ranges=checksum is not None
    )


def _check_announced(answer: requests.Response, file: RemoteFile, commit: str, where: str) -> None:
    """Raises DownloadError if the hub announces another file than the one that was listed."""
    if answer.headers.get("X-Repo-Commit", commit) != commit:
        raise changed(where)
    size = answer.headers.get("X-Linked-Size", "")
    digest = answer.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"')
    other = _SHA256.fullmatch(digest) and file.version not in {digest, None}
    if other or (size.isdecimal() and int(size) != file.size):
        raise DownloadError(
            FailureKind.CORRUPT,
            f"{where} has another size or SHA-256 than the hub's listing says: check the file at "
            "the hub or its mirror, it is tried again by itself",
        )


def _retry_after(answer: requests.Response) -> float | None:
    """Seconds to wait: Retry-After, else the hub's own RateLimit header."""
    reset = _RESET.search(answer.headers.get("RateLimit", ""))
    if answer.status_code == 429 and reset and "Retry-After" not in answer.headers:
        return min(float(reset[1]), MAX_RETRY_AFTER_SECONDS)
    return retry_after(answer.headers)
