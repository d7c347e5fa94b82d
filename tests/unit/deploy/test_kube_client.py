"""The Kubernetes client against a server whose answers each test defines."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.cluster.connection import ConfigError
from deploy.kube import raw_client as module
from deploy.kube.client import KubeClient
from deploy.kube.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnansweredError,
    UnreachableError,
)
from deploy.kube.kinds import CACHES, CLAIMS, JOBS, NODES, Kind, Ref
from tests.unit.agent.api_server import write_kubeconfig
from tests.unit.agent.certificates import make_authority
from tests.unit.agent.servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deploy.kube.kinds import KubeObject
    from tests.unit.agent.servers import Handler, Server

CACHE_PATH = "/apis/serving.kserve.io/v1alpha1/localmodelcaches"
CACHE: KubeObject = {
    "apiVersion": CACHES.api_version,
    "kind": CACHES.name,
    "metadata": {"name": "llama"},
}
CLAIM: KubeObject = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "llama-gpu", "namespace": "team"},
}
CORE = {
    "resources": [
        {"name": "nodes", "kind": "Node", "namespaced": False},
        {"name": "nodes/status", "kind": "Node", "namespaced": False},
        {"name": "persistentvolumeclaims", "kind": "PersistentVolumeClaim", "namespaced": True},
    ]
}


class Call(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    content_type: str
    body: Any


class Script:
    """Sends the answers of `says` one after the other, and records the calls."""

    def __init__(self) -> None:
        self.answers: deque[tuple[int, Any] | Callable[[Handler], None]] = deque()
        self.calls: list[Call] = []
        self.connections: set[Any] = set()
        self.headers: dict[str, str] = {}

    def says(self, status: int, body: Any = None, **fields: Any) -> None:
        self.answers.append((status, fields if body is None else body))

    def __call__(self, handler: Handler, path: str) -> None:
        query = {key: value[0] for key, value in parse_qs(urlsplit(handler.path).query).items()}
        size = int(handler.headers.get("Content-Length", 0))
        body = json.loads(handler.rfile.read(size)) if size else None
        self.headers = {key.lower(): value for key, value in handler.headers.items()}
        self.connections.add(handler.client_address)
        content_type = self.headers.get("content-type", "")
        self.calls.append(Call(handler.command, path, query, content_type, body))
        answer = self.answers.popleft()
        if callable(answer):
            return answer(handler)
        status, content = answer
        text = content if isinstance(content, str) else json.dumps(content)
        kind = "text/plain" if isinstance(content, str) else "application/json"
        return handler.reply(status, text.encode(), {"Content-Type": kind})


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def server(script: Script) -> Iterator[Server]:
    with serving(script) as running:
        yield running


@pytest.fixture
def api(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubeClient:
    # The client must not use a proxy of the environment for the API server.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.01)
    return KubeClient.connect(write_kubeconfig(tmp_path / "config", server.url))


def test_get_and_find(api: KubeClient, script: Script) -> None:
    script.says(200, CLAIM)
    assert api.get(CLAIMS, "llama-gpu", "team") == CLAIM
    path = "/api/v1/namespaces/team/persistentvolumeclaims/llama-gpu"
    assert script.calls[-1][:3] == ("GET", path, {})
    assert script.headers["authorization"] == "Bearer t0ken"
    script.says(404, message='"llama" not found', reason="NotFound")
    assert api.find(CACHES, "llama") is None
    script.says(403, message="no")
    with pytest.raises(ForbiddenError):
        api.find(CACHES, "llama")


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (401, "Unauthorized", ApiError),
        (403, "Forbidden", ForbiddenError),
        (404, "NotFound", NotFoundError),
        (409, "Conflict", ConflictError),
        (409, "AlreadyExists", AlreadyExistsError),
        (410, "Expired", GoneError),
        (422, "Invalid", InvalidError),
        (500, "InternalError", ApiError),
        (503, "", ApiError),
    ],
)
def test_an_error_names_the_call_and_the_cause(
    api: KubeClient, script: Script, status: int, reason: str, error: type[ApiError]
) -> None:
    script.says(status, kind="Status", message="because", reason=reason)
    with pytest.raises(ApiError) as raised:
        api.get(CLAIMS, "llama-gpu", "team")
    assert type(raised.value) is error
    assert str(raised.value) == "reading PersistentVolumeClaim team/llama-gpu: because"
    found = raised.value
    assert (found.status, found.reason, found.message) == (status, reason, "because")


def test_an_error_without_a_status_has_the_http_reason(api: KubeClient, script: Script) -> None:
    script.says(404, "404 page not found")
    with pytest.raises(NotFoundError, match="listing nodes: Not Found"):
        api.list(NODES)


def test_lists_come_page_by_page(api: KubeClient, script: Script) -> None:
    script.says(200, metadata={"resourceVersion": "7", "continue": "more&"}, items=[CLAIM])
    script.says(200, metadata={"resourceVersion": "7", "continue": ""}, items=None)
    found = api.snapshot(CLAIMS, "team", labels="app in (a,b),!c")
    assert found == ((CLAIM,), "7")
    first = {"limit": "500", "labelSelector": "app in (a,b),!c"}
    assert [call.query for call in script.calls] == [first, first | {"continue": "more&"}]
    assert script.calls[0].path == "/api/v1/namespaces/team/persistentvolumeclaims"
    script.says(410, reason="Expired", message="the continue token is too old")
    with pytest.raises(GoneError, match="listing persistentvolumeclaims in team: the continue"):
        api.list(CLAIMS, "team")


def test_a_kind_that_is_not_served_has_no_objects(api: KubeClient, script: Script) -> None:
    script.says(404, "404 page not found")
    assert api.find_all(CACHES) == ()
    script.says(404, "404 page not found")
    assert not api.serves(CACHES)
    script.says(200, CORE)
    assert not api.serves(Kind("v1", "pods", "Pod", namespaced=True))
    script.says(200, CORE)
    assert api.serves(CLAIMS)


def test_kinds_are_looked_up_once(api: KubeClient, script: Script) -> None:
    script.says(200, CORE)
    node: KubeObject = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    found = api.kind_of(node)
    assert (found, found.has_status) == (NODES, True)
    assert not api.kind_of(CLAIM).has_status
    assert [call.path for call in script.calls] == ["/api/v1"]
    # A kind that is not cached may be new, so the client asks the API server again.
    for _ in range(2):
        script.says(200, CORE)
        with pytest.raises(NotFoundError, match="v1 has no such kind"):
            api.kind_of(node | {"kind": "Pod"})
    assert len(script.calls) == 3


def test_changes(api: KubeClient, script: Script) -> None:
    script.says(200, CORE)
    script.says(200, {"resources": [{"name": CACHES.plural, "kind": CACHES.name, "namespaced": 0}]})
    assert api.kind_of(CLAIM) == CLAIMS
    assert api.kind_of(CACHE) == CACHES

    def sent(call: Callable[[], Any]) -> Call:
        script.says(200, CLAIM)
        call()
        return script.calls[-1]

    claims = "/api/v1/namespaces/team/persistentvolumeclaims"
    one = f"{claims}/llama-gpu"
    apply = "application/apply-patch+yaml"
    assert sent(lambda: api.create(CLAIM)) == (("POST", claims, {}, "application/json", CLAIM))
    generated = CLAIM | {"metadata": {"generateName": "llama-", "namespace": "team"}}
    assert sent(lambda: api.create(generated))[1:] == ((claims, {}, "application/json", generated))
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    assert sent(lambda: api.create(CACHE, dry_run=True, strict=True)) == (
        ("POST", CACHE_PATH, query, "application/json", CACHE)
    )
    query = {"fieldManager": "me", "force": "true"}
    assert sent(lambda: api.apply(CLAIM, manager="me")) == ("PATCH", one, query, apply, CLAIM)
    call = sent(lambda: api.apply(CACHE, manager="me", subresource="status", dry_run=True))
    assert call == ("PATCH", f"{CACHE_PATH}/llama/status", query | {"dryRun": "All"}, apply, CACHE)
    assert sent(lambda: api.replace(CLAIM, manager="me")) == (
        ("PUT", one, {"fieldManager": "me"}, "application/json", CLAIM)
    )
    change = {"metadata": {"labels": {"a": None}}}
    assert sent(lambda: api.patch(CLAIMS, "llama-gpu", change, "team")) == (
        ("PATCH", one, {}, "application/merge-patch+json", change)
    )
    operations = [{"op": "remove", "path": "/metadata/finalizers/0"}]
    assert sent(lambda: api.patch(NODES, "a", operations, subresource="status")) == (
        ("PATCH", "/api/v1/nodes/a/status", {}, "application/json-patch+json", operations)
    )


def test_deletions(api: KubeClient, script: Script) -> None:
    options = {"apiVersion": "v1", "kind": "DeleteOptions"}
    script.says(200, kind="Status")
    api.delete(*Ref(JOBS, "ended", "jobs"), uid="u-1", foreground=True)
    assert script.calls.pop() == (
        "DELETE",
        "/apis/batch/v1/namespaces/jobs/jobs/ended",
        {},
        "application/json",
        options | {"propagationPolicy": "Foreground", "preconditions": {"uid": "u-1"}},
    )
    script.says(200, kind="Status")
    api.delete(NODES, "a", grace_seconds=0)
    expected = options | {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
    assert script.calls[-1].body == expected


def test_a_call_is_repeated_after_429(api: KubeClient, script: Script) -> None:
    for _ in range(module.TRIES - 1):
        script.says(429, message="busy")
    script.says(200, CACHE)
    assert api.get(CACHES, "llama") == CACHE
    for _ in range(module.TRIES):
        script.says(429, message="storage is (re)initializing")
    with pytest.raises(ApiError, match=r"listing localmodelcaches: storage is \(re\)initializing"):
        api.list(CACHES)
    assert len(script.calls) == 2 * module.TRIES
    # All calls used one connection.
    assert len(script.connections) == 1


def test_a_call_is_not_repeated_after_other_errors(api: KubeClient, script: Script) -> None:
    script.says(503, message="down")
    with pytest.raises(ApiError, match="changing LocalModelCache llama: down"):
        api.patch(CACHES, "llama", {})
    script.answers.append(lambda handler: handler.reset())
    with pytest.raises(UnansweredError, match="reading Node a: the API server does not answer"):
        api.get(NODES, "a")
    assert len(script.calls) == 2


def test_an_answer_that_is_not_an_object(api: KubeClient, script: Script) -> None:
    script.says(200, "<html>")
    with pytest.raises(UnansweredError, match="reading Node a: the answer is not a JSON object"):
        api.get(NODES, "a")
    script.says(200, "ok")
    assert api.text("/readyz") == "ok"


def test_an_unreachable_api_server(tmp_path: Path) -> None:
    api = KubeClient.connect(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1"))
    with pytest.raises(UnreachableError, match=r"does not answer: .*Connection refused") as raised:
        api.get(NODES, "a")
    assert not isinstance(raised.value, UnansweredError)
    assert raised.value.status == 0
    with pytest.raises(ConfigError, match="missing"):
        KubeClient.connect(tmp_path / "missing")


def test_a_certificate_of_an_unknown_ca(script: Script, tmp_path: Path) -> None:
    with serving(script, tls=make_authority(tmp_path).context) as server:
        api = KubeClient.connect(write_kubeconfig(tmp_path / "config", server.url))
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED") as raised:
            api.get(NODES, "a")
    assert "\n" not in str(raised.value)


def test_headers_for_each_call(server: Server, script: Script, tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "config", server.url)
    api = KubeClient.connect(path, headers={"Impersonate-User": "somebody"})
    script.says(200, CACHE)
    api.get(CACHES, "llama")
    assert script.headers["impersonate-user"] == "somebody"
    assert api.server == server.url


# Watches


def begin_watch(handler: Handler, *events: tuple[str, KubeObject]) -> None:
    handler.begin(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    for kind, obj in events:
        line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
    handler.wfile.flush()


def end_watch(handler: Handler) -> None:
    handler.wfile.write(b"0\r\n\r\n")


def test_a_watch_yields_each_event_at_once(api: KubeClient, script: Script) -> None:
    was_seen = threading.Event()

    def answer(handler: Handler) -> None:
        begin_watch(handler, ("ADDED", CLAIM))
        assert was_seen.wait(30)
        end_watch(handler)

    script.answers.append(answer)
    events = api.watch(CLAIMS, "7", "team", labels="a=b", seconds=60)
    assert next(events) == ("ADDED", CLAIM)
    was_seen.set()
    assert list(events) == []
    assert script.calls[-1].path == "/api/v1/namespaces/team/persistentvolumeclaims"
    assert script.calls[-1].query == {
        "watch": "true",
        "resourceVersion": "7",
        "allowWatchBookmarks": "true",
        "labelSelector": "a=b",
        "timeoutSeconds": "60",
    }
    # The connection of a finished watch is used again.
    script.says(200, CLAIM)
    api.get(CLAIMS, "llama-gpu", "team")
    assert len(script.connections) == 1


def test_a_watch_from_a_version_that_is_too_old(api: KubeClient, script: Script) -> None:
    bookmark = {"metadata": {"resourceVersion": "9"}}
    error = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}

    def answer(handler: Handler) -> None:
        begin_watch(handler, ("BOOKMARK", bookmark), ("ERROR", error))
        end_watch(handler)

    script.answers.append(answer)
    events = api.watch(CACHES, "1")
    assert next(events) == ("BOOKMARK", bookmark)
    with pytest.raises(GoneError, match="watching localmodelcaches: too old"):
        next(events)
    script.says(410, reason="Expired", message="too old")
    with pytest.raises(GoneError):
        next(api.watch(CACHES, "1"))


def test_a_watch_that_breaks_off(api: KubeClient, script: Script) -> None:
    def answer(handler: Handler) -> None:
        begin_watch(handler, ("ADDED", CACHE))
        handler.hang_up()

    script.answers.append(answer)
    events = api.watch(CACHES, "1")
    assert next(events) == ("ADDED", CACHE)
    with pytest.raises(UnansweredError, match="watching localmodelcaches: the answer broke off"):
        next(events)


def test_an_abandoned_watch_closes_its_connection(api: KubeClient, script: Script) -> None:
    was_let_go = threading.Event()

    def answer(handler: Handler) -> None:
        begin_watch(handler, ("ADDED", CACHE))
        # No event, then the end of the stream.
        assert handler.rfile.read(1) == b""
        was_let_go.set()
        handler.close_connection = True

    script.answers.append(answer)
    events = api.watch(CACHES, "1")
    assert next(events) == ("ADDED", CACHE)
    del events
    assert was_let_go.wait(30)


def test_many_threads_share_a_client(api: KubeClient, script: Script) -> None:
    together = threading.Barrier(8)

    def answer(handler: Handler) -> None:
        together.wait(30)
        handler.reply(200, json.dumps(CACHE).encode())

    found: list[KubeObject] = []
    for _ in range(2):
        script.answers.extend([answer] * 8)
        threads = [
            threading.Thread(target=lambda: found.append(api.get(CACHES, "llama")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert found == [CACHE] * 16
    # The second round uses the connections of the first.
    assert len(script.connections) == 8
