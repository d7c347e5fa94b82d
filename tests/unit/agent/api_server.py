"""A server that speaks the part of the Kubernetes API that the agent uses, and the way to it."""

from __future__ import annotations

import importlib
import json
import queue
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.servers import Handler

# The client imports it in its first call, which takes a second of the time of a test.
importlib.import_module("kubernetes.client.api.core_v1_api")

PATH = "/apis/serving.kserve.io/v1alpha1/localmodelnodes"


class FakeServer:
    """One LocalModelNode. Each watch sends the events of one list, and ends.

    One that gets a threading.Event instead says nothing until that is set, and ends then.
    """

    def __init__(self) -> None:
        self.node: dict[str, Any] | None = None
        self.version = 10
        self.refuse: int | None = None
        self.watches: queue.SimpleQueue[list[dict[str, Any]] | int | threading.Event] = (
            queue.SimpleQueue()
        )
        self.queries: list[dict[str, str]] = []
        self.patches: list[tuple[dict[str, str], str, dict[str, Any]]] = []
        self.patch_status = 200

    def __call__(self, handler: Handler, path: str) -> None:
        query = {k: v[0] for k, v in parse_qs(urlsplit(handler.path).query).items()}
        self.queries.append(query)
        if self.refuse is not None:
            self.send(handler, self.refuse, {"kind": "Status", "message": "no"})
        elif path == PATH and query.get("watch"):
            self.watch(handler)
        elif path == PATH:
            items = [self.node] if self.node else []
            self.send(
                handler,
                200,
                {"metadata": {"resourceVersion": str(self.version)}, "items": items},
            )
        elif handler.command == "PATCH":
            body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
            self.patches.append((query, handler.headers["Content-Type"], body))
            self.send(handler, self.patch_status, {**body, "stored": True})
        elif self.node is None:
            self.send(handler, 404, {"kind": "Status", "reason": "NotFound"})
        else:
            self.send(handler, 200, self.node)

    def watch(self, handler: Handler) -> None:
        events = self.watches.get(timeout=30)
        if isinstance(events, int):
            return self.send(handler, events, {"kind": "Status"})
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        if isinstance(events, threading.Event):
            handler.wfile.flush()
            events.wait(30)
            events = []
        for event in events:
            handler.wfile.write(json.dumps(event).encode() + b"\n")
        handler.close_connection = True
        return None

    def send(self, handler: Handler, status: int, body: dict[str, Any]) -> None:
        handler.reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def write_kubeconfig(path: Path, url: str) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "t0ken"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path
