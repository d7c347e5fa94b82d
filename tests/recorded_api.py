"""A small API server with recorded objects: lists in pages, Tables of Nodes, watches, gzip.

It has what the kubectl plugin reads, in the form of the real server, and nothing else.
"""

from __future__ import annotations

import gzip
import json
import queue
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from deploy.kube.kinds import (
    CACHES,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NODES,
    PLACEMENTS,
    Kind,
    KubeObject,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KINDS = (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES, PLACEMENTS, NODES)
# As the real server: smaller answers are not packed.
_GZIP_FROM = 128 * 1024


class RecordedApi:
    """The objects, and the watches on them. Change them by `put` and `remove`."""

    def __init__(self, objects: Mapping[str, Sequence[KubeObject]] | None = None) -> None:
        self._lock = threading.Lock()
        self._version = 1000
        self._objects: dict[str, dict[tuple[str, str], KubeObject]] = {
            kind.plural: {} for kind in KINDS
        }
        self._watches: dict[str, set[queue.SimpleQueue[bytes | None]]] = {
            kind.plural: set() for kind in KINDS
        }
        # Status and message of each answer about a kind, by its plural.
        self.refused: dict[str, tuple[int, str]] = {}
        for name, listed in (objects or {}).items():
            kind = next(one for one in KINDS if one.name == name)
            for obj in listed:
                self.put(kind, obj)

    @property
    def version(self) -> int:
        """The resourceVersion of the last change."""
        with self._lock:
            return self._version

    def put(self, kind: Kind, obj: KubeObject) -> None:
        """Create or replace an object."""
        with self._lock:
            self._version += 1
            stored = {"apiVersion": kind.api_version, "kind": kind.name} | obj
            stored["metadata"] = obj["metadata"] | {"resourceVersion": str(self._version)}
            known = _key(obj) in self._objects[kind.plural]
            self._objects[kind.plural][_key(obj)] = stored
            self._send(kind, "MODIFIED" if known else "ADDED", stored)

    def remove(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Delete an object."""
        with self._lock:
            self._version += 1
            gone = self._objects[kind.plural].pop((namespace, name))
            self._send(kind, "DELETED", gone)

    def all(self, kind: Kind) -> list[KubeObject]:
        """All objects of a kind: do not change them."""
        with self._lock:
            return list(self._objects[kind.plural].values())

    def get(self, kind: Kind, name: str, namespace: str = "") -> KubeObject:
        """A copy of an object."""
        with self._lock:
            found: KubeObject = json.loads(json.dumps(self._objects[kind.plural][namespace, name]))
            return found

    def hang_up(self) -> None:
        """End all watches."""
        with self._lock:
            for watches in self._watches.values():
                for watch in watches:
                    watch.put(None)

    def _send(self, kind: Kind, what: str, obj: KubeObject) -> None:
        if self._watches[kind.plural]:
            shown = _table(kind, [obj], str(self._version)) if kind == NODES else obj
            line = json.dumps({"type": what, "object": shown}).encode() + b"\n"
            for watch in self._watches[kind.plural]:
                watch.put(line)

    def page(self, kind: Kind, query: Mapping[str, str], *, table: bool) -> KubeObject:
        """A page of a list."""
        with self._lock:
            start, limit = int(query.get("continue", "0")), int(query.get("limit", "0"))
            objects = list(self._objects[kind.plural].values())
            shown = objects[start : start + limit] if limit else objects
            more = limit and start + limit < len(objects)
            version = str(self._version)
            metadata = {"resourceVersion": version}
            if more:
                metadata["continue"] = str(start + limit)
            if table:
                return _table(kind, shown, version) | {"metadata": metadata}
            return {
                "kind": f"{kind.name}List",
                "apiVersion": kind.api_version,
                "metadata": metadata,
                "items": shown,
            }

    @contextmanager
    def watch(self, kind: Kind, version: str) -> Iterator[queue.SimpleQueue[bytes | None]]:
        """The changes from now on, in lines. None ends them."""
        found: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with self._lock:
            for obj in self._objects[kind.plural].values():
                if int(obj["metadata"]["resourceVersion"]) > int(version):
                    shown = _table(kind, [obj], version) if kind == NODES else obj
                    found.put(json.dumps({"type": "MODIFIED", "object": shown}).encode() + b"\n")
            self._watches[kind.plural].add(found)
        try:
            yield found
        finally:
            with self._lock:
                self._watches[kind.plural].discard(found)


def _key(obj: KubeObject) -> tuple[str, str]:
    return (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _table(kind: Kind, objects: Sequence[KubeObject], version: str) -> KubeObject:
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "rows": [
            {
                "cells": [one["metadata"]["name"], _node_status(one) if kind == NODES else ""],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": one["metadata"],
                },
            }
            for one in objects
        ],
    }


def _node_status(node: KubeObject) -> str:
    ready = any(
        one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"]
    )
    away = ",SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else ""
    return ("Ready" if ready else "NotReady") + away


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.calls.append(self.path)
        if url.path == "/version":
            self._reply(200, {"gitVersion": "v1.36.0"})
            return
        kind = next((one for one in KINDS if one.path() == url.path), None)
        if kind is None:
            self._refuse(404, "the server could not find the requested resource")
            return
        if kind.plural in self.server.api.refused:
            self._refuse(*self.server.api.refused[kind.plural])
        elif query.get("watch") == "true":
            self._watch(kind, query)
        else:
            self._list(kind, query)

    def _list(self, kind: Kind, query: Mapping[str, str]) -> None:
        """A page, as bytes that are made once, so that a benchmark does not measure the making."""
        table = "as=Table" in self.headers.get("Accept", "")
        packed = "gzip" in self.headers.get("Accept-Encoding", "")
        version, known = self.server.api.version, self.server.answers
        key = (version, self.path, table, packed)
        if key not in known:
            for old in [one for one in list(known) if one[0] != version]:
                known.pop(old, None)
            known[key] = _encoded(self.server.api.page(kind, query, table=table), packed=packed)
        self._send(200, known[key])

    def _watch(self, kind: Kind, query: Mapping[str, str]) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        # A client that reads a body without chunks would wait for more than a line.
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        with self.server.api.watch(kind, query["resourceVersion"]) as lines, suppress(OSError):
            while (line := lines.get()) is not None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")

    def _refuse(self, status: int, message: str) -> None:
        reasons = {403: "Forbidden", 404: "NotFound"}
        body = {"kind": "Status", "message": message, "reason": reasons.get(status, "")}
        self._reply(status, body | {"code": status})

    def _reply(self, status: int, body: KubeObject) -> None:
        self._send(status, _encoded(body, packed=False))

    def _send(self, status: int, answer: tuple[bytes, bool]) -> None:
        data, packed = answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _encoded(body: KubeObject, *, packed: bool) -> tuple[bytes, bool]:
    """JSON, and whether it is packed, as the real server does with long answers."""
    data = json.dumps(body, separators=(",", ":")).encode()
    packed = packed and len(data) > _GZIP_FROM
    return (gzip.compress(data, 1) if packed else data, packed)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, api: RecordedApi, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.api = api
        self.calls: list[str] = []
        self.answers: dict[tuple[int, str, bool, bool], tuple[bytes, bool]] = {}

    def handle_error(self, *_: Any) -> None:
        """Ignore the error: a client may close its connection at any time."""


class Running:
    """A server that runs: `url`, `port`, and the paths of all `calls`."""

    def __init__(self, server: _Server) -> None:
        self.port = server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.calls = server.calls


@contextmanager
def serving(api: RecordedApi, port: int = 0) -> Iterator[Running]:
    """Serve in a thread; on leaving, all connections end."""
    server = _Server(api, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield Running(server)
    finally:
        server.shutdown()
        server.server_close()
        api.hang_up()
        thread.join()
