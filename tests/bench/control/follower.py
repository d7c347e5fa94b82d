"""Watches one kind, and tells when a goal is reached: to the event, and without asking again."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from deploy.kube.errors import GoneError, UnansweredError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import Kind

WATCH_SECONDS = 60
_PAUSE_SECONDS = 0.2
_BOOKMARK = "BOOKMARK"


class Tracker(Protocol):
    """What takes in the events of a watch."""

    def see(self, kind: str, found: Mapping[str, Any]) -> None:
        """Take in an event."""
        ...


class Goal:
    """A state that is waited for."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds
        self._reached = threading.Event()
        self._at = 0.0

    def check(self) -> None:
        """Note the time if it holds for the first time."""
        if not self._reached.is_set() and self._holds():
            self._at = time.monotonic()
            self._reached.set()

    def wait(self, until: float) -> float | None:
        """When it held first; None if it did not in time. Both are of the monotonic clock."""
        if self._reached.wait(max(0.0, until - time.monotonic())):
            return self._at
        return None


class Follower:
    """A thread that reads the watch of a kind, from what is there now to the server's end."""

    def __init__(self, api: KubeClient, resource: Kind, tracker: Tracker) -> None:
        self._api = api
        self._resource = resource
        self._tracker = tracker
        self._lock = threading.Lock()
        self._goals: list[Goal] = []
        self._version = self._list()
        threading.Thread(target=self._run, daemon=True).start()

    def expect(self, holds: Callable[[], bool]) -> Goal:
        """A goal, checked now and after each event."""
        goal = Goal(holds)
        with self._lock:
            self._goals.append(goal)
            goal.check()
        return goal

    def look(self, at: Callable[[], Any]) -> Any:
        """Something of the tracker, while no event changes it."""
        with self._lock:
            return at()

    def _list(self) -> str:
        found, version = self._api.snapshot(self._resource)
        for item in found:
            self._see("ADDED", item)
        return version

    def _see(self, kind: str, found: Mapping[str, Any]) -> None:
        with self._lock:
            self._tracker.see(kind, found)
            for goal in self._goals:
                goal.check()

    def _run(self) -> None:
        while True:
            try:
                self._watch()
            except UnansweredError:
                time.sleep(_PAUSE_SECONDS)
            except UnreachableError:
                # The cluster was stopped.
                return
            except GoneError:
                self._version = self._list()

    def _watch(self) -> None:
        events = self._api.watch(self._resource, self._version, seconds=WATCH_SECONDS)
        for kind, found in events:
            self._version = found["metadata"]["resourceVersion"]
            if kind != _BOOKMARK:
                self._see(kind, found)
