"""A watch of objects on the API server: list, watch, resume, and list again after errors."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any, Protocol

import urllib3
from kubernetes import watch
from kubernetes.client.exceptions import ApiException

from agent.structs.causes import root_cause
from agent.structs.log import log

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

# An object as JSON.
KubeObject = dict[str, Any]

CALL_TIMEOUT = (3.0, 10.0)
PAGE_OBJECTS = 500
WATCH_SECONDS = 240
# The server sends a bookmark each minute. A longer silence means a dead connection, or a server
# that waits for a resourceVersion in the future: a restore of etcd sets its versions back.
WATCH_TIMEOUT = (3.0, 90.0)
# How much earlier than WATCH_SECONDS the server may end a watch, as the two clocks differ.
EARLY_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 5.0


class Listener(Protocol):
    """Handlers of a watch, which are called in its thread."""

    def listed(self, found: list[KubeObject]) -> None:
        """Handle a list of all objects."""
        ...

    def changed(self, change: str, found: KubeObject) -> None:
        """Handle an event. change: ADDED, MODIFIED or DELETED. found: the object's last state."""
        ...

    def broke(self, error: Exception, silent: float, /) -> None:
        """Handle a failed list or watch. silent: seconds since the server last sent anything."""
        ...


class KubeWatch:
    """A watch that lists and watches again after every error.

    `call` takes the options of a list method of the Kubernetes client, `selector` is its field
    selector. Objects are read as JSON, as the client's types cost more CPU than the rest of the
    watch.

    The watch resumes at its last version only if the previous watch ended after WATCH_SECONDS and
    sent something. A watch that ended earlier, or sent nothing, may have met a server that was
    restored to an older state. Such a server sends nothing for a version of the future until its
    own versions have passed it, and then omits the changes in between. So the watch lists again.
    """

    def __init__(self, call: Callable[..., Any], selector: str) -> None:
        self._call = call
        self._selector = selector
        self._pause = 0.0
        self._heard_at = 0.0
        # The newest observed version; empty: none.
        self._version = ""

    def run(self, listener: Listener, stopped: threading.Event) -> None:
        """List and watch until stopped; after an error, list again after a growing pause."""
        self._heard_at = time.monotonic()
        while not stopped.is_set():
            try:
                found, self._version = self._list()
                self._heard_at = time.monotonic()
                listener.listed(found)
                while not stopped.is_set() and self._watch_once(listener, stopped):
                    pass
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                self._grow_pause()
                self._report_break(listener, error)
            except Exception as error:
                # Without this watch the agent would observe no changes, so it is retried too.
                log.exception("Watch failed unexpectedly", selector=self._selector)
                self._pause = MAX_RETRY_SECONDS
                self._report_break(listener, error)
            stopped.wait(self._pause * random.uniform(0.5, 1))  # noqa: S311 - not for cryptography

    def _report_break(self, listener: Listener, error: Exception) -> None:
        try:
            listener.broke(error, time.monotonic() - self._heard_at)
        except Exception:
            log.exception("Break of a watch could not be reported", selector=self._selector)

    def list_now(self) -> list[KubeObject]:
        """All objects, at least as new as the watch has observed them. Any thread may call.

        The API server answers from its watch cache, which is cheap. Raises ApiException, also
        where that cache is older than the watch, and HTTPError.
        """
        version = self._version
        if not version:
            return self._list()[0]
        return self._list(resource_version=version, resource_version_match="NotOlderThan")[0]

    def _list(self, **at: str) -> tuple[list[KubeObject], str]:
        """All objects, and the resourceVersion to watch from."""
        found: list[KubeObject] = []
        # With both a limit and a version, older API servers would read from etcd.
        page: dict[str, Any] = at or {"limit": PAGE_OBJECTS}
        while True:
            answer = self._raw(field_selector=self._selector, _request_timeout=CALL_TIMEOUT, **page)
            body = json.loads(answer.data)
            found += body.get("items") or ()
            rest = body["metadata"].get("continue")
            if not rest:
                return found, str(body["metadata"]["resourceVersion"])
            page = {"limit": PAGE_OBJECTS, "_continue": rest}

    def _watch_once(self, listener: Listener, stopped: threading.Event) -> bool:
        """Run one watch to its end. Returns whether the next watch may resume there."""
        began, has_received = time.monotonic(), False
        for event in self._events(self._version):
            found = event["raw_object"]
            self._version = found["metadata"]["resourceVersion"]
            self._reset_pause()
            has_received = True
            if event["type"] != "BOOKMARK":
                listener.changed(event["type"], found)
            if stopped.is_set():
                return False
        if has_received and time.monotonic() - began >= WATCH_SECONDS - EARLY_SECONDS:
            return True
        self._grow_pause()
        return False

    def _grow_pause(self) -> None:
        self._pause = min(MAX_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, self._pause * 2))

    def _reset_pause(self) -> None:
        self._heard_at = time.monotonic()
        self._pause = 0.0

    def _events(self, version: str) -> Iterator[dict[str, Any]]:
        untyped: Any = watch
        stream: Iterator[dict[str, Any]] = untyped.Watch().stream(
            self._raw,
            field_selector=self._selector,
            resource_version=version,
            timeout_seconds=WATCH_SECONDS,
            allow_watch_bookmarks=True,
            _request_timeout=WATCH_TIMEOUT,
        )
        return stream

    def _raw(self, **query: Any) -> Any:
        """The response as JSON, without the client's types. Raises ApiException, HTTPError."""
        return self._call(**query | {"_preload_content": False})


def reason(error: Exception) -> str:
    """The cause of an error, without the URLs and the bodies that the libraries quote."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}".strip()
    return root_cause(error)
