"""hf://: models of the Hugging Face Hub, or of a mirror with the same API.

A revision is resolved to a commit, and every file is read at that commit, so a branch that moves
does not mix versions. HF_TOKEN and HF_ENDPOINT are settings of the credentials. A tenant's
credentials without an endpoint are for the agent's hub, and never get the agent's token.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from pydantic import ValidationError

from agent.sources.answers import (
    MAX_RETRY_AFTER_SECONDS,
    Get,
    answered,
    changed,
    retry_after,
)
from agent.sources.bodies import bounded
from agent.sources.hf_wire import (
    COMMIT,
    LARGE,
    SHA256,
    Description,
    Revision,
    Sibling,
    entries_of,
    file_at_commit,
    linked,
    remote_file,
)
from agent.sources.transport import IDENTITY, Transport, origin_of
from agent.sources.waits import current, resume
from agent.structs.failures import DownloadError, FailureKind, public_uri
from agent.structs.remote import Checksum, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from agent.sources.transport import Transports
    from agent.structs.credentials import Credentials
    from agent.structs.remote import Body

DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_REVISION = "main"
MAX_REDIRECTS = 5
# How many HEAD requests run at once, for a mirror that lists only the names of files.
HEADS = 8

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[\w+@#=,][\w+@#=,./-]*", re.ASCII)
_RESET = re.compile(r";\s*t=(\d+)")
# The statuses that mirrors answer to an API that they do not have.
_UNKNOWN = {400, 403, 404, 405, 410, 501}
# The failures of a signed URL that has expired: stores differ.
_STALE = {FailureKind.DENIED, FailureKind.NOT_FOUND, FailureKind.INTERNAL}


@dataclass(frozen=True)
class _Repository:
    """One model at one hub, and the token for it. `where` names the model in messages."""

    name: str
    where: str
    endpoint: str
    token: str = field(repr=False)
    transport: Transport

    @property
    def origin(self) -> str:
        """The hub's origin: the only one that gets the token."""
        return origin_of(self.endpoint)

    def headers(self, url: str) -> dict[str, str]:
        """The headers of a request for this URL."""
        if self.token and origin_of(url) == self.origin:
            return {**IDENTITY, "Authorization": f"Bearer {self.token}"}
        return dict(IDENTITY)

    def file_url(self, commit: str, path: str) -> str:
        """The hub's own address of a file at a commit."""
        return f"{self.endpoint}/{self.name}/resolve/{commit}/{quote(path, safe='/')}"

    def commit(self, revision: str) -> str:
        """The current commit of a revision."""
        answer = self._ask(self._revision_url(revision))
        try:
            return Revision.model_validate_json(answer.content).sha
        except ValidationError:
            raise self._strange() from None

    def _revision_url(self, revision: str) -> str:
        return f"{self.endpoint}/api/models/{self.name}/revision/{quote(revision, safe='')}"

    def files(self, commit: str) -> Iterator[RemoteFile]:
        """All files at a commit."""
        base = f"{self.endpoint}/api/models/{self.name}/tree/{commit}"
        query = "recursive=true&expand=false"
        seen: set[str] = set()
        while query and query not in seen:
            answer = self._call(f"{base}?{query}")
            entries = entries_of(answer)
            if entries is None:
                error = self._strange()
                if answer.status_code >= 400:
                    error = self.refusal(answer, self.where)
                if seen or not _may_lack_trees(answer):
                    raise error
                yield from self._siblings(commit, error)
                return
            seen.add(query)
            yield from (remote_file(entry) for entry in entries if entry.type == "file")
            # Only the query of the next page's URL is used, so a page cannot lead to another host.
            following = answer.links.get("next", {}).get("url", "")
            query = following.partition("#")[0].partition("?")[2]

    def _siblings(self, commit: str, without: DownloadError) -> Iterator[RemoteFile]:
        """All files at a commit of a mirror without trees, by the API that older libraries use.

        Raises the failure of the tree, `without`, if the mirror does not have that API either.
        """
        try:
            answer = self._ask(f"{self._revision_url(commit)}?blobs=true")
            siblings = Description.model_validate_json(answer.content).siblings
        except (DownloadError, ValidationError):
            raise without from None
        with ThreadPoolExecutor(
            HEADS, "heads", initializer=resume, initargs=(current(),)
        ) as threads:
            yield from threads.map(partial(self._described, commit), siblings)

    def _described(self, commit: str, sibling: Sibling) -> RemoteFile:
        """A file of a description, by the headers of the file where that has only its name."""
        if sibling.size is not None or sibling.lfs is not None:
            file = remote_file(sibling)
            return file if file.version else replace(file, version=commit)
        size, version, checksum = None, commit, None
        where = f"{self.where}/{sibling.path}"
        for answer, _ in self._hops(commit, sibling.path):
            if answer.headers.get("X-Repo-Commit", commit) != commit:
                raise changed(where)
            whole, digest = linked(answer)
            # A mirror's own ETag need not be a digest.
            version = digest or answer.headers.get("ETag", "").strip('"') or version
            length = answer.headers.get("Content-Length", "")
            own = int(length) if length.isdecimal() and not answer.is_redirect else None
            size = own if whole is None else whole
            if SHA256.fullmatch(digest):
                checksum = Checksum(LARGE, digest)
            if whole is not None:
                break
        return file_at_commit(sibling.path, size, version, checksum)

    def locate(self, commit: str, file: RemoteFile) -> str:
        """The URL of a large file's bytes: a signed one of another host, or the hub's own."""
        found = self.file_url(commit, file.location)
        for answer, url in self._hops(commit, file.location):
            _check_announced(answer, file, commit, f"{self.where}/{file.path}")
            found = url
        return found

    def _hops(self, commit: str, path: str) -> Iterator[tuple[requests.Response, str]]:
        """The hub's answers to HEAD requests for a file, each with the URL that it leads to.

        Nothing of a mirror without HEAD: each range then follows the redirect itself.
        """
        url, where = self.file_url(commit, path), f"{self.where}/{path}"
        for _ in range(MAX_REDIRECTS):
            answer = self.transport.call(
                "HEAD", url, where, headers=self.headers(url), allow_redirects=False
            )
            if answer.status_code in {405, 501}:
                return
            if answer.status_code >= 400:
                raise self.refusal(answer, where)
            if answer.is_redirect:
                try:
                    url = urljoin(url, answer.headers["Location"])
                    leads_on = origin_of(url) == self.origin
                except ValueError:
                    raise self._strange() from None
            else:
                leads_on = False
            yield answer, url
            if not leads_on:
                return
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{where} redirects in circles: check HF_ENDPOINT ({public_uri(self.endpoint)})",
        )

    def _ask(self, url: str) -> requests.Response:
        answer = self._call(url)
        if answer.status_code >= 400:
            raise self.refusal(answer, self.where)
        return answer

    def _call(self, url: str) -> requests.Response:
        return self.transport.call("GET", url, self.where, headers=self.headers(url))

    def refusal(self, answer: requests.Response, where: str) -> DownloadError:
        """The failure for an answer of 400 or above."""
        by_code = self._refused_by_code(answer)
        found = by_code or self._refused_by_status(answer)
        if found is not None:
            kind, message = found
            # A hub answers that a private model does not exist.
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
            # Without a token the answer is the same in both cases.
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


