"""The server of the plugin's page: who gets an answer, the stream, and its end."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from deploy.kubectl.snapshot import snapshot_of
from deploy.kubectl.ui import feed as feed_module
from deploy.kubectl.ui.feed import Feed, Health
from deploy.kubectl.ui.server import MOST_STREAMS, Server
from tests.unit.deploy.ui_objects import cluster, local_model_node, report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deploy.kubectl.snapshot import Snapshot


def explain(parameters: Mapping[str, str]) -> object:
    if parameters.get("node") == "gone":
        raise ValueError("There is no LocalModelNode gone any more.")
    return {"links": [], "facts": [["Asked", parameters["node"], ""]]}


@pytest.fixture
def feed() -> Feed:
    return Feed("test")


@pytest.fixture
def server(feed: Feed) -> Iterator[Server]:
    made = Server(feed, explain, 0)
    made.start()
    yield made
    made.stop()


def call(
    server: Server, path: str, *, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read().decode()
    finally:
        connection.close()


class Stream:
    """Reads the events of a stream."""

    def __init__(self, server: Server, position: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        headers = {"Last-Event-ID": position} if position else {}
        self.connection.request("GET", f"/{server.token}/events", headers=headers)
        self.answer = self.connection.getresponse()
        self.position = position

    def next(self, name: str = "message") -> Any:
        """The data of the next event of this name; None at the end of the stream."""
        fields: dict[str, str] = {}
        for line in self.answer:
            key, colon, value = line.decode().rstrip("\n").partition(": ")
            if colon:
                fields[key] = value
            elif fields.get("event", "message" if "data" in fields else "") == name:
                self.position = fields.get("id", self.position)
                return json.loads(fields["data"])
            else:
                fields = {}
        return None


@contextmanager
def stream(server: Server, position: str = "") -> Iterator[Stream]:
    found = Stream(server, position)
    try:
        yield found
    finally:
        found.connection.close()


def snapshots(nodes: int = 3) -> Iterator[Snapshot]:
    """A cluster, and then one failure more each time."""
    objects = cluster(nodes)
    yield snapshot_of(objects, at=datetime.now(tz=UTC))
    for number in range(nodes):
        failed = report("llama", "Failed", reason="DiskFull")
        objects["LocalModelNode"][number] = local_model_node(f"node-{number + 1}", failed)
        yield snapshot_of(objects, at=datetime.now(tz=UTC))


def test_only_who_has_the_token_gets_an_answer(server: Server) -> None:
    answer, page = call(server, f"/{server.token}/")
    assert answer.status == 200
    assert "<title>localmodel</title>" in page
    for path in ("/", "/events", "/wrong/", "/wrong/why?node=node-1", f"/{server.token}x/"):
        answer, text = call(server, path)
        assert answer.status == 404
        assert "the address that `kubectl localmodel ui` printed" in text
        assert server.token not in text
    assert call(server, f"/{server.token}/../server.py")[0].status == 404
    assert call(server, f"/{server.token}/page/index.html")[0].status == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_no_site_reaches_the_server_by_its_own_name(server: Server, host: str) -> None:
    answer, text = call(server, f"/{server.token}/", Host=host)
    assert answer.status == 403
    assert "<title>" not in text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "LOCALHOST:8080"])
def test_a_forwarded_port_works(server: Server, host: str) -> None:
    assert call(server, f"/{server.token}/", Host=host)[0].status == 200


def test_each_answer_forbids_foreign_scripts_and_readers(server: Server) -> None:
    for path in (f"/{server.token}/", f"/{server.token}/app.js", "/wrong"):
        answer, _ = call(server, path, Origin="https://evil.example")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Access-Control-Allow-Origin"] is None
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    assert {"index.html", "app.js", "style.css", "icon.svg"} <= set(server.page)
    for name, (_, data) in server.page.items():
        text = data.decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, name
        assert "innerHTML" not in text, name
    index = server.page["index.html"][1].decode()
    assert "style=" not in index
    assert index.count("<script") == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_it_only_reads(server: Server, method: str) -> None:
    assert call(server, f"/{server.token}/why?node=a", method=method)[0].status == 501


def test_head(server: Server) -> None:
    answer, text = call(server, f"/{server.token}/app.js", method="HEAD")
    assert (answer.status, text) == (200, "")
    assert answer.headers["Content-Type"].startswith("text/javascript")


def test_the_link_for_the_browser_works_once(server: Server) -> None:
    link = server.one_time_url().removeprefix(server.origin)
    answer, _ = call(server, link)
    assert answer.status == 303
    assert answer.headers["Location"] == f"/{server.token}/"
    assert call(server, link)[0].status == 404


def test_why(server: Server) -> None:
    answer, text = call(server, f"/{server.token}/why?model=llama&node=node-1")
    assert (answer.status, json.loads(text)["facts"]) == (200, [["Asked", "node-1", ""]])
    answer, text = call(server, f"/{server.token}/why?node=gone")
    assert (answer.status, text) == (404, "There is no LocalModelNode gone any more.\n")


def test_the_stream_has_everything_and_then_changes(server: Server, feed: Feed) -> None:
    with stream(server) as events:
        feed.report(Health("test", "reading"))
        assert events.next("health")["state"] == "reading"
        states = snapshots()
        feed.publish(next(states))
        first = events.next()
        assert first["full"]
        assert first["cells"]["node-1"][0] == "AAA"
        feed.publish(next(states))
        second = events.next()
        assert not second["full"]
        assert list(second["cells"]) == ["node-1"]
        feed.report(Health("test", "broken", ("no connection",), seen=1.0))
        assert events.next("health")["errors"] == ["no connection"]


def test_an_empty_cluster_is_a_message_too(server: Server, feed: Feed) -> None:
    with stream(server) as events:
        feed.publish(snapshot_of({}, at=datetime.now(tz=UTC)))
        assert events.next()["nodes"] == {}


def test_a_broken_stream_goes_on_where_it_was(server: Server, feed: Feed) -> None:
    states = snapshots()
    feed.publish(next(states))
    with stream(server) as events:
        events.next()
        position = events.position
    feed.publish(next(states))
    feed.publish(next(states))
    with stream(server, position) as events:
        assert list(events.next()["cells"]) == ["node-1"]
        assert list(events.next()["cells"]) == ["node-2"]
    # The position of another run of the program.
    with stream(server, "0badc0de-1") as events:
        assert events.next()["full"]


def test_who_falls_far_behind_gets_everything(
    server: Server, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "KEPT_BYTES", 400)
    states = snapshots(20)
    feed.publish(next(states))
    with stream(server) as events:
        events.next()
        position = events.position
    for state in states:
        feed.publish(state)
    with stream(server, position) as events:
        found = events.next()
        assert found["full"]
        assert found["cells"]["node-20"][0] == "F.."


def test_streams_are_bounded(server: Server) -> None:
    opened = [Stream(server) for _ in range(MOST_STREAMS)]
    try:
        assert {one.answer.status for one in opened} == {200}
        refused = Stream(server)
        assert refused.answer.status == 503
        assert b"close some" in refused.answer.read()
        refused.connection.close()
    finally:
        for one in opened:
            one.connection.close()


def test_stopping_ends_the_streams(feed: Feed) -> None:
    server = Server(feed, explain, 0)
    server.start()
    with stream(server) as events:
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert events.next() is None
        stopping.join(10)
        assert not stopping.is_alive()
    with pytest.raises(OSError, match="refused"):
        call(server, "/")
