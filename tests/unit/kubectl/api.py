"""An API server that answers lists, Tables and watches of given objects."""

from __future__ import annotations

import json
import queue
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from deploy.kubectl.snapshot import KINDS

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject
    from tests.unit.agent.servers import Handler

# How long a watch of this server lasts.
WATCH_SECONDS = 20.0


class Api:
    """Objects by the name of their kind.

    refused: the status for a kind, such as 403. unwatched: kinds that may not be watched. A list
    with a limit is sent in pages of one object. events: those of the watches, by the kind.
    """

    def __init__(self, objects: dict[str, list[KubeObject]]) -> None:
        self.objects = {kind.name: list(objects.get(kind.name, ())) for kind in KINDS}
        self.refused: dict[str, int] = {}
        self.unwatched: set[str] = set()
        self.events: dict[str, queue.Queue[dict[str, Any] | None]] = {
            kind.name: queue.Queue() for kind in KINDS
        }
        self.lists: list[str] = []

    def __call__(self, handler: Handler, path: str) -> None:
        query = {key: value[0] for key, value in parse_qs(urlsplit(handler.path).query).items()}
        if path == "/version":
            handler.reply(200, b"{}")
            return
        plural = path.rsplit("/", maxsplit=1)[-1]
        kind = next((one for one in KINDS if one.plural == plural), None)
        if kind is None:
            self._send(handler, 404, {"message": f"no {plural}"})
        elif kind.name in self.refused:
            status = self.refused[kind.name]
            self._send(handler, status, {"message": f"{plural} is refused"})
        elif "watch" in query and kind.name in self.unwatched:
            self._send(handler, 403, {"message": f"watching {plural} is refused"})
        elif "watch" in query:
            self._watch(handler, kind.name)
        else:
            table = "as=Table" in handler.headers["Accept"]
            whole = "limit" not in query
            start = int(query.get("continue", 0))
            self._page(handler, kind.name, start, table=table, whole=whole)

    def _page(self, handler: Handler, kind: str, start: int, *, table: bool, whole: bool) -> None:
        if not start:
            self.lists.append(kind)
        objects = self.objects[kind]
        end = len(objects) if whole else start + 1
        page = objects[start:end]
        more = str(end) if end < len(objects) else ""
        items = {"rows": [row(one) for one in page]} if table else {"items": page}
        metadata = {"resourceVersion": "7", "continue": more}
        self._send(handler, 200, {"metadata": metadata} | items)

    def _watch(self, handler: Handler, kind: str) -> None:
        handler.begin(200, {"Connection": "close"})
        try:
            event = self.events[kind].get(timeout=WATCH_SECONDS)
        except queue.Empty:
            event = None
        if event is not None:
            handler.wfile.write(json.dumps(event).encode() + b"\n")
        handler.close_connection = True

    def end_watches(self) -> None:
        """Have each watch that waits end."""
        for events in self.events.values():
            events.put(None)

    def _send(self, handler: Handler, status: int, body: dict[str, Any]) -> None:
        handler.reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def row(node: KubeObject) -> dict[str, Any]:
    """A Node as a row of its Table."""
    ready = node["status"]["conditions"][0]["status"] == "True"
    status = "Ready" if ready else "NotReady"
    unschedulable = ",SchedulingDisabled" if node["spec"].get("unschedulable") else ""
    metadata = node["metadata"] | {"annotations": {"long": "x" * 99}, "managedFields": []}
    return {
        "cells": [node["metadata"]["name"], status + unschedulable, "<none>"],
        "object": {"metadata": metadata},
    }