class _FileUrl:
    """The current URL of one large file's bytes, requested once and again after a refusal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._url = ""

    def url(self, locate: Callable[[], str], refused: str = "") -> str:
        """The URL, requested anew if the current one is `refused`."""
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
    urls: dict[str, _FileUrl]

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """A range of a file at the commit."""

        def locate() -> str:
            return self.repository.locate(self.version, file)

        signed = self.urls.get(file.path)
        if signed is None:
            url = self.repository.file_url(self.version, file.location)
        else:
            url = signed.url(locate)
        try:
            return self._read(url, file, start, end)
        except DownloadError as error:
            if error.kind not in _STALE:
                raise
            if signed is None:
                # This HEAD request fails with the hub's reason.
                locate()
                raise
        return self._read(signed.url(locate, refused=url), file, start, end)

    def _read(self, url: str, file: RemoteFile, start: int, end: int | None) -> Body:
        # The commit in the URL pins the file. The hosts of signed URLs have ETags of their own.
        return self.repository.transport.read(
            Get(
                url=url,
                where=f"{self.repository.where}/{file.path}",
                start=start,
                end=end,
                size=file.size,
                headers=self.repository.headers(url),
                ranges=file.ranges and end != start,
                as_stored=True,
                alone=file.checksum is None,
            )
        )


class HuggingFaceSource:
    """Models of the Hugging Face Hub and of its mirrors.

    `hub` is the hub of credentials that name none; empty: the Hugging Face Hub.
    """

    def __init__(self, transports: Transports, hub: str = "") -> None:
        self._transport = transports.trusting()
        self._hub = hub

    def resolve(self, uri: str, credentials: Credentials, version: str | None) -> _HubModel:
        """All files of the model at one commit: that of `version` if the hub still has it."""
        name, revision = split(uri)
        repository = _repository(uri, name, credentials, self._hub, self._transport)
        commit = _former(repository, version)
        if commit is None:
            # The listing of the tree fails if there is no such commit.
            commit = revision if COMMIT.fullmatch(revision) else repository.commit(revision)
        files = tuple(bounded(repository.files(commit), repository.where))
        if not files:
            raise DownloadError(
                FailureKind.NOT_FOUND,
                f"{public_uri(uri)} has no file: check sourceModelUri and its revision",
            )
        # Large files have signed URLs at other hosts; the hub itself sends the small ones.
        large = [f for f in files if f.checksum and f.checksum.algorithm is LARGE and f.size]
        urls = {file.path: _FileUrl() for file in large}
        return _HubModel(repository, files, repository.origin, commit, urls)


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
    uri: str, name: str, credentials: Credentials, hub: str, transport: Transport
) -> _Repository:
    endpoint = (credentials.get("HF_ENDPOINT") or hub or DEFAULT_ENDPOINT).strip().rstrip("/")
    token = credentials.get("HF_TOKEN").strip()
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
    if version is None or not COMMIT.fullmatch(version):
        return None
    try:
        return version if repository.commit(version) == version else None
    except DownloadError as error:
        if error.kind is FailureKind.NOT_FOUND:
            return None
        raise


def _may_lack_trees(answer: requests.Response) -> bool:
    """Whether the answer may be that of a mirror without trees: the Hub itself gives a code."""
    unknown = answer.status_code < 400 or answer.status_code in _UNKNOWN
    return unknown and not answer.headers.get("X-Error-Code")


def _check_announced(answer: requests.Response, file: RemoteFile, commit: str, where: str) -> None:
    """Raises DownloadError if the hub announces another file than the one that was listed."""
    if answer.headers.get("X-Repo-Commit", commit) != commit:
        raise changed(where)
    size, digest = linked(answer)
    other = SHA256.fullmatch(digest) and file.version not in {digest, None}
    if other or (size is not None and size != file.size):
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
