"""The watch of objects on the API server: list, follow, resume, begin again."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any, Protocol

import structlog
import urllib3
from kubernetes import watch
from kubernetes.client.exceptions import ApiException

from localmodel.agent.structs.causes import root_cause

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

# An object as JSON.
KubeObject = dict[str, Any]

CALL_TIMEOUT = (3.0, 10.0)
PAGE_OBJECTS = 500
WATCH_SECONDS = 240
# The server sends a bookmark each minute. Silence for longer is a dead connection, or the server
# waits for a version that is still to come: after a restore of etcd its versions go back.
WATCH_TIMEOUT = (3.0, 90.0)
# How much earlier than asked for a watch may end by itself, by two clocks.
EARLY_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Hears what a watch sees, in its thread."""

    def listed(self, found: list[KubeObject]) -> None:
        """These are all the objects now."""
        ...

    def changed(self, change: str, found: KubeObject) -> None:
        """An object was ADDED, MODIFIED or DELETED, and was last like this."""
        ...

    def broke(self, error: Exception, silent: float, /) -> None:
        """List or watch failed, and begins again. silent: seconds since it last heard anything."""
        ...


class KubeWatch:
    """A watch that never gives up.

    `call` is a list method of the Kubernetes client, `selector` its field selector. Objects are
    read as JSON: the client's own types cost more than all the rest.

    It resumes only where a watch came to its own end, and has said something. One that ended
    before, or was silent, may have been cut off by a server that was restored to an older state:
    from a version of before, that one tells nothing until its versions have passed it, and then
    leaves out what happened meanwhile. What is listed holds in any case.
    """

    def __init__(self, call: Callable[..., Any], selector: str) -> None:
        self._call = call
        self._selector = selector
        self._pause = 0.0
        self._heard_at = 0.0
        # The newest version that was seen; empty: none.
        self._version = ""

    def run(self, listener: Listener, stopped: threading.Event) -> None:
        """List, then watch from there; begin again after any error, after a growing pause."""
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
                self._tell_break(listener, error)
            except Exception as error:
                # Without its watch the agent would be deaf: whatever it was, begin again.
                log.exception("Watch failed unexpectedly", selector=self._selector)
                self._pause = MAX_RETRY_SECONDS
                self._tell_break(listener, error)
            stopped.wait(self._pause * random.uniform(0.5, 1))  # noqa: S311 - not for cryptography

    def _tell_break(self, listener: Listener, error: Exception) -> None:
        try:
            listener.broke(error, time.monotonic() - self._heard_at)
        except Exception:
            log.exception("Break of a watch could not be told", selector=self._selector)

    def look(self) -> list[KubeObject]:
        """All objects, as new as what the watch has seen or newer; any thread may ask.

        They are of the API server's memory, which costs it little. Raises ApiException, also where
        its state is older than that, and HTTPError.
        """
        version = self._version
        if not version:
            return self._list()[0]
        return self._list(resource_version=version, resource_version_match="NotOlderThan")[0]

    def _list(self, **at: str) -> tuple[list[KubeObject], str]:
        """What is there, and the version to watch from."""
        found: list[KubeObject] = []
        # With a limit and a version, older API servers would ask etcd.
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
        """Follow one watch to its end. Returns whether the next may resume where it ended."""
        began, has_spoken = time.monotonic(), False
        for event in self._events(self._version):
            found = event["raw_object"]
            self._version = found["metadata"]["resourceVersion"]
            self._alive()
            has_spoken = True
            if event["type"] != "BOOKMARK":
                listener.changed(event["type"], found)
            if stopped.is_set():
                return False
        if has_spoken and time.monotonic() - began >= WATCH_SECONDS - EARLY_SECONDS:
            return True
        self._grow_pause()
        return False

    def _grow_pause(self) -> None:
        self._pause = min(MAX_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, self._pause * 2))

    def _alive(self) -> None:
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
        """The answer before the client makes types of it. Raises ApiException, HTTPError."""
        return self._call(**query | {"_preload_content": False})


def reason(error: Exception) -> str:
    """What an error says, without the URLs and the bodies that the libraries quote."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}".strip()
    return root_cause(error)
