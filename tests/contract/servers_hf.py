"""A Hugging Face hub on loopback, with a second host that serves large files by signed URLs."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.unit.agent.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.unit.agent.servers import Handler, Server

LARGE = 1000
_API = re.compile(r"/api/models/(.+?)/(revision|tree)/([^/]+)")
_RESOLVE = re.compile(r"/(?:api/resolve-cache/models/)?(.+?)/resolve/([^/]+)/(.+)")


def git_oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def own_etag(content: bytes) -> str:
    """A mirror's: no name of Git's, although it looks like one."""
    return hashlib.sha1(content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Repo:
    """A model with its commits. `readers` are the tokens that may read it; None: anybody."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    readers: set[str] | None = None
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Move a branch to a commit with these files."""
        text = repr((len(self.commits), sorted(files.items())))
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[ref] = sha
        return sha


@dataclass
class Hub:
    """What the hub knows. Tokens are valid or not; repositories say whose they are."""

    repos: dict[str, Repo] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    # Former names.
    moved: dict[str, str] = field(default_factory=dict)
    page: int = 1000
    # Status and headers of the answer to everything.
    refuse: tuple[int, dict[str, str]] | None = None
    # Added to what the redirect of a large file says.
    linked: dict[str, str] = field(default_factory=dict)
    # What the links to further pages begin with; the hub's own address if None.
    pages_at: str | None = None
    # Signatures of former generations have expired.
    generation: int = 0
    # What the whole body of a listing is, instead of JSON.
    strange: bytes | None = None
    without_head: bool = False
    # Status and body of the answer for a tree, of a mirror that has none.
    without_trees: tuple[int, bytes] | None = None
    # What models' descriptions tell of files: all, names, or nothing at all.
    describes: str = "all"
    # Large files come from here, with no word of what they are.
    plain: bool = False
    cdn_url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, handler: Handler, _path: str) -> None:
        path = urlsplit(handler.path).path
        if self.refuse is not None:
            return handler.reply(self.refuse[0], b"{}", self.refuse[1])
        if self.strange is not None:
            return handler.reply(200, self.strange, {"Content-Type": "text/html"})
        if found := _API.fullmatch(path):
            return self._api(handler, *found.groups())
        if found := _RESOLVE.fullmatch(path):
            return self._resolve(handler, *found.groups())
        return handler.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _repo(self, handler: Handler, name: str, *, content: bool) -> Repo | None:
        """The repository if the request may see it; otherwise the answer is sent."""
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if name in self.moved:
            there = handler.path.replace(f"/{name}/", f"/{self.moved[name]}/", 1)
            handler.reply(307, b"", {"Location": there})
            return None
        if token and token not in self.tokens:
            message = {"X-Error-Message": "Invalid credentials in Authorization header"}
            handler.reply(401, b"{}", message)
            return None
        repo = self.repos.get(name)
        known = repo is not None and (repo.readers is None or token in repo.readers)
        if repo is None or not (known or repo.gated):
            handler.reply(404 if token else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        if content and not known:
            handler.reply(403 if token else 401, b"{}", {"X-Error-Code": "GatedRepo"})
            return None
        return repo

    def _api(self, handler: Handler, name: str, what: str, revision: str) -> None:
        repo = self._repo(handler, name, content=False)
        if repo is None:
            return None
        revision = unquote(revision)
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            return handler.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if what == "revision":
            found = {"id": name, "sha": sha} | self._siblings(handler, repo.commits[sha])
            return handler.reply(200, json.dumps(found).encode())
        if self.without_trees is not None:
            status, body = self.without_trees
            return handler.reply(status, body, {"Content-Type": "text/html"})
        query = parse_qs(urlsplit(handler.path).query)
        entries = _entries(repo.commits[sha])
        start = int(query.get("cursor", ["0"])[0])
        shown = entries[start : start + self.page]
        headers = {}
        if start + self.page < len(entries):
            base = self.pages_at or f"http://{handler.headers['Host']}"
            path = urlsplit(handler.path).path
            link = f"{base}{path}?recursive=true&cursor={start + self.page}"
            headers["Link"] = f'<{link}>; rel="next"'
        return handler.reply(200, json.dumps(shown).encode(), headers)

    def _siblings(self, handler: Handler, files: Mapping[str, bytes]) -> dict[str, object]:
        if self.describes == "nothing":
            return {}
        if self.describes == "names" or "blobs=true" not in handler.path:
            return {"siblings": [{"rfilename": path} for path in files]}
        return {"siblings": [_sibling(path, content) for path, content in files.items()]}

    def _resolve(self, handler: Handler, name: str, commit: str, path: str) -> None:
        repo = self._repo(handler, name, content=True)
        if repo is None:
            return None
        content = repo.commits.get(commit, {}).get(unquote(path))
        if content is None:
            return handler.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        return self._send(handler, name, commit, path, content)

    def _send(self, handler: Handler, name: str, commit: str, path: str, content: bytes) -> None:
        if handler.command == "HEAD" and self.without_head:
            return handler.reply(405)
        headers = {"X-Repo-Commit": commit}
        if self.plain:
            return send_range(handler, content, headers | {"ETag": f'"{own_etag(content)}"'})
        if len(content) >= LARGE:
            digest = sha256(content)
            self.blobs[digest] = content
            headers |= {
                "Location": f"{self.cdn_url}/{digest}?Signature=sig-{self.generation}",
                "X-Linked-Size": str(len(content)),
                "X-Linked-ETag": f'"{digest}"',
            }
            return handler.reply(302, b"", headers | self.linked)
        if "/api/resolve-cache/" not in handler.path:
            there = f"/api/resolve-cache/models/{name}/resolve/{commit}/{quote(unquote(path))}"
            return handler.reply(307, b"", headers | {"Location": there})
        return send_range(handler, content, headers | {"ETag": f'"{git_oid(content)}"'})

    def cdn(self, handler: Handler, path: str) -> None:
        """The second host: what it sends it sends to anybody with a signature."""
        query = parse_qs(urlsplit(handler.path).query)
        content = self.blobs.get(path.strip("/"))
        if content is None or query.get("Signature") != [f"sig-{self.generation}"]:
            return handler.reply(403, b"<Error><Code>AccessDenied</Code></Error>")
        return send_range(handler, content, {"ETag": '"not-the-digest"'})


def _entries(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    folders = {path[: at.start()] for path in files for at in re.finditer("/", path)}
    entries: list[dict[str, object]] = [
        {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders
    ]
    for path, content in files.items():
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(content)}
        entry["oid"] = git_oid(content)
        if len(content) >= LARGE:
            entry["oid"] = "f" * 40
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 135}
            entry["xetHash"] = "e" * 64
        entries.append(entry)
    return sorted(entries, key=lambda entry: str(entry["path"]))


def _sibling(path: str, content: bytes) -> dict[str, object]:
    large = {"sha256": sha256(content), "size": len(content), "pointerSize": 135}
    return {
        "rfilename": path,
        "size": len(content),
        "blobId": "f" * 40 if len(content) >= LARGE else git_oid(content),
        "lfs": large if len(content) >= LARGE else None,
    }


def send_range(handler: Handler, content: bytes, headers: dict[str, str]) -> None:
    """The content, or the part that was asked for."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if found is None:
        return handler.reply(200, content, headers)
    start, end = int(found[1]), int(found[2] or len(content) - 1)
    shown = f"bytes {start}-{end}/{len(content)}"
    return handler.reply(206, content[start : end + 1], headers | {"Content-Range": shown})


@dataclass
class RunningHub:
    hub: Hub
    server: Server
    cdn: Server

    @property
    def url(self) -> str:
        return self.server.url


@contextmanager
def serving_hub(hub: Hub, cdn_address: str = "127.0.0.1") -> Iterator[RunningHub]:
    with serving(hub) as server, serving(hub.cdn, cdn_address) as cdn:
        hub.cdn_url = cdn.url
        yield RunningHub(hub, server, cdn)
