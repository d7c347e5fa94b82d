"""Removes the startup taint from the agent's own Node."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import urllib3
from kubernetes.client.exceptions import ApiException

from agent.cluster.core_api import JSON_PATCH, CoreApi
from agent.cluster.events import NodeEvent
from agent.cluster.kube_watch import reason
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubernetes import client

    from agent.cluster.event_writer import EventWriter
    from agent.cluster.kube_watch import KubeObject

# The second key is a startup taint to every cluster autoscaler, also to those of clouds, to which
# nobody can give a flag.
KEYS = frozenset(
    {
        "localmodel.serving.kserve.io/not-ready",
        "startup-taint.cluster-autoscaler.kubernetes.io/localmodel-not-ready",
    }
)

KEPT = "StartupTaintKept"
REMOVED = "StartupTaintRemoved"

FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 30.0
# An agent without the right asks seldom: it may be one of a thousand.
MAX_REFUSED_SECONDS = 300.0
# An API server that has just started answers 403 to all requests until it has loaded the roles.
WARN_PAUSE_SECONDS = 8.0

_FORBIDDEN = 403


class NodeTaint:
    """The startup taint of a Node, in a thread that ends when the Node has no such taint.

    The thread reads the Node once at the start, and again only to remove the taint.
    """

    def __init__(self, node_name: str, api_client: client.ApiClient, events: EventWriter) -> None:
        self._name = node_name
        self._api = CoreApi(api_client)
        self._events = events
        self._changed = threading.Condition()
        # The last order: whether to remove the taint, and why. None: the thread has taken it.
        self._order: tuple[bool, str] | None = None
        self._is_done = False
        self._has_warned = False
        threading.Thread(target=self._run, name="startup-taint", daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Whether the Node has no taint any more, or never had one."""
        return self._is_done

    def keep(self, why: str) -> None:
        """Report why the taint stays. Never waits."""
        self._set(remove=False, why=why)

    def remove(self, why: str) -> None:
        """Remove the taint, and report why. Never waits; tries again until it is gone."""
        self._set(remove=True, why=why)

    def _set(self, *, remove: bool, why: str) -> None:
        with self._changed:
            self._order = (remove, why)
            self._changed.notify()

    def _next(self) -> tuple[bool, str]:
        with self._changed:
            while self._order is None:
                self._changed.wait()
            order, self._order = self._order, None
            return order

    def _run(self) -> None:
        try:
            self._follow()
        except Exception:
            log.exception("The startup taint could not be followed", node=self._name)
        self._is_done = True

    def _follow(self) -> None:
        node = self._until_done(self._read)
        if not taints_of(node):
            log.info("The Node has no startup taint", node=self._name)
            return
        self._events.about(node["metadata"].get("uid") or "")
        while True:
            remove, why = self._next()
            if remove:
                break
            self._report(KEPT, "Startup taint stays", why)
        if self._until_done(self._remove):
            self._report(REMOVED, "Startup taint is removed", why)
        else:
            log.info("Somebody else has removed the startup taint", node=self._name)

    def _report(self, event: str, text: str, why: str) -> None:
        log.info(text, node=self._name, detail=why)
        self._events.tell(NodeEvent(event, why))

    def _read(self) -> KubeObject:
        found: KubeObject = json.loads(self._api.get("nodes", self._name))
        return found

    def _remove(self) -> bool:
        """Remove the taint. Returns whether the Node still had it.

        Raises ApiException, also when the taints have changed since the Node was read.
        """
        patch = removal_of(self._read())
        if patch:
            self._api.patch("nodes", self._name, body=patch, how=JSON_PATCH)
        return bool(patch)

    def _until_done(self, call: Callable[[], Any]) -> Any:
        """The result of a call, which is repeated after an error with a growing pause."""
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                return call()
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                is_refused = isinstance(error, ApiException) and error.status == _FORBIDDEN
                self._warn(error, pause, is_refused=is_refused)
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - not for cryptography
            pause = min(MAX_REFUSED_SECONDS if is_refused else MAX_RETRY_SECONDS, 2 * pause)

    def _warn(self, error: Exception, pause: float, *, is_refused: bool) -> None:
        if not is_refused:
            log.warning(
                "Could not read or change the agent's own Node, whose startup taint stays",
                reason=reason(error),
                retrySeconds=pause,
            )
        elif pause >= WARN_PAUSE_SECONDS and not self._has_warned:
            self._has_warned = True
            log.warning(
                "May not read or change the agent's own Node, so its startup taint stays: the "
                "agent's ServiceAccount needs the verbs get and patch on nodes, see "
                "deploy/components/startup-taint",
                node=self._name,
                reason=reason(error),
            )


def taints_of(node: KubeObject) -> list[tuple[int, dict[str, Any]]]:
    """The startup taints of a Node, whatever their effect, and their places in its list."""
    taints = node.get("spec", {}).get("taints") or ()
    return [(place, taint) for place, taint in enumerate(taints) if taint.get("key") in KEYS]


def removal_of(node: KubeObject) -> list[dict[str, Any]]:
    """A JSON patch that removes the startup taints, and fails if a taint has moved or changed."""
    return [
        {"op": op, "path": f"/spec/taints/{place}"} | ({"value": taint} if op == "test" else {})
        # From the end: a removal moves what follows.
        for place, taint in reversed(taints_of(node))
        for op in ("test", "remove")
    ]
