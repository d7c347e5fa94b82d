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

from agent.causes import root_cause

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

# An object as JSON.
KubeObject = dict[str, Any]

CALL_TIMEOUT = (3.0, 10.0)
PAGE_OBJECTS = 500
WATCH_SECONDS = 240
# The server sends a bookmark each minute, so silence for longer is a dead connection.
WATCH_TIMEOUT = (3.0, 90.0)
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
    """

    def __init__(self, call: Callable[..., Any], selector: str, listener: Listener) -> None:
        self._call = call
        self._selector = selector
        self._listener = listener
        self._pause = 0.0
        self._heard_at = 0.0

    def run(self, stopped: threading.Event) -> None:
        """List, then watch from there; begin again after any error, after a growing pause."""
        self._heard_at = time.monotonic()
        while not stopped.is_set():
            try:
                version = self._list()
                while version and not stopped.is_set():
                    version = self._watch_once(version, stopped)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                self._pause = min(MAX_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, self._pause * 2))
                self._tell_break(error)
            except Exception as error:
                # Without its watch the agent would be deaf: whatever it was, begin again.
                log.exception("Watch failed unexpectedly", selector=self._selector)
                self._pause = MAX_RETRY_SECONDS
                self._tell_break(error)
            stopped.wait(self._pause * random.uniform(0.5, 1))  # noqa: S311 - not for cryptography

    def _tell_break(self, error: Exception) -> None:
        try:
            self._listener.broke(error, time.monotonic() - self._heard_at)
        except Exception:
            log.exception("Break of a watch could not be told", selector=self._selector)

    def _list(self) -> str:
        """Tell what is there. Returns the version to watch from."""
        found: list[KubeObject] = []
        page: dict[str, Any] = {"limit": PAGE_OBJECTS}
        while True:
            answer = self._raw(field_selector=self._selector, _request_timeout=CALL_TIMEOUT, **page)
            body = json.loads(answer.data)
            found += body.get("items") or ()
            rest = body["metadata"].get("continue")
            if not rest:
                break
            page["_continue"] = rest
        self._heard_at = time.monotonic()
        self._listener.listed(found)
        return str(body["metadata"]["resourceVersion"])

    def _watch_once(self, version: str, stopped: threading.Event) -> str:
        """Follow one watch to its end. Returns the version to resume from."""
        for event in self._events(version):
            found = event["raw_object"]
            version = found["metadata"]["resourceVersion"]
            self._alive()
            if event["type"] != "BOOKMARK":
                self._listener.changed(event["type"], found)
            if stopped.is_set():
                break
        self._alive()
        return version

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
