"""Files of a web server of ours, which lets in who knows the password, or anybody."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from agent.commands.assemble import own_credentials
from agent.sources.http import HttpSource
from agent.sources.transport import Transports
from agent.structs.failures import FailureKind
from tests.contract.suite import CONTENT, SourceContract, Store, bytes_of, failure_of
from tests.unit.agent.servers import WebFiles, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.structs.remote import RemoteModel
    from tests.unit.agent.servers import Handler, Server

PASSWORD = "p:w/d@%25"
ALLOWED = "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()


class Web(Store):
    """A place is a folder; its URI is that of its largest file, as a web server lists nothing."""

    public = True
    parts = False
    checksums = False

    def __init__(self, files: WebFiles, server: Server, *, user: str = "") -> None:
        self.files, self.server, self.user = files, server, user
        self.source = HttpSource(Transports(max_connections=4))
        self.secrets = (PASSWORD, quote(PASSWORD, safe=""))
        self._made = 0

    def uri(self, path: str) -> str:
        host = self.server.url.removeprefix("http://")
        return f"http://{f'{self.user}@' if self.user else ''}{host}{quote(path)}"

    def put(self, files: Mapping[str, bytes]) -> str:
        self._made += 1
        for path, content in files.items():
            self.files.files[f"/{self._made}/{path}"] = content
        return self.uri(f"/{self._made}/{max(files, key=lambda path: len(files[path]))}")

    def change(self, uri: str, path: str, content: bytes) -> None:
        self.files.files[f"/{uri.rpartition('/')[0].rpartition('/')[2]}/{path}"] = content


class WebContract(SourceContract):
    """A web server has one file in each model: what needs several is not for it."""

    def test_lists_every_file_with_its_size(self, store: Store) -> None:
        for path, content in {"a": CONTENT, "model name+100%.onnx": b"x" * 300}.items():
            (file,) = store.resolve(store.put({path: content})).files
            assert (file.path, file.size, file.ranges) == (path, len(content), True)

    def test_reads_every_file_whole(self, store: Store) -> None:
        for content in (CONTENT, b"x", b""):
            model = store.resolve(store.put({"file": content}))
            assert bytes_of(model, model.files[0]) == content

    def test_the_checksum_is_that_of_the_content(self, store: Store) -> None:
        assert store.resolve(store.put({"file": CONTENT})).files[0].checksum is None


class TestPublicWeb(WebContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls) -> Iterator[Store]:
        files = WebFiles({})
        with serving(files) as server:
            yield Web(files, server)


class Guarded(WebFiles):
    """Only for who knows the password."""

    def __call__(self, handler: Handler, path: str) -> None:
        if handler.headers.get("Authorization") != ALLOWED:
            handler.reply(401, headers={"WWW-Authenticate": "Basic"})
        else:
            super().__call__(handler, path)


class GuardedWeb(Web):
    """The password is a part of the URI, so that others are other URIs."""

    public = False

    def resolve(self, uri: str, version: str | None = None) -> RemoteModel:
        return super().resolve(self.as_user(uri, f"user:{quote(PASSWORD, safe='')}"), version)

    def as_user(self, uri: str, user: str) -> str:
        host = uri.partition("://")[2].rpartition("@")[2]
        return f"http://{f'{user}@' if user else ''}{host}"


class TestGuardedWeb(WebContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls) -> Iterator[Store]:
        files = Guarded({})
        with serving(files) as server:
            yield GuardedWeb(files, server)

    def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        assert isinstance(store, GuardedWeb)
        uri = store.as_user(store.missing(), f"user:{quote(PASSWORD, safe='')}")
        assert failure_of(store, uri, store.good).kind is FailureKind.NOT_FOUND

    def test_wrong_credentials_are_denied(self, store: Store) -> None:
        assert isinstance(store, GuardedWeb)
        uri = store.put({"a": b"1"})
        for user in ("user:wrong-p4ss", "other:wrong-p4ss", "user:", "user"):
            error = failure_of(store, store.as_user(uri, user), store.good)
            assert error.kind is FailureKind.DENIED
            assert "wrong-p4ss" not in error.message
            assert f"{uri} answered 401" in error.message


def test_credentials_of_a_cache_are_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    files = WebFiles({"/m.bin": CONTENT})
    with serving(files) as server:
        model = Web(files, server).source.resolve(f"{server.url}/m.bin", own_credentials(), None)
        assert bytes_of(model, model.files[0], 5, 9) == CONTENT[5:9]
    assert not any("Authorization" in headers for _, _, headers in server.seen)
